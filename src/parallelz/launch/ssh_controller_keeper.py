"""The process that holds the login of a controller on another host.

It writes the connection files of this host once the controller there has its secrets, and logs
in again when a login is lost. It ends with the controller, with the same exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets as randomness
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from parallelz import settings
from parallelz.errors import ParallelzError
from parallelz.launch import cluster_file
from parallelz.launch.launcher import describe_code
from parallelz.launch.ssh import in_any_shell, python_script, server_of
from parallelz.launch.ssh_controller import (
    SSHControllerOptions,
    profile_dir_there,
    to_ssh_controller_options,
)
from parallelz.protocol.connection import ConnectionInfo, Heartbeat
from parallelz.transport import remote_controller as remote
from parallelz.transport.remote_controller import Lines, StartOrder
from parallelz.transport.security import (
    ClusterSecrets,
    read_secrets,
    runtime_dir_of,
    write_secrets,
)
from parallelz.transport.sockets import host_id

logger = logging.getLogger(__name__)

CHECK_PERIOD_S = 1.0
FORWARDING_TIMEOUT_S = 10.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.25, 15.0  # before logging in again
STEADY_S = 10.0  # who lasted for so long has not failed at the start
SSH_FAILED = 255  # its exit code for what is not the command's
END_GRACE_S = 0.9 * settings.STOP_GRACE_S  # then the login is ended itself

SSH_OPTIONS = (
    *("-o", "ControlPath=none"),  # or the forwarding is another process's
    *("-o", "LogLevel=ERROR"),  # no line for each attempt to reach a controller that restarts
)
GUARD = ("-P", "-m", "parallelz.controller.guard")


def guard_command(options: SSHControllerOptions) -> str:
    """Return what the shell over there is to run."""
    return in_any_shell(python_script(options, GUARD))


def seen_from_here(cluster: ClusterSecrets, socket_path: str) -> ClusterSecrets:
    """Return the same controller for processes of this host, behind a forwarded socket."""

    def seen(info: ConnectionInfo) -> ConnectionInfo:
        return msgspec.structs.replace(info, ipc_url=f"ipc://{socket_path}", host_id=host_id())

    infos = {role: seen(info) for role, info in cluster.infos.items()}
    return msgspec.structs.replace(cluster, infos=infos)


class Keeper:
    """Keeps one controller there, by one login after another.

    Parameters
    ----------
    order
        What to start first.
    options
        Where, and how.
    profile_dir
        For the connection files.
    socket_path
        Which socket file here leads to the controller.
    """

    def __init__(
        self,
        order: StartOrder,
        options: SSHControllerOptions,
        profile_dir: Path,
        socket_path: str,
        *,
        ready_fd: int | None,
        parent_pid: int | None,
    ) -> None:
        self._order = order
        self._options = options
        self._profile_dir = profile_dir
        self._socket_path = socket_path
        self._ready_fd = ready_fd
        self._parent_pid = parent_pid
        self._was_ready = order.resume
        self._is_ending = False
        self._cannot_be_used = False
        self._give_up_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._waking, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)  # what is written counts

    def run(self) -> int:
        """Log in, and again, until the controller has ended; return how."""
        pause_s = PAUSE_FIRST_S
        while True:
            started_s = time.monotonic()
            code = self._follow(self._log_in())
            if self._is_ending:
                return 0
            is_lost = code in (SSH_FAILED, remote.LOST) or code < 0
            if not (is_lost and self._was_ready) or self._cannot_be_used:
                what = "the login" if is_lost else "the controller"
                logger.error("! %s: %s %s", self._options.host, what, _described(code))
                return code if 0 <= code < SSH_FAILED else 1
            if time.monotonic() - started_s > STEADY_S:
                pause_s = PAUSE_FIRST_S
            logger.warning(
                "! %s: the login %s; logs in again", self._options.host, describe_code(code)
            )
            self._pause(pause_s)
            if self._is_ending:
                return 0
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _log_in(self) -> subprocess.Popen[bytes]:
        server = server_of(self._options, self._options.host)
        there = Path(self._order.runtime_dir) / "controller.sock"
        command = server.command(*SSH_OPTIONS, f"-L{self._socket_path}:{there}")
        process = subprocess.Popen(
            [*command, guard_command(self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)  # a login may be stuck
        self._process = process
        self._say(msgspec.json.encode(self._order))
        logger.info("= logs in to %s", self._options.host)
        return process

    def _say(self, line: bytes) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._process.stdin.fileno(), line + b"\n")

    def _follow(self, process: subprocess.Popen[bytes]) -> int:
        """Do what there is to do until a login ends; return its exit code."""
        assert process.stdout is not None
        answers: Lines | None = Lines(process.stdout.fileno())
        sign_s = 0.0
        while (code := process.poll()) is None:
            if time.monotonic() > sign_s:
                self._say(remote.STILL_HERE)
                sign_s = time.monotonic() + remote.SIGN_PERIOD_S
            answers = self._wait(CHECK_PERIOD_S, answers)
            if self._is_ending and time.monotonic() > self._give_up_s:
                process.terminate()
        while answers is not None:  # what it said last
            answers = self._receive(answers)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self._process = None
        return code

    def _pause(self, pause_s: float) -> None:
        """Do nothing for so long; the end of the last login may still wake us."""
        until_s = time.monotonic() + pause_s
        while not self._is_ending and (left_s := until_s - time.monotonic()) > 0:
            self._wait(left_s)

    def _wait(self, timeout_s: float, answers: Lines | None = None) -> Lines | None:
        """Wait for what comes, and deal with it; return what further answers come by."""
        watched = [self._waking] if answers is None else [self._waking, answers.fd]
        found = select.select(watched, [], [], timeout_s)[0]
        if self._waking in found and {signal.SIGTERM, signal.SIGINT} & {
            *os.read(self._waking, 4096)
        }:
            self._end("told to")
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            self._end("the process that started it is gone")
        if answers is not None and answers.fd in found:
            return self._receive(answers)
        return answers

    def _end(self, reason: str) -> None:
        if not self._is_ending:
            logger.info("= ends the controller: %s", reason)
            self._is_ending = True
            self._give_up_s = time.monotonic() + END_GRACE_S
            self._say(remote.END)

    def _receive(self, answers: Lines) -> Lines | None:
        lines = answers.receive()
        for line in lines or ():
            marked, mark, said = line.partition(remote.MARK)
            if marked or not mark:
                logger.info("= said over there: %s", line.decode(errors="replace"))
            elif said == remote.READY:
                self._became_ready()
            else:
                self._take_secrets(msgspec.json.decode(said, type=ClusterSecrets))
        return None if lines is None else answers

    def _take_secrets(self, cluster: ClusterSecrets) -> None:
        write_secrets(seen_from_here(cluster, self._socket_path), self._profile_dir)
        # Whatever comes after this login goes on with what there is now.
        self._order = msgspec.structs.replace(self._order, secrets=cluster, resume=True)

    def _became_ready(self) -> None:
        logger.info("= the controller on %s listens", self._options.host)
        if why := why_not_forwarded(self._socket_path):
            logger.error("! %s does not let sockets be forwarded: %s", self._options.host, why)
            self._cannot_be_used = not self._was_ready
            self._say(remote.END)
            return
        self._was_ready = True
        if self._ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)
            self._ready_fd = None


def why_not_forwarded(socket_path: str) -> str:
    """Return why a socket file does not lead to a controller; "": it does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(FORWARDING_TIMEOUT_S)
        try:
            probe.connect(socket_path)
            # libzmq speaks first.
            return "" if probe.recv(1) else "sshd has closed it (AllowStreamLocalForwarding)"
        except OSError as error:
            return str(error)


def _described(code: int) -> str:
    return describe_code(128 - code if 128 < code < SSH_FAILED else code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="parallelz.launch.ssh_controller_keeper")
    parser.add_argument("--profile-dir", type=Path, required=True)
    parser.add_argument("--cluster-id", default="")
    parser.add_argument("--socket-dir", required=True, help="which cluster that is")
    parser.add_argument("--launcher-options", required=True, help="as JSON")
    parser.add_argument("--ip", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--location", default="")
    parser.add_argument("--heartbeat", required=True, help="as JSON")
    parser.add_argument("--ready-fd", type=int, help="gets a line when the controller listens")
    parser.add_argument("--parent-pid", type=int, help="end when this process has ended")
    parser.add_argument("--resume", action="store_true")
    return parser


def _order(args: argparse.Namespace, arguments: list[str]) -> StartOrder:
    options = to_ssh_controller_options(msgspec.json.decode(args.launcher_options))
    try:
        kept = read_secrets(args.profile_dir, args.cluster_id)
    except FileNotFoundError:
        kept = None
    # A name that nobody can guess: /tmp over there is everybody's.
    runtime_dir = Path(f"/tmp/parallelz-{randomness.token_hex(16)}")
    return StartOrder(
        str(runtime_dir if kept is None else runtime_dir_of(kept)),
        profile_dir_there(options, args.profile_dir),
        args.cluster_id,
        args.ip,
        args.port,
        args.location,
        msgspec.json.decode(args.heartbeat, type=Heartbeat),
        arguments,
        kept,
        args.resume,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Keep a controller; return how it ended. What is not known here is passed on to it."""
    args, arguments = _parser().parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    profile_dir = args.profile_dir
    which = {"socket_dir": args.socket_dir, "owner_pid": args.parent_pid}
    is_orderly = False
    try:
        cluster_file.join_launched(profile_dir, args.cluster_id, **which, launcher="ssh")
        keeper = Keeper(
            _order(args, arguments),
            to_ssh_controller_options(msgspec.json.decode(args.launcher_options)),
            profile_dir,
            f"{args.socket_dir}/controller.sock",
            ready_fd=args.ready_fd,
            parent_pid=args.parent_pid,
        )
        code = keeper.run()
        is_orderly = code == 0
        return code
    except ParallelzError as error:
        logger.error("! %s", error)
        return 1
    finally:
        # As a controller of this host does: after a crash somebody may start another one.
        if is_orderly or args.parent_pid not in (None, os.getppid()):
            cluster_file.release(profile_dir, args.cluster_id, **which)


if __name__ == "__main__":
    sys.exit(main())
