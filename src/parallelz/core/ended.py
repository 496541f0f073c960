"""Which tasks have ended, remembered in bits.

A dependency may name a task that ended long ago, and the core keeps nothing of an ended task.
But clients number their tasks, so one bit each will do, and complete blocks collapse into a
number: a million ended tasks of a client cost a few hundred bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from parallelz.ids import EngineId

V = TypeVar("V")

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


def _remember(table: OrderedDict[int, V], key: int, value: V) -> None:
    table[key] = value
    if len(table) > DETAILS_COUNT_MAX:
        table.popitem(last=False)
