"""Who drives a client's connections, and how threads wait for what arrives on them.

The links belong to one thread at a time, the *driver*. A thread that waits for a result drives
by itself: what it waits for then arrives in that very thread, and no second one has to be woken
for it, which would cost more than the rest of a round trip. While nobody waits a background
thread drives. It gives way when somebody comes to wait, and after that it stays away for a
moment (`LINGER_S`), so that a series of short waits hands over once and not each time::

    background drives --a thread waits--> that thread drives --it has what it waits for-->
    nobody drives --LINGER_S--> background drives

What is to be sent stands in a queue that any thread may append to; all that stands there
leaves as one envelope per link. Of several waiting threads one drives, the others sleep.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
import weakref
from _signal import signal as set_handler  # type: ignore[import-not-found]
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Literal, Protocol

from parallelz.client.crowding import Crowding
from parallelz.client.merging import passing_out, taken_out
from parallelz.errors import ClusterError
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.messages import Message
from parallelz.protocol.roles import ToClient
from parallelz.protocol.shared import size_of
from parallelz.transport.peer import PeerLink, PeerPoller, Waker

logger = logging.getLogger(__name__)

# As a number, and set without the enums of the module `signal`: with them it takes ten times
# as long, twice in each wait.
SIGINT = int(signal.SIGINT)
LINGER_S = 0.01
LONG_S = 0.05  # who drove for so long tells the background thread when it stops
NOTICE_PATIENCE_S = 0.2
GOODBYE_LINGER_S = 1.0
IDLE_S = 60.0
AWAY_NOTICE_S = 5.0
# An envelope is encoded, sent again after a break, and taken in by the controller as a whole:
# so many tasks cost it about 25 ms, and as long all other peers wait.
ENVELOPE_COUNT_MAX = 1000
ENVELOPE_BYTES_MAX = 4 * 1024 * 1024


class EndWatcher(Protocol):
    """Wants to know when nothing can arrive any more."""

    def take_end(self, reason: str) -> None:
        """Take that in; may be called more than once."""


class Pump:
    """Moves messages between a client and its controller.

    Parameters
    ----------
    bulk, control
        The two links, which the pump owns from now on.
    handle
        Called with each message, its buffers and whether it came by `control`, by whichever
        thread drives; must be quick, and must not wait.
    tick
        Called with the time of the monotonic clock in each turn, to do what is due; returns
        when to be called again.

    Attributes
    ----------
    waiting, control_waiting
        What is to be sent by each link; append and call `wake`.
    notices
        Texts for the user. They become warnings in a thread that waits, else log lines.
    end_watchers
        Told of an obstacle, as long as somebody else refers to them.
    obstacle
        Why nothing can arrive any more; "": it can.
    crowding
        Knows why what is to be sent stays here.
    """

    def __init__(
        self,
        bulk: PeerLink[ToClient],
        control: PeerLink[ToClient],
        handle: Callable[[ToClient, Sequence[Buffer], bool], None],
        tick: Callable[[float], float],
    ) -> None:
        self.waiting: deque[Item] = deque()
        self.control_waiting: deque[Item] = deque()
        self.notices: deque[str] = deque()
        self.obstacle = ""
        self.end_watchers: weakref.WeakSet[EndWatcher] = weakref.WeakSet()
        self._bulk, self._control = bulk, control
        self._queues = ((bulk, self.waiting), (control, self.control_waiting))
        self._handle = handle
        self._tick = tick
        self._waker = Waker()
        self._poller = PeerPoller(bulk, control, self._waker)
        self.crowding = Crowding(bulk, self.waiting, self.notices)
        self._has_passing = False  # among what waits may be what needs no room
        self._noticed_s = 0.0
        self._away_since_s = float("inf")  # when the controller was last there
        self._is_polling = False
        self._was_interrupted = False
        self._lock = threading.RLock()  # guards the following, also from a signal's handler
        self._turn = threading.Condition(self._lock)
        self._driver: Literal["nobody", "background", "foreground"] = "nobody"
        self._waiter_count = 0
        self._taken_s = 0.0  # when the foreground last began and ceased to drive
        self._given_up_s = 0.0
        self._is_closing = False
        self._goodbye: Message | None = None
        self._background = threading.Thread(
            target=self._run_in_background, name="parallelz-client", daemon=True
        )

    def start(self) -> None:
        """Begin to drive in the background."""
        self._background.start()

    # -- for any thread --------------------------------------------------------------------

    def put_passing(self, outgoing: Item) -> None:
        """Append a question or a value to `waiting`: it passes what is there without room."""
        self.waiting.append(outgoing)
        self._has_passing = True  # only now: who looks before that looks once more

    def wake(self) -> None:
        """Have what was appended to `waiting` sent soon."""
        if self._is_polling:
            self._waker.wake()

    def nudge(self) -> None:
        """Have whoever waits look again: something has changed that no message brings."""
        self._waker.wake()

    def wait(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `is_done`; return whether it is.

        Parameters
        ----------
        is_done
            Asked after each arrival of messages, by this thread.
        timeout_s
            None: however long it takes; 0: take in what is there already.

        Raises
        ------
        ClusterError
            If it cannot come true any more, as the controller has ended.
        KeyboardInterrupt
            By Ctrl-C in the main thread. Nothing gets lost by it.
        """
        if is_done():
            return True
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        is_holding = self._hold_interrupts()
        try:
            with self._lock:
                self._waiter_count += 1
            try:
                return self._wait(is_done, until_s)
            finally:
                with self._lock:
                    self._waiter_count -= 1
        finally:
            if is_holding:
                self._release_interrupts()

    def close(self, goodbye: Message | None) -> None:
        """Send what waits and `goodbye`, and free the links. May be called again."""
        with self._lock:
            if self._is_closing:
                return
            self._goodbye = goodbye
            self._is_closing = True
            self._waker.wake()
            self._turn.notify_all()
        self.hinder(self.obstacle or "the client was closed")
        if threading.current_thread() is not self._background:
            self._background.join()

    def hinder(self, reason: str) -> None:
        """Take in that nothing can arrive any more."""
        self.obstacle = reason
        for watcher in list(self.end_watchers):
            watcher.take_end(reason)

    # -- taking turns ----------------------------------------------------------------------

    def _wait(self, is_done: Callable[[], bool], until_s: float | None) -> bool:
        while not is_done():
            while self.notices:
                warnings.warn(self.notices.popleft(), stacklevel=5)
            if self.obstacle:
                raise ClusterError(self.obstacle)
            if self._was_interrupted:
                return False
            left_s = IDLE_S if until_s is None else until_s - time.monotonic()
            if self._became_driver(min(left_s, IDLE_S)):
                try:
                    self._drive(is_done, until_s)
                finally:
                    self._stop_driving()
            if until_s is not None and time.monotonic() >= until_s:
                return is_done()
        return True

    def _became_driver(self, left_s: float) -> bool:
        """Take over if nobody drives; else wait for news, and return False."""
        with self._lock:
            if self._driver == "nobody" and not self._is_closing:
                self._driver = "foreground"
                self._taken_s = time.monotonic()
                return True
            if self._driver == "background":
                self._waker.wake()  # it gives way
            if left_s > 0 and not self._was_interrupted:
                self._turn.wait(left_s)
            return False

    def _drive(self, is_done: Callable[[], bool], until_s: float | None) -> None:
        while True:
            left_s = IDLE_S if until_s is None else until_s - time.monotonic()
            self._step(min(max(left_s, 0.0), IDLE_S))
            if is_done() or left_s <= 0 or self.notices or self._is_hindered():
                return
            if self._waiter_count > 1:
                with self._lock:
                    self._turn.notify_all()

    def _is_hindered(self) -> bool:
        return bool(self._was_interrupted or self.obstacle or self._is_closing)

    def _stop_driving(self) -> None:
        with self._lock:
            was_long = True
            if self._driver == "foreground":
                self._given_up_s = time.monotonic()
                was_long = self._given_up_s - self._taken_s > LONG_S
            self._driver = "nobody"
            # After a short wait the background thread looks by itself: see LINGER_S.
            if was_long or self._waiter_count > 1 or self._is_closing:
                self._turn.notify_all()

    def _hold_interrupts(self) -> bool:
        """Have KeyboardInterrupt wait until nothing that has arrived gets lost by it.

        Returns
        -------
        bool
            Whether `_release_interrupts` is to be called.
        """
        if threading.current_thread() is not threading.main_thread():
            return False
        before = set_handler(SIGINT, self._note_interrupt)
        if before is signal.default_int_handler:
            return True
        # Somebody's own, or that of a wait around us; None: not made in Python.
        set_handler(SIGINT, signal.SIG_DFL if before is None else before)
        return False

    def _release_interrupts(self) -> None:
        set_handler(SIGINT, signal.default_int_handler)
        if self._was_interrupted:
            self._was_interrupted = False
            raise KeyboardInterrupt

    def _note_interrupt(self, signum: int, frame: FrameType | None) -> None:
        self._was_interrupted = True
        self._waker.wake()
        with self._lock:
            self._turn.notify_all()

    # -- the background thread -------------------------------------------------------------

    def _run_in_background(self) -> None:
        try:
            while self._got_background_turn():
                try:
                    while not (self._waiter_count or self._is_closing):
                        self._step(NOTICE_PATIENCE_S if self.notices else IDLE_S)
                        self._log_notices()
                finally:
                    self._stop_driving()
        finally:
            # Also if a bug ended it: whoever waits must not do so for ever.
            self.obstacle = self.obstacle or "the client's own thread has failed"
            with self._lock:
                self._turn.notify_all()
        self._part()

    def _log_notices(self) -> None:
        """Log what is for the user, unless somebody comes to wait: there it is a warning."""
        if not self.notices:
            self._noticed_s = 0.0
        elif not self._noticed_s:
            self._noticed_s = time.monotonic()
        elif time.monotonic() - self._noticed_s >= NOTICE_PATIENCE_S:
            while self.notices:
                logger.warning("%s", self.notices.popleft())

    def _got_background_turn(self) -> bool:
        with self._lock:
            while not (self._is_closing and self._driver == "nobody"):
                now_s = time.monotonic()
                if self._driver == "foreground":
                    is_long = now_s - self._taken_s > LONG_S
                    self._turn.wait(IDLE_S if is_long else LINGER_S)
                elif self._waiter_count or now_s - self._given_up_s < LINGER_S:
                    self._turn.wait(LINGER_S)
                else:
                    self._driver = "background"
                    return True
        return False

    def _part(self) -> None:
        if self._goodbye is not None:
            self.waiting.append((self._goodbye, ()))
        self._send_waiting()
        for link, _ in self._queues:
            link.close(GOODBYE_LINGER_S)
        self._waker.close()

    # -- driving ---------------------------------------------------------------------------

    def _step(self, timeout_s: float) -> None:
        """Send what waits, wait for something to arrive, and take it in."""
        self._send_waiting()  # first of all: the controller can begin
        now_s = time.monotonic()
        due_s = min(
            self._bulk.tick(now_s),
            self._control.tick(now_s),
            self._tick(now_s),
            self.crowding.tick(now_s),
        )
        if self._bulk.welcome is None or self._control.welcome is None:
            self._note_absence(now_s)
        else:
            self._away_since_s = now_s
        self._is_polling = True
        # What is wanted from here on wakes the poll; what was wanted before is seen here.
        is_wanted = self._waiter_count and self._driver == "background"
        if self._has_waiting() or self._is_closing or is_wanted:
            timeout_s = 0.0
        try:
            ready = self._poller.poll(min(timeout_s, max(due_s - now_s, 0.0)))
        finally:
            self._is_polling = False
        if self._waker in ready:
            self._waker.drain()
        for link, _ in self._queues:
            if link in ready:
                is_control = link is self._control
                for message, buffers in link.receive():
                    self._handle(message, buffers, is_control)
        if self._has_waiting():
            self._send_waiting()  # what is asked while something arrives is answered at once

    def _note_absence(self, now_s: float) -> None:
        """Tell the user, once, why nothing happens."""
        if now_s - self._away_since_s > AWAY_NOTICE_S:
            self._away_since_s = float("inf")
            self.notices.append(
                f"the controller has not answered for {AWAY_NOTICE_S:g} s: what was submitted"
                " goes on where it can, and its results come when the controller is back"
            )

    def _has_waiting(self) -> bool:
        """Whether something could be sent now."""
        return bool(
            (
                self.waiting
                and self._bulk.welcome is not None
                and (self._bulk.has_room or self._has_passing)
            )
            or (self.control_waiting and self._control.welcome is not None)
        )

    def _is_full(self, link: PeerLink[ToClient]) -> bool:
        """Whether what waits for a link is to wait on; at the end nothing is."""
        return not (link.has_room or self._is_closing)

    def _send_waiting(self) -> None:
        for link, waiting in self._queues:
            # Before a link is open nothing is put on it: a new controller must be told first
            # what the functions are.
            if not waiting or link.welcome is None:
                continue
            if self._is_full(link):
                if link is self._bulk:
                    self._put_passing()
            elif len(waiting) > 1:
                self._put_many(link, waiting)
            else:
                link.put(*waiting.popleft())
            link.flush()

    def _put_passing(self) -> None:
        """Put what needs no room on its link, from among what waits for some."""
        if self._has_passing:
            self._has_passing = False
            for message, buffers in passing_out(self.waiting):
                self._bulk.put(message, buffers)

    def _put_many(self, link: PeerLink[ToClient], waiting: deque[Item]) -> None:
        count = nbytes = 0
        for message, buffers in taken_out(waiting, partial(self._is_full, link)):
            link.put(message, buffers)
            count += len(getattr(message, "items", ())) or 1
            nbytes += _size_of(message, buffers)
            if count >= ENVELOPE_COUNT_MAX or nbytes >= ENVELOPE_BYTES_MAX:
                link.flush()
                count = nbytes = 0


def _size_of(message: Message, buffers: Sequence[Buffer]) -> int:
    """Return the size of what a message carries; the rest of it is small."""
    size = len(getattr(message, "data", b""))
    items = getattr(message, "items", ())
    if items:
        size += sum(map(len, items))
    for buffer in buffers:
        size += size_of(buffer)
    return size
