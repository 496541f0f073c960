"""When what stands in a journal becomes rows.

To write a row costs five times what a place in the journal costs, and twice as much again if
its task ends only later. So records stay in the journal while there is much to do, until
nothing has come for `QUIET_S`, they are older than `AGE_S`, or they are too many.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

# Longer than a busy machine keeps the recorder, or who tells it, from running: it would take
# that for quiet and write rows when there is most to do, for a fifth of all CPU time.
QUIET_S = 0.5
AGE_S = 5.0
JOURNAL_COUNT_MAX = 200_000  # records
JOURNAL_BYTES_MAX = 128 * 1024 * 1024
ENTRY_BYTES_MAX = 1024 * 1024  # what is larger is written once, as rows
FOLDED_COUNT_MAX = 20_000  # records at once, but for one entry: the others wait for so long


class _Entry(NamedTuple):
    since_s: float
    record_count: int
    nbytes: int


class Folding:
    """What the journal holds, and whether some of it is to be folded now.

    All times are by one clock, in s.
    """

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._record_count = 0
        self._bytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything in the journal."""
        return bool(self._entries)

    def appended(self, record_count: int, nbytes: int, now_s: float) -> None:
        """Take in that there is one more entry."""
        self._entries.append(_Entry(now_s, record_count, nbytes))
        self._record_count += record_count
        self._bytes += nbytes

    def folded(self, entry_count: int) -> None:
        """Take in that so many entries, the first ones, are rows now."""
        for _ in range(min(entry_count, len(self._entries))):
            entry = self._entries.popleft()
            self._record_count -= entry.record_count
            self._bytes -= entry.nbytes

    def clear(self) -> None:
        """Take in that the journal is empty."""
        self.folded(len(self._entries))

    @property
    def is_full(self) -> bool:
        """Whether it may not grow further."""
        return self._record_count > JOURNAL_COUNT_MAX or self._bytes > JOURNAL_BYTES_MAX

    def due_s(self) -> float:
        """Return when some of it is to be folded, if nothing comes until then."""
        if not self._entries:
            return math.inf
        if self.is_full:
            return -math.inf
        return min(self._entries[0].since_s + AGE_S, self._entries[-1].since_s + QUIET_S)
