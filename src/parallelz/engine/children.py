"""Engine processes as their supervisor has them: started, ended, and explained.

The first ones are forked, before the supervisor has any socket or thread, which takes
milliseconds. Later nothing that goes on after a fork would be safe: whatever replaces one is
started as a program, by the hidden options of `engine.process`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from parallelz.engine.engine import Engine
from parallelz.engine.started import StartedTasks
from parallelz.engine.startup import EXIT_STARTUP, StartupFailed
from parallelz.engine_options import EngineOptions
from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.sockets import new_session_id

logger = logging.getLogger(__name__)

PASSED_ON = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT")
    if hasattr(signal, name)  # Windows has few
]


class Plan(NamedTuple):
    """What all engines of one supervisor are started with."""

    info: ConnectionInfo
    file: Path  # where `info` was read
    log_dir: Path | None = None  # each engine writes a log there; None: to our output
    options: EngineOptions = EngineOptions()


class Child:
    """One engine process, until its end is known.

    Attributes
    ----------
    end_reason
        Why its supervisor ends it; "": it does not.
    kill_due_s
        When SIGKILL follows (`time.monotonic`).
    started
        How many tasks it has ever started. Closed by whoever takes in its end.
    """

    def __init__(
        self,
        session_id: SessionId,
        pid: int,
        started: StartedTasks,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.session_id = session_id
        self.pid = pid
        self.started = started
        self.end_reason = ""
        self.kill_due_s = math.inf
        self._process = process
        self._sent: list[signal.Signals] = []

    def poll(self) -> int | None:
        """Return its exit code (negative: the signal), None while it runs.

        Each child is asked for by its pid, since `waitpid(-1)` takes those of `subprocess`.
        """
        if self._process is not None:
            return self._process.poll()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            self._process.wait()
        else:
            os.waitpid(self.pid, 0)

    def end(self, reason: str, now_s: float, grace_s: float = 0.0) -> None:
        """Send SIGTERM, and SIGKILL after `grace_s`; 0: SIGKILL now.

        The first reason counts, and the shortest grace.
        """
        self.end_reason = self.end_reason or reason
        self.kill_due_s = min(self.kill_due_s, now_s + grace_s)
        if grace_s > 0 and not self._sent:
            self.signal(signal.SIGTERM)
        self.kill_if_due(now_s)

    def kill_if_due(self, now_s: float) -> None:
        """Send SIGKILL if its grace is over."""
        if now_s >= self.kill_due_s:
            self.kill_due_s = math.inf
            self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; its end is not known yet, so its pid is nobody else's."""
        self._sent.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def memory_used(self) -> int:
        """Return how many bytes it has in memory, shared ones included; 0 if it has ended."""
        import psutil  # takes a while, and is of use only where there is a limit

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def cause(self, code: int) -> str:
        """Return why it ended, given its exit code."""
        if not self.end_reason:
            return cause_of(code)
        if code == -signal.SIGKILL and signal.SIGTERM in self._sent:
            return f"{self.end_reason}; killed, as it did not end when asked to"
        if code == 0 or -code in self._sent:
            return self.end_reason
        return f"{self.end_reason}; {cause_of(code)}"


def cause_of(code: int) -> str:
    """Return in words how a process ended, from `os.waitstatus_to_exitcode`.

    >>> cause_of(-9)
    'killed by signal 9 (SIGKILL); was the memory used up?'
    """
    if code == EXIT_STARTUP:
        return "its startup failed"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; was the memory used up?" if name == "SIGKILL" else ""
    return f"killed by signal {-code} ({name}){hint}"


def fork(plan: Plan, alive_fd: int, kept_fd: int) -> Child:
    """Start an engine as a copy of this process, which must have no socket or thread yet.

    Parameters
    ----------
    alive_fd, kept_fd
        Both ends of the pipe that tells it when this process is gone.
    """
    session_id = new_session_id()
    started = StartedTasks()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(session_id, pid, started)
    code = 1
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM, *PASSED_ON):
            signal.signal(number, signal.SIG_DFL)  # until the engine sets its own
        os.close(kept_fd)
        code = run_engine(plan, session_id, alive_fd, started)
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # not the supervisor's own way out


def spawn(plan: Plan, alive_fd: int) -> Child:
    """Start an engine as a program, with our environment and working directory.

    Raises
    ------
    OSError
        If the system does not let us.
    """
    session_id = new_session_id()
    command = [sys.executable, "-m", "parallelz.engine.process", "--file", str(plan.file)]
    command += ["--wait-s", "0", "--session-id", session_id, "--alive-fd", str(alive_fd)]
    started = StartedTasks()
    command += ["--started-fd", str(started.fd), *plan.options.described]
    if plan.log_dir is not None:
        command += ["--log-dir", str(plan.log_dir)]
    try:
        process = subprocess.Popen(command, pass_fds=[alive_fd, started.fd])
    except OSError:
        started.close()
        raise
    return Child(session_id, process.pid, started, process)


def log_path(log_dir: Path, name: str) -> Path:
    """Return the path of the log of an engine by its name, which is mostly its pid."""
    return log_dir / f"ipenginez-{name}.log"


def run_engine(
    plan: Plan,
    session_id: SessionId,
    alive_fd: int | None = None,
    started: StartedTasks | None = None,
    *,
    log_name: str = "",
) -> int:
    """Be the engine with this name, and log where it is to; return the exit status.

    Parameters
    ----------
    alive_fd, started
        What its supervisor watches it by; None: it has none.
    log_name
        Of its log; "": its pid.
    """
    if plan.log_dir is not None:
        path = log_path(plan.log_dir, log_name or str(os.getpid()))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    try:
        return Engine(plan.info, session_id, alive_fd, plan.options, started).run()
    except StartupFailed:
        return EXIT_STARTUP
    except Exception:
        logger.exception("! the engine failed")
        raise
