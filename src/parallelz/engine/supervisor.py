"""The parent of a host's engines: starts them fast, ends them, and knows why each one died.

It imports everything once and forks, before it has any socket or thread. A pipe that it never
writes to tells its children when it is gone, even by SIGKILL.

One loop waits for messages, for the ends of children and for deadlines. A child that the
controller wants ended, or that uses too much memory, gets signals and a deadline; whatever it
dies of, `_bury` reports it and decides on a replacement.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections import deque
from types import FrameType

from parallelz.engine.children import PASSED_ON, Child, Plan, fork, log_path, spawn
from parallelz.engine.engine import EXIT_REFUSED
from parallelz.engine.orders import Orders
from parallelz.engine.startup import EXIT_STARTUP
from parallelz.engine_options import size_text
from parallelz.ids import SessionId
from parallelz.protocol.messages import (
    DrainChildren,
    EndEngine,
    EngineDied,
    Goodbye,
    Refused,
    StopEngine,
    Supervises,
    Welcome,
)
from parallelz.protocol.roles import ToSupervisor
from parallelz.transport.peer import PeerLink, PeerPoller, Watch, endpoint_for
from parallelz.transport.sockets import Waker, new_session_id, term_context

logger = logging.getLogger(__name__)

FINAL_CODES = (0, EXIT_REFUSED, EXIT_STARTUP)  # another engine would end in the same way
TELL_TIMEOUT_S = 5.0  # for a controller to be there that is to be told of the last death
PARENT_CHECK_PERIOD_S = 1.0
MEMORY_CHECK_PERIOD_S = 0.5
RESTARTS_MAX = 5  # of engines that died of themselves, all together, in
RESTARTS_PERIOD_S = 60.0


class Supervisor:
    """Starts engines, ends them when told to, and waits for their ends.

    Parameters
    ----------
    plan
        What to start each with. Its memory limit is watched over here, and with `restart`
        one that ends by a signal or with an exit code other than 0 is replaced.
    parent_pid
        When this process is gone, the supervisor ends its engines. None: it does not care.
    orders
        Where to hear from a launcher on another host; their end is the engines' end.
    drain_after_s
        When the engines are to get nothing new, and to end as soon as they have nothing left;
        None: never.
    passes_signals
        Whether a signal such as SIGINT is for the engines. SIGTERM is always for all.
    leaves_signals
        Whether such a signal reaches the engines as well as us, so that we must not pass it on.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        parent_pid: int | None,
        orders: Orders | None = None,
        drain_after_s: float | None = None,
        passes_signals: bool = False,
        leaves_signals: bool = False,
    ) -> None:
        self._plan = plan
        self._parent_pid = parent_pid
        self._orders = orders
        self._drain_s = math.inf if drain_after_s is None else time.monotonic() + drain_after_s
        self._is_draining = False
        self._passes_signals = passes_signals
        self._leaves_signals = leaves_signals
        self._to_pass: deque[int] = deque()
        self._children: dict[SessionId, Child] = {}
        self._to_replace: set[SessionId] = set()  # by order, once they have ended
        self._gone: set[SessionId] = set()  # ended and not replaced
        self._over_limit: set[SessionId] = set()
        self._memory_due_s = 0.0
        self._restarts_s: deque[float] = deque(maxlen=RESTARTS_MAX)
        self._may_restart = True
        self._exit_code = 0
        self._alive_fd, self._kept_fd = os.pipe()
        self._stop_reason = ""
        self._tell_by_s = 0.0  # until when the controller is waited for, to be told of a death
        self._waker: Waker | None = None

    def run(self, n: int) -> int:
        """Start `n` engines and wait until the last has ended; return the exit status."""
        signal.signal(signal.SIGCHLD, self._on_signal)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        if self._passes_signals or self._leaves_signals:
            for number in PASSED_ON:
                signal.signal(
                    number, self._on_passed if self._passes_signals else self._on_signal
                )
        for _ in range(n):
            self._add(fork(self._plan, self._alive_fd, self._kept_fd))
        self._waker = Waker()
        link: PeerLink[ToSupervisor] = PeerLink(
            endpoint_for(self._plan.info),
            "control",
            session_id=new_session_id(),
            role="supervisor",
            token=self._plan.info.token,
            incoming=ToSupervisor,
        )
        try:
            self._watch(link, self._waker)
        finally:
            self._end_children(self._waker)
            link.put(Goodbye("its engines have ended"))
            link.flush()
            link.close(linger_s=0.5)
            self._waker.close()
            os.close(self._alive_fd)
            os.close(self._kept_fd)
            term_context()
        return self._exit_code

    def _watch(self, link: PeerLink[ToSupervisor], waker: Waker) -> None:
        """Obey and report each death, until no child is left or we are to end."""
        heard = None if self._orders is None else Watch(self._orders.fd)
        poller = PeerPoller(link, waker, *(() if heard is None else (heard,)))
        while True:
            now_s = time.monotonic()
            due_s = min(
                self._end_what_is_due(now_s), link.tick(now_s), now_s + PARENT_CHECK_PERIOD_S
            )
            self._drain_if_due(now_s, link)
            self._pass_signals()
            for child, code in self._reap():
                self._bury(child, code, link)
            link.flush()
            if self._stop_reason or self._is_done(link, now_s):
                return
            ready = poller.poll(max(due_s - time.monotonic(), 0.0))
            if waker in ready:
                waker.drain()
            if heard in ready:
                self._take_orders()
            for message, _ in link.receive():
                self._obey(message, link)
            if self._parent_pid is not None and os.getppid() != self._parent_pid:
                self._stop_reason = "the process that started it is gone"

    def _is_done(self, link: PeerLink[ToSupervisor], now_s: float) -> bool:
        """Whether no engine is left, and the controller, if it is there, knows why."""
        if self._children:
            return False
        return link.welcome is not None or now_s >= self._tell_by_s

    def _take_orders(self) -> None:
        assert self._orders is not None
        signals = self._orders.receive()
        if signals is None:
            self._stop_reason = "the launcher closed our input"
            return
        for number in signals:
            for child in self._children.values():
                child.signal(number)

    def _obey(self, message: ToSupervisor, link: PeerLink[ToSupervisor]) -> None:
        match message:
            case Welcome():
                link.put(Supervises(list(self._children)))
                if self._is_draining:
                    link.put(DrainChildren())
            case EndEngine():
                self._end(message, link)
            case StopEngine():
                self._stop_reason = message.reason
            case Refused():
                self._stop_reason = message.reason
                self._exit_code = max(self._exit_code, EXIT_REFUSED)
            case _:
                pass  # the link itself deals with it

    # -- ends ------------------------------------------------------------------------------

    def _end(self, order: EndEngine, link: PeerLink[ToSupervisor]) -> None:
        child = self._children.get(order.session_id)
        if child is not None:
            logger.info("= ends the engine with pid %d: %s", child.pid, order.reason)
            if order.restart:
                self._to_replace.add(child.session_id)
            child.end(order.reason, time.monotonic(), order.grace_s)
        elif order.restart and order.session_id in self._gone:  # it died while it was told
            self._gone.discard(order.session_id)
            self._replace(link)

    def _drain_if_due(self, now_s: float, link: PeerLink[ToSupervisor]) -> None:
        if now_s >= self._drain_s and not self._is_draining:
            logger.info("= the time of the engines is nearly over: they get nothing new")
            self._is_draining = True
            link.put(DrainChildren())

    def _end_what_is_due(self, now_s: float) -> float:
        """Kill who has had its grace or uses too much memory; return when to look again."""
        limit = self._plan.options.memory_limit
        due_s = now_s + PARENT_CHECK_PERIOD_S
        if limit:
            if now_s >= self._memory_due_s:
                self._memory_due_s = now_s + MEMORY_CHECK_PERIOD_S
                self._end_who_uses_more_than(limit, now_s)
            due_s = self._memory_due_s
        for child in self._children.values():
            child.kill_if_due(now_s)
            due_s = min(due_s, child.kill_due_s)
        return due_s

    def _end_who_uses_more_than(self, limit: int, now_s: float) -> None:
        for child in self._children.values():
            used = 0 if child.end_reason else child.memory_used()
            if used > limit:
                self._over_limit.add(child.session_id)
                reason = (
                    f"used {size_text(used)} of memory, more than its limit of"
                    f" {size_text(limit)} (--memory-limit)"
                )
                child.end(reason, now_s)

    def _reap(self) -> list[tuple[Child, int]]:
        """Return which children have ended since, with their exit codes."""
        ended = []
        for child in list(self._children.values()):
            code = child.poll()
            if code is not None:
                ended.append((child, code))
                del self._children[child.session_id]
        return ended

    def _bury(self, child: Child, code: int, link: PeerLink[ToSupervisor]) -> None:
        cause = child.cause(code)
        if code == EXIT_STARTUP and self._plan.log_dir is not None:
            path = log_path(self._plan.log_dir, str(child.pid))
            last_line = path.read_text(errors="replace").rstrip().splitlines()[-1]
            cause = f"{cause}: {last_line} ({path})"
        logger.info("= engine with pid %d ended: %s", child.pid, cause)
        started = child.started
        link.put(EngineDied(child.session_id, cause, started.count, started.open()))
        child.started.close()
        if code not in FINAL_CODES:
            self._tell_by_s = time.monotonic() + TELL_TIMEOUT_S
        if self._is_replaced(child, code):
            self._replace(link)
            return
        self._gone.add(child.session_id)
        if not child.end_reason:
            self._exit_code = max(self._exit_code, abs(code))

    def _end_children(self, waker: Waker) -> None:
        """End all children: kindly, then by force."""
        for child in self._children.values():
            child.signal(signal.SIGTERM)
        give_up_s = time.monotonic() + self._plan.options.engine_grace_s
        self._reap()
        while self._children and time.monotonic() < give_up_s:
            PeerPoller(waker).poll(0.1)
            waker.drain()
            self._reap()
        for child in self._children.values():
            child.signal(signal.SIGKILL)
            child.wait()
            child.started.close()
        self._children.clear()

    # -- starts ----------------------------------------------------------------------------

    def _is_replaced(self, child: Child, code: int) -> bool:
        if self._stop_reason or self._is_draining:
            return False
        if child.session_id in self._to_replace:
            self._to_replace.discard(child.session_id)
            return True
        if child.session_id in self._over_limit:
            self._over_limit.discard(child.session_id)
            return self._may_restart_one_more()
        if not self._plan.options.restart or child.end_reason or code in FINAL_CODES:
            return False
        return self._may_restart_one_more()

    def _may_restart_one_more(self) -> bool:
        """Count a restart that nobody asked for; too many mean that it is of no use."""
        now_s = time.monotonic()
        latest = self._restarts_s
        if len(latest) == RESTARTS_MAX and now_s - latest[0] < RESTARTS_PERIOD_S:
            if self._may_restart:
                logger.error(
                    "! engines died %d times within %g s: no more of them are replaced",
                    RESTARTS_MAX + 1,
                    RESTARTS_PERIOD_S,
                )
            self._may_restart = False
        latest.append(now_s)
        return self._may_restart

    def _replace(self, link: PeerLink[ToSupervisor]) -> None:
        try:
            child = spawn(self._plan, self._alive_fd)
        except OSError as error:
            logger.error("! cannot start another engine: %s", error)
            return
        logger.info("= started another engine, with pid %d", child.pid)
        self._add(child)
        link.put(Supervises(list(self._children)))

    def _add(self, child: Child) -> None:
        self._children[child.session_id] = child

    # -- signals ---------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waker is not None:
            self._waker.wake()

    def _on_passed(self, number: int, frame: FrameType | None) -> None:
        self._to_pass.append(number)
        self._on_signal(number, frame)

    def _pass_signals(self) -> None:
        while self._to_pass:
            number = signal.Signals(self._to_pass.popleft())
            for child in self._children.values():
                child.signal(number)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_reason = signal.Signals(number).name
        self._on_signal(number, frame)
