"""Which tasks have ended, remembered in bits.

A dependency may name a task that ended long ago, and the core keeps nothing of an ended task.
But clients number their tasks, so one bit each will do, and complete blocks collapse into a
number: a million ended tasks of a client cost a few hundred bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, TypeVar

from parallelz.ids import EngineId, SessionId, TaskId

V = TypeVar("V")

NOWHERE = EngineId(-1)
BLOCK_BITS = 1024
FULL_BLOCK = (1 << BLOCK_BITS) - 1
DETAILS_COUNT_MAX = 10_000


class EndedTasks:
    """The ended tasks of one client, by number from 0."""

    def __init__(self) -> None:
        self._full_below = 0  # blocks
        self._full: set[int] = set()
        self._partial: dict[int, int] = {}
        self._failed: OrderedDict[int, None] = OrderedDict()
        self._engines: OrderedDict[int, EngineId] = OrderedDict()

    def add(self, number: int, engine_id: EngineId, *, ok: bool) -> None:
        """Remember an end; failures and places of the latest `DETAILS_COUNT_MAX` only."""
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
        if not ok:
            _remember(self._failed, number, None)
        _remember(self._engines, number, engine_id)

    def __contains__(self, number: int) -> bool:
        block, bit = divmod(number, BLOCK_BITS)
        if block < self._full_below or block in self._full:
            return True
        return bool(self._partial.get(block, 0) >> bit & 1)

    def failed(self, number: int) -> bool:
        """Whether it is remembered to have failed."""
        return number in self._failed

    def engine_of(self, number: int) -> EngineId | None:
        """Return where it ran, if that is still remembered."""
        return self._engines.get(number)


class End(NamedTuple):
    """What is remembered of an ended task."""

    engine_id: EngineId  # -1: nowhere, or no longer known
    ok: bool


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

    def forget(self, session_id: SessionId) -> None:
        """Drop what is known of a client's tasks."""
        self._clients.pop(session_id, None)

    def add(self, session_id: SessionId, number: int, engine_id: EngineId, *, ok: bool) -> None:
        """Remember an end, if its client may still name the task."""
        ended = self._clients.get(session_id)
        if ended is not None:
            ended.add(number, engine_id, ok=ok)

    def find(self, task_id: TaskId) -> End | None:
        """Return how a task ended; None: it has not, or nobody knows it."""
        session_id, _, number_text = task_id.rpartition("-")
        ended = self._clients.get(SessionId(session_id))
        number = int(number_text) if number_text.isdecimal() else -1
        if ended is None or number < 0 or number not in ended:
            return None
        engine_id = ended.engine_of(number)
        return End(NOWHERE if engine_id is None else engine_id, not ended.failed(number))


def _remember(table: OrderedDict[int, V], key: int, value: V) -> None:
    table[key] = value
    if len(table) > DETAILS_COUNT_MAX:
        table.popitem(last=False)
