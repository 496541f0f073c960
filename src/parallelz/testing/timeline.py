"""Simulated time, and a journal of what happened in it."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random
from typing import NamedTuple

STEP_MIN_S = 1e-6  # a deadline may be past by less than a float tells; time must go on
WALL_CLOCK_ORIGIN_S = 1_700_000_000.0  # Unix time at which every simulation begins


class Line(NamedTuple):
    """One line of a journal."""

    now_s: float
    who: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.now_s:12.6f}  {self.who:<14} {self.what:<12} {self.detail}"


class Timeline:
    """What is due when, and the only source of chance.

    Parameters
    ----------
    seed
        The same seed gives the same simulation.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.journal: list[Line] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Do this then, after all that was planned for the same time before."""
        self._count += 1
        heapq.heappush(self._due, (when_s, self._count, action))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do this when `delay_s` has passed."""
        self.at(self.now_s + delay_s, action)

    def run(self, until_s: float, is_enough: Callable[[], bool]) -> None:
        """Let things happen until there is enough of them, or time has come."""
        due = self._due
        while not is_enough():
            if not due or due[0][0] > until_s:
                self.now_s = max(self.now_s, until_s)
                return
            when_s, _, action = heapq.heappop(due)
            self.now_s = max(self.now_s, when_s)
            action()

    def note(self, who: str, what: str, detail: str = "") -> None:
        """Add a line to the journal."""
        self.journal.append(Line(self.now_s, who, what, detail))

    def wall_clock(self) -> float:
        """Return the Unix time in the simulation, in s."""
        return WALL_CLOCK_ORIGIN_S + self.now_s

    def digest(self) -> str:
        """Return what two simulations share if and only if the same happened in both."""
        text = "\n".join(map(str, self.journal))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Loop:
    """One thread of a simulated process: it steps when woken, and when it said it would.

    Parameters
    ----------
    step
        Does what there is to do, and returns when to be called again (None: when woken).
    """

    def __init__(self, timeline: Timeline, step: Callable[[], float | None]) -> None:
        self._timeline = timeline
        self._step = step
        self._due_s: float | None = None
        self.is_paused = False

    def wake(self, delay_s: float = 0.0) -> None:
        """Step after `delay_s`, if not before."""
        self._plan(self._timeline.now_s + delay_s)

    def _plan(self, when_s: float) -> None:
        if not self.is_paused and (self._due_s is None or when_s < self._due_s):
            self._due_s = when_s
            self._timeline.at(when_s, lambda: self._run(when_s))

    def _run(self, when_s: float) -> None:
        if self._due_s != when_s or self.is_paused:
            return  # it has stepped since, or must not
        self._due_s = None
        next_s = self._step()
        if next_s is not None:
            self._plan(max(next_s, self._timeline.now_s + STEP_MIN_S))

    def pause(self) -> None:
        """Do nothing until `resume`."""
        self.is_paused = True
        self._due_s = None

    def resume(self) -> None:
        """Go on; begin with a step."""
        self.is_paused = False
        self.wake()
