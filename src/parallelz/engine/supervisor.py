"""The parent of a host's engines: starts them fast, and knows why each one died.

It imports everything once and forks, before it has any socket or thread. A pipe that it never
writes to tells its children when it is gone, even by SIGKILL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from parallelz.engine.engine import EXIT_REFUSED, Engine
from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.messages import EngineDied, Goodbye, Refused, StopEngine, ToSupervisor
from parallelz.transport.peer import PeerLink, PeerPoller, endpoint_for
from parallelz.transport.sockets import Waker, new_session_id, term_context

logger = logging.getLogger(__name__)

STOP_GRACE_S = 2.0  # from SIGTERM to SIGKILL
PARENT_CHECK_PERIOD_S = 1.0


class Supervisor:
    """Forks engines and waits for their ends.

    Parameters
    ----------
    info
        Of the role ``engine``.
    log_dir
        Where each engine writes a log of its own; None: to the supervisor's output.
    parent_pid
        When this process is gone, the supervisor ends its engines. None: it does not care.
    """

    def __init__(
        self, info: ConnectionInfo, *, log_dir: Path | None, parent_pid: int | None
    ) -> None:
        self._info = info
        self._log_dir = log_dir
        self._parent_pid = parent_pid
        self._children: dict[int, SessionId] = {}
        self._alive_fd, self._kept_fd = os.pipe()
        self._stop_reason = ""
        self._waker: Waker | None = None

    def run(self, n: int) -> int:
        """Start `n` engines and wait until the last has ended; return the exit status."""
        signal.signal(signal.SIGCHLD, self._on_signal)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        for _ in range(n):
            self._fork()
        self._waker = Waker()
        link: PeerLink[ToSupervisor] = PeerLink(
            endpoint_for(self._info),
            "control",
            session_id=new_session_id(),
            role="supervisor",
            token=self._info.token,
            incoming=ToSupervisor,
        )
        code = 0
        try:
            code = self._watch(link, self._waker)
        finally:
            self._end_children()
            link.put(Goodbye("its engines have ended"))
            link.flush()
            link.close(linger_s=0.5)
            self._waker.close()
            os.close(self._alive_fd)
            os.close(self._kept_fd)
            term_context()
        return code

    def _fork(self) -> None:
        session_id = new_session_id()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._children[pid] = session_id
            return
        code = 1
        try:
            code = self._run_child(session_id)
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)  # not the supervisor's own way out

    def _run_child(self, session_id: SessionId) -> int:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # until the engine sets its own
        os.close(self._kept_fd)
        if self._log_dir is not None:
            path = self._log_dir / f"ipenginez-{os.getpid()}.log"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.close(descriptor)
        try:
            return Engine(self._info, session_id, self._alive_fd).run()
        except Exception:
            logger.exception("! the engine failed")
            raise

    def _watch(self, link: PeerLink[ToSupervisor], waker: Waker) -> int:
        """Report each death; return once there is no child, or an end is asked for."""
        poller = PeerPoller(link, waker)
        worst = 0
        while True:
            worst = max(worst, self._reap(link))
            link.flush()
            if not self._children or self._stop_reason:
                return worst
            until_s = min(link.tick(time.monotonic()), time.monotonic() + PARENT_CHECK_PERIOD_S)
            if waker in poller.poll(max(until_s - time.monotonic(), 0.0)):
                waker.drain()
            for message, _ in link.receive():
                if isinstance(message, StopEngine | Refused):
                    self._stop_reason = message.reason
                if isinstance(message, Refused):
                    worst = max(worst, EXIT_REFUSED)
            if self._parent_pid is not None and os.getppid() != self._parent_pid:
                self._stop_reason = "the process that started it is gone"

    def _reap(self, link: PeerLink[ToSupervisor] | None) -> int:
        """Take in which children have ended; return the worst of their exit codes."""
        worst = 0
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._children.clear()
                break
            if pid == 0:
                break
            session_id = self._children.pop(pid, None)
            if session_id is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            logger.info("= engine with pid %d ended: %s", pid, cause_of(code))
            worst = max(worst, abs(code))
            if link is not None:
                link.put(EngineDied(session_id, cause_of(code)))
        return worst

    def _end_children(self) -> None:
        """End all children: kindly, then by force."""
        self._signal_children(signal.SIGTERM)
        give_up_s = time.monotonic() + STOP_GRACE_S
        while self._children and time.monotonic() < give_up_s:
            self._reap(None)
            if self._children and self._waker is not None:
                PeerPoller(self._waker).poll(0.1)
                self._waker.drain()
        self._signal_children(signal.SIGKILL)
        for pid in list(self._children):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._children.clear()

    def _signal_children(self, number: signal.Signals) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waker is not None:
            self._waker.wake()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_reason = signal.Signals(number).name
        self._on_signal(number, frame)


def cause_of(code: int) -> str:
    """Return in words how a process ended, from `os.waitstatus_to_exitcode`.

    >>> cause_of(-9)
    'killed by signal 9 (SIGKILL)'
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; was the memory used up?" if name == "SIGKILL" else ""
    return f"killed by signal {-code} ({name}){hint}"
