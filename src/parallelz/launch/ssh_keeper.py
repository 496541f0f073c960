"""The process that holds the logins of a set of engines on other hosts.

It ends when all of them have ended. When it is told to end, or its parent is gone, it closes
their inputs, which makes the supervisors over there end their engines. A host that cannot be
reached is told of and costs the others nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from parallelz.engine_options import EngineOptions, add_arguments, from_arguments
from parallelz.errors import ParallelzError
from parallelz.launch.launcher import describe_code, last_lines
from parallelz.launch.ssh import (
    FAILED,
    PASSED_ON,
    STOPPED_BY,
    HostEngines,
    SSHOptions,
    chosen_hosts,
    log_of,
    remote_command,
    server_of,
    to_ssh_options,
)
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import read_connection_file
from parallelz.transport.sockets import host_id
from parallelz.transport.tunnel import target_of, through

logger = logging.getLogger(__name__)

PARENT_CHECK_PERIOD_S = 1.0
SSH_FAILED = 255  # its exit code for what is not the command's
END_MARGIN_S = 1.0  # so long before the end of all grace the logins are ended themselves
END_SHARE = 0.8  # of all grace, where the margin would leave less


class Login(NamedTuple):
    """One host, as long as ssh runs."""

    host: HostEngines
    process: subprocess.Popen[bytes]
    log: Path


def tunnelled(info: ConnectionInfo, path: str) -> tuple[str, ConnectionInfo]:
    """Return ssh's option for a way back to the controller, and what engines are told.

    Parameters
    ----------
    path
        Of the socket file on the engines' side.
    """
    if info.ipc_url and info.host_id in ("", host_id()):
        info = msgspec.structs.replace(info, tcp_urls=[])  # the shortest: its socket file
    return f"-R{path}:{target_of(info)}", through(info, path)


class Keeper:
    """Starts the logins, passes signals on, and waits for the ends."""

    def __init__(
        self,
        info: ConnectionInfo,
        options: SSHOptions,
        engine_options: EngineOptions,
        log_dir: Path,
    ) -> None:
        self._info = info
        self._options = options
        self._engine_options = engine_options
        self._log_dir = log_dir
        self._logins: list[Login] = []
        self._exit_code = 0
        self._is_ending = False
        self._give_up_s = 0.0

    def run(self, hosts: Sequence[HostEngines], parent_pid: int | None) -> int:
        """Start engines on these hosts and wait until the last has ended; return how."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGCHLD, STOPPED_BY, *PASSED_ON):
            signal.signal(number, _do_nothing)  # what is written to the pipe counts
        for host in hosts:
            self._start(host)
        while self._logins:
            if select.select([reading], [], [], PARENT_CHECK_PERIOD_S)[0]:
                for signum in os.read(reading, 4096):
                    self._obey(signum)
            if parent_pid is not None and os.getppid() != parent_pid:
                self._end("the process that started it is gone")
            if self._is_ending and time.monotonic() > self._give_up_s:
                for login in self._logins:
                    login.process.terminate()
            self._reap()
        return self._exit_code

    def _start(self, host: HostEngines) -> None:
        server = server_of(self._options, host.host)
        options: list[str] = []
        info = self._info
        socket_path = ""
        if self._options.tunnel:
            # A name that nobody can guess: /tmp over there is everybody's.
            socket_path = f"/tmp/parallelz-{secrets.token_hex(16)}.sock"
            option, info = tunnelled(info, socket_path)
            options.append(option)
        command = server.command(*options)
        remote = remote_command(self._options, host, self._engine_options, socket_path)
        command.append(remote)
        log = log_of(self._log_dir, host.host)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        self._logins.append(Login(host, process, log))
        _write(process, msgspec.json.encode(info) + b"\n")
        logger.info("= logs in to %s for %d engines", host.host, host.n)

    def _obey(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._end("told to")
        elif number != signal.SIGCHLD:
            signum = int(signal.SIGSTOP if number == STOPPED_BY else number)
            order = msgspec.json.encode({"signum": signum}) + b"\n"
            for login in self._logins:
                _write(login.process, order)

    def _end(self, reason: str) -> None:
        if not self._is_ending:
            logger.info("= ends all engines: %s", reason)
            self._is_ending = True
            grace_s = self._engine_options.stop_grace_s
            until_s = max(grace_s - END_MARGIN_S, END_SHARE * grace_s)
            self._give_up_s = time.monotonic() + until_s
            for login in self._logins:
                assert login.process.stdin is not None
                login.process.stdin.close()

    def _reap(self) -> None:
        for login in list(self._logins):
            code = login.process.poll()
            if code is None:
                continue
            self._logins.remove(login)
            assert login.process.stdin is not None
            login.process.stdin.close()
            if code and not self._is_ending:
                self._exit_code = self._exit_code or abs(code)
                what = "the login" if code == SSH_FAILED or code < 0 else "what ran there"
                said = last_lines(login.log, line_count=1) or "it said nothing"
                logger.error(
                    "%s%s: %s %s: %s",
                    FAILED.lstrip(),
                    login.host.host,
                    what,
                    describe_code(code),
                    said,
                )


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Send a line, if there is somebody to read it; the end is seen by `_reap`."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line)
        process.stdin.flush()


def _do_nothing(number: int, frame: object) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Hold the logins until their ends; return the exit status."""
    parser = argparse.ArgumentParser(prog="parallelz.launch.ssh_keeper")
    parser.add_argument("--file", type=Path, required=True, help="connection file of engines")
    parser.add_argument("-n", type=int, required=True, help="how many engines")
    parser.add_argument("--launcher-options", required=True, help="as JSON")
    parser.add_argument("--log-dir", type=Path, required=True, help="a log for each host")
    parser.add_argument("--parent-pid", type=int, help="end when this process has ended")
    add_arguments(parser)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        options = to_ssh_options(msgspec.json.decode(args.launcher_options))
        engine_options = from_arguments(args)
        info = read_connection_file(args.file, "engine")
        hosts = chosen_hosts(options, args.n)
    except (ParallelzError, FileNotFoundError) as error:
        logger.error("! %s", error)
        return 1
    return Keeper(info, options, engine_options, args.log_dir).run(hosts, args.parent_pid)


if __name__ == "__main__":
    sys.exit(main())
