"""Which tasks have ended, remembered in bits.

A dependency may name a task that ended long ago, and the core keeps nothing of an ended task.
But clients number their tasks, so one bit each will do, and complete blocks collapse into a
number: a million ended tasks of a client cost a few hundred bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from parallelz.ids import EngineId, SessionId, TaskId

NOWHERE = EngineId(-1)
GONE = EngineId(-2)  # it ran, on an engine that is not here
BLOCK_BITS = 1024
FULL_BLOCK = (1 << BLOCK_BITS) - 1
DETAILS_COUNT_MAX = 10_000


class End(NamedTuple):
    """How a task ended."""

    engine_id: EngineId  # or NOWHERE
    ok: bool


class Blame(NamedTuple):
    """What those who depend on a task that did not end well are told."""

    name: str  # such as "'b' (client-7)"
    how: str  # such as "failed", or "could not run as 'a' (client-3) failed"
    root: str  # what was at the bottom of it, such as "'a' (client-3) failed"


class EndedTasks:
    """The ended tasks of one client, by number from 0."""

    def __init__(self) -> None:
        self._full_below = 0  # blocks
        self._end = 0  # numbers from here on have not ended
        self._full: set[int] = set()
        self._partial: dict[int, int] = {}
        self._details: OrderedDict[int, int] = OrderedDict()  # twice the engine, plus ok
        self._blames: OrderedDict[int, Blame] = OrderedDict()

    def add(self, number: int, engine_id: EngineId, *, ok: bool) -> None:
        """Remember an end; of the latest `DETAILS_COUNT_MAX` also where and how."""
        self.mark(number)
        self._details[number] = 2 * engine_id + ok
        if len(self._details) > DETAILS_COUNT_MAX:
            self._details.popitem(last=False)

    def mark(self, number: int) -> None:
        """Remember an end of which nothing more is known."""
        if number >= self._end:
            self._end = number + 1
        block, bit = divmod(number, BLOCK_BITS)
        bits = self._partial.get(block, 0) | (1 << bit)
        if bits == FULL_BLOCK:
            self._partial.pop(block, None)
            self._full.add(block)
            while self._full_below in self._full:
                self._full.discard(self._full_below)
                self._full_below += 1
        else:
            self._partial[block] = bits

    def is_passed(self, number: int) -> bool:
        """Whether a later one has ended: so this one has been submitted, or never will be."""
        return number < self._end

    def __contains__(self, number: int) -> bool:
        if number >= self._end:
            return False
        block, bit = divmod(number, BLOCK_BITS)
        if block < self._full_below or block in self._full:
            return True
        return bool(self._partial.get(block, 0) >> bit & 1)

    def add_blame(self, number: int, blame: Blame) -> None:
        """Remember of the latest `DETAILS_COUNT_MAX` failures what to tell of them."""
        self._blames[number] = blame
        if len(self._blames) > DETAILS_COUNT_MAX:
            self._blames.popitem(last=False)

    def blame(self, number: int) -> Blame | None:
        """Return what to tell of a failure, if that is still remembered."""
        return self._blames.get(number)

    def details(self, number: int) -> End | None:
        """Return how a task ended, if that is still remembered."""
        code = self._details.get(number)
        return None if code is None else End(EngineId(code // 2), bool(code % 2))


class EndedTasksByClient:
    """The ended tasks of all clients that may still name them."""

    def __init__(self) -> None:
        self._clients: dict[SessionId, EndedTasks] = {}

    def of(self, session_id: SessionId) -> EndedTasks:
        """Return a client's ended tasks, to look into and to add to."""
        ended = self._clients.get(session_id)
        if ended is None:
            ended = self._clients[session_id] = EndedTasks()
        return ended

    def is_passed(self, session_id: SessionId, number: int) -> bool:
        """Whether a task of a client is known to come no more, or to have come already."""
        ended = self._clients.get(session_id)
        return ended is not None and ended.is_passed(number)

    def forget(self, session_id: SessionId) -> None:
        """Drop what is known of a client's tasks."""
        self._clients.pop(session_id, None)

    def add(self, session_id: SessionId, number: int, engine_id: EngineId, *, ok: bool) -> None:
        """Remember an end, if its client may still name the task."""
        ended = self._clients.get(session_id)
        if ended is not None:
            ended.add(number, engine_id, ok=ok)

    def add_blame(self, session_id: SessionId, number: int, blame: Blame) -> None:
        """Remember what to tell of a failure, if its client may still name the task."""
        ended = self._clients.get(session_id)
        if ended is not None:
            ended.add_blame(number, blame)

    def blame_of(self, task_id: TaskId) -> Blame:
        """Return what to tell of a task that did not end well."""
        session_id, _, number_text = task_id.rpartition("-")
        ended = self._clients.get(SessionId(session_id))
        blame = None if ended is None else ended.blame(int(number_text))
        return blame or Blame(task_id, "failed", f"{task_id} failed")

    def find(self, task_id: TaskId) -> End | None:
        """Return how a task ended; None: it has not, or that is known no more."""
        session_id, _, number_text = task_id.rpartition("-")
        ended = self._clients.get(SessionId(session_id))
        if ended is None or not (number_text.isascii() and number_text.isdecimal()):
            return None
        return ended.details(int(number_text))
