"""A controller that somebody on another host has started through SSH, and what ends it.

The guard stands between the login and the controller. Its standard input leads to a keeper on
the other host (`launch.ssh_controller_keeper`). When that is silent or gone, the controller
goes on for a while, as the keeper may come back by another login: a new guard then takes the
place of this one, and its controller knows all that is recorded. If nobody comes, the
controller ends as if it were told to, and nothing stays behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from parallelz import settings
from parallelz.errors import ClusterError, ParallelzError
from parallelz.transport import remote_controller as remote
from parallelz.transport.remote_controller import Lines, StartOrder
from parallelz.transport.security import (
    ClusterSecrets,
    new_secrets,
    remove_runtime_dir,
    renewed,
)

logger = logging.getLogger(__name__)

LOCK_FILE, SECRETS_FILE = "guard.lock", "controller.json"
CHECK_PERIOD_S = 1.0


def take_place(runtime_dir: Path, end_by: signal.Signals = signal.SIGKILL) -> int:
    """Make a directory ours, and end the guard and the controller that have it.

    Parameters
    ----------
    end_by
        SIGKILL has their peers wait for the next controller; by SIGTERM they hear that there
        is none.

    Returns
    -------
    int
        Descriptor of a lock, held by each process that has a copy of it.

    Raises
    ------
    ClusterError
        If the directory may be somebody else's.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            runtime_dir.mkdir(mode=0o700)
        status = runtime_dir.lstat()
        is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not is_private or status.st_uid != os.geteuid():
            raise ClusterError(f"{runtime_dir} is not a directory of this user alone")
        path = runtime_dir / LOCK_FILE
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _end_holders(lock, end_by)
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Who had it may have removed it at its end, just before we got it.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == path.stat().st_ino:
                os.pwrite(lock, b"%-20d" % os.getpgrp(), 0)
                return lock
        os.close(lock)


def _end_holders(lock: int, end_by: signal.Signals) -> None:
    written = os.pread(lock, 20, 0).strip()
    if written.isdigit() and int(written) not in (0, 1, os.getpgrp()):
        logger.info("= takes the place of the guard before (pid %s)", written.decode())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(written), end_by)


def secrets_for(order: StartOrder) -> ClusterSecrets:
    """Return the secrets of a controller on this host: those of before, else new ones.

    Peers share no memory with it: most come through the login, from another host.
    """
    if order.secrets is not None:
        made = renewed(
            order.secrets,
            ip=order.ip,
            port=order.port,
            location=order.location,
            heartbeat=order.heartbeat,
        )
    else:
        made = new_secrets(
            order.cluster_id,
            runtime_dir=Path(order.runtime_dir),
            ip=order.ip,
            port=order.port,
            location=order.location,
            heartbeat=order.heartbeat,
        )
    infos = {
        role: msgspec.structs.replace(info, ipc_url=made.bind_urls[0], shared_memory="")
        for role, info in made.infos.items()
    }
    return msgspec.structs.replace(made, infos=infos)


class Guard:
    """One controller, until it ends or nobody wants it any more.

    Parameters
    ----------
    order
        What to start.
    orders
        What comes from the keeper afterwards.
    answers
        Descriptor for what it is told.
    """

    def __init__(self, order: StartOrder, orders: Lines, answers: int) -> None:
        self._order = order
        self._orders: Lines | None = orders
        self._answers = answers
        self._heard_s = time.monotonic()
        self._end_by_s: float | None = None  # if nobody comes back
        self._kill_by_s: float | None = None
        self._is_lost = False

    def run(self) -> int:
        """Start the controller, wait for its end, and return how it ended."""
        waking, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda number, frame: None)  # what is written counts
        ready, ready_writer = os.pipe()
        lock = take_place(Path(self._order.runtime_dir))
        try:
            process = self._start(ready_writer, lock)
            os.close(ready_writer)
            return self._follow(process, waking, ready)
        finally:
            remove_runtime_dir(Path(self._order.runtime_dir))
            os.close(lock)

    def _follow(self, process: subprocess.Popen[bytes], waking: int, ready: int) -> int:
        watched: list[int] = [waking, ready]
        while (code := process.poll()) is None:
            orders = [self._orders.fd] if self._orders is not None else []
            found = select.select([*watched, *orders], [], [], CHECK_PERIOD_S)[0]
            if waking in found and signal.SIGCHLD not in os.read(waking, 256):
                self._end(process, "told to by a signal")
            if ready in found:
                watched.remove(ready)
                if os.read(ready, 64):
                    self._tell(remote.READY)
            if orders and orders[0] in found:
                self._obey(process)
            self._see_to_time(process)
        if self._is_lost:
            return remote.LOST
        return code if code >= 0 else 128 - code

    def _start(self, ready_fd: int, lock: int) -> subprocess.Popen[bytes]:
        order = self._order
        runtime_dir = Path(order.runtime_dir)
        profile_dir = Path(order.profile_dir).expanduser()
        settings.make_profile_dir(profile_dir)
        secrets = secrets_for(order)
        file = runtime_dir / SECRETS_FILE
        file.touch(0o600)
        file.write_bytes(msgspec.json.encode(secrets))
        (runtime_dir / "controller.sock").unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "parallelz.controller.process"]
        command += ["--profile-dir", str(profile_dir), "--cluster-id", order.cluster_id]
        command += ["--file", str(file), "--ready-fd", str(ready_fd), *order.arguments]
        command += ["--parent-pid", str(os.getpid())]
        if order.resume:
            command.append("--resume")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[ready_fd, lock])
        self._tell(msgspec.json.encode(secrets))
        return process

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._answers, remote.MARK + line + b"\n")

    def _obey(self, process: subprocess.Popen[bytes]) -> None:
        assert self._orders is not None
        lines = self._orders.receive()
        if lines is None:
            self._orders = None
            self._wait_for_return("the login has ended")
            return
        self._heard_s = time.monotonic()
        if self._end_by_s is not None:
            logger.info("= heard of the keeper again")
            self._end_by_s = None
        if remote.END in lines:
            self._end(process, "told to")

    def _wait_for_return(self, why: str) -> None:
        if self._end_by_s is None:
            self._end_by_s = time.monotonic() + remote.RETURN_GRACE_S
            logger.warning(
                "! %s: ends in %g s unless the keeper comes back", why, remote.RETURN_GRACE_S
            )

    def _see_to_time(self, process: subprocess.Popen[bytes]) -> None:
        now_s = time.monotonic()
        if self._orders is not None and now_s > self._heard_s + remote.SILENCE_S:
            self._wait_for_return(f"the keeper has said nothing for {remote.SILENCE_S:g} s")
        if self._end_by_s is not None and now_s > self._end_by_s:
            self._is_lost = True
            self._end(process, "the keeper is gone")
        if self._kill_by_s is not None and now_s > self._kill_by_s:
            process.kill()

    def _end(self, process: subprocess.Popen[bytes], reason: str) -> None:
        if self._kill_by_s is None:
            logger.info("= ends the controller: %s", reason)
            self._kill_by_s = time.monotonic() + settings.STOP_GRACE_S
            process.terminate()


def _take_descriptors() -> tuple[Lines, int]:
    """Take standard input and output for the keeper; what is printed goes to the log."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # Rather lose what is logged than wait for a connection that is stuck.
    os.set_blocking(2, False)
    return Lines(orders), answers


def _obey_first(orders: Lines, answers: int) -> int:
    """Wait for what to start, and do that until its end; return how it ended."""
    while (lines := orders.receive()) is not None:
        if not lines:
            continue
        order = msgspec.json.decode(lines[0], type=StartOrder)
        if remote.END not in lines:
            return Guard(order, orders, answers).run()
        # It has changed its mind, and wants none at all.
        lock = take_place(Path(order.runtime_dir), signal.SIGTERM)
        remove_runtime_dir(Path(order.runtime_dir))
        os.close(lock)
        return 0
    raise ClusterError("the keeper left before it had said what to start")


def main() -> int:
    """Guard one controller; return how it ended."""
    with contextlib.suppress(PermissionError):  # sshd has made it lead a session already
        os.setpgid(0, 0)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s",
    )
    orders, answers = _take_descriptors()
    try:
        return _obey_first(orders, answers)
    except (ParallelzError, msgspec.MsgspecError, OSError) as error:
        logger.error("! %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
