"""Results in an event loop of asyncio, which is never blocked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from parallelz.client.ledger import Submission
from parallelz.client.results import Arrival


class Alarm:
    """Wakes a coroutine from other threads; nobody, once its loop has ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake it; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so; look at each ring."""
        while not is_so():
            self._event.clear()
            if not is_so():
                await self._event.wait()


async def stream(
    submissions: Iterable[Submission], arrivals: Iterator[Arrival]
) -> AsyncIterator[Any]:
    """Yield what arrives, in its order."""
    # What arrivals note by themselves must be noted before the alarm rings: they begin first.
    first = list(itertools.islice(arrivals, 1))
    alarm = Alarm()
    for submission in submissions:
        submission.watch(lambda index: alarm.ring())
    for is_there, items in itertools.chain(first, arrivals):
        await alarm.wait_until(is_there)
        for item in items():
            yield item
