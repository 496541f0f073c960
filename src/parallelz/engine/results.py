"""Results on their way to the controller, until it has them.

The main thread puts them on `bulk`, the I/O thread on `control` when the main thread is busy.
A controller that is new gets all that the one before did not acknowledge from the I/O thread,
at once, whatever the main thread does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from parallelz.engine.workqueue import WorkQueue
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import LinkName, Message, TaskFinished

Result = tuple[TaskFinished, Sequence[Buffer]]


class ResultLink(Protocol):
    """What is needed of a link; see `transport.link.LinkEnd`."""

    link: LinkName

    @property
    def put_count(self) -> int:
        """How many envelopes there have been with the one that has what was put last."""

    @property
    def acknowledged_count(self) -> int:
        """How many of these the controller has taken over."""

    def put(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Add to the next envelope."""


class Results:
    """Finished tasks: in hand, put on a link, and at last acknowledged.

    Parameters
    ----------
    queue
        Told of what the controller has.

    Attributes
    ----------
    since_s
        When the first of those in hand was finished, by `time.monotonic` or the clock given.
    """

    def __init__(self, queue: WorkQueue) -> None:
        self.since_s = 0.0
        self._queue = queue
        self._lock = threading.Lock()
        self._in_hand: list[Result] = []
        self._put: dict[LinkName, deque[tuple[int, list[Result]]]] = {
            "bulk": deque(),
            "control": deque(),
        }

    def add(self, result: Result, now_s: float | None = None) -> None:
        """Take in a result."""
        with self._lock:
            if not self._in_hand:
                self.since_s = time.monotonic() if now_s is None else now_s
            self._in_hand.append(result)

    def __bool__(self) -> bool:
        """Whether any is in hand. Waits until one that is just being added is."""
        with self._lock:
            return bool(self._in_hand)

    def put_on(self, link: ResultLink) -> None:
        """Put all that are in hand on a link of the calling thread; it is to be flushed."""
        with self._lock:
            results, self._in_hand = self._in_hand, []
            if not results:
                return
            for result in results:
                link.put(*result)
            self._put[link.link].append((link.put_count, results))

    def settle(self, link: ResultLink) -> bool:
        """Forget what the controller has by this link; return whether that is anything."""
        put = self._put[link.link]
        if not put or put[0][0] > link.acknowledged_count:
            return False
        while put and put[0][0] <= link.acknowledged_count:
            with self._lock:
                _, results = put.popleft()
            self._queue.close([(finished.task_id, finished.run) for finished, _ in results])
        return True

    def unacknowledged(self, name: LinkName) -> list[Result]:
        """Return what was put on a link and for all we know is not at the controller."""
        with self._lock:
            return [result for _, results in self._put[name] for result in results]
