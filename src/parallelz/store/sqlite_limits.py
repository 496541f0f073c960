"""Which tasks of an SQLite file are forgotten so that it stays within limits.

Looking costs little, so it can be done again and again: how many tasks there are is counted
only when there may be too many, and followed from then on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from parallelz.store.interface import CULL_COUNT_MAX, Limits
from parallelz.store.rows import PENDING

CULL_BYTES_MAX = 32 * 1024 * 1024  # of payloads at once, but for the last one

_SIZE = "coalesce(payload_bytes, 0) + coalesce(data_bytes, 0)"
_TOO_OLD = (
    # The index leads to tasks that were submitted long ago, or nobody knows when.
    f"SELECT rowid, {_SIZE} FROM tasks WHERE (submitted < ? OR submitted IS NULL)"
    f" AND received < ? LIMIT {CULL_COUNT_MAX}"
)
_OLDEST = (
    f"SELECT rowid, {_SIZE} FROM tasks WHERE rowid > ? AND status <> '{PENDING}'"
    " ORDER BY rowid LIMIT ?"
)
_ENDS = (
    "SELECT coalesce((SELECT min(rowid) FROM tasks), 1),"
    " coalesce((SELECT max(rowid) FROM tasks), 0)"
)


class Culling:
    """What there is too much of in a database."""

    def __init__(self) -> None:
        self._counted: tuple[int, int, int] | None = None  # tasks, last rowid, data_version
        self._passed = 0  # up to this rowid there is nothing to forget

    def doomed(self, db: sqlite3.Connection, limits: Limits, now_s: float) -> list[int]:
        """Return the rowids of some tasks to forget; none: all is within the limits.

        Parameters
        ----------
        now_s
            Unix time.
        """
        if limits.age_s is not None:
            until_s = now_s - limits.age_s
            rowids = _some(db.execute(_TOO_OLD, [until_s, until_s]))
            if rowids:
                return rowids
        surplus = 0
        if limits.task_count is not None:
            surplus = self._count(db, limits.task_count) - limits.task_count
        if (
            surplus <= 0
            and limits.size_bytes is not None
            and _bytes_used(db) > limits.size_bytes
        ):
            surplus = CULL_COUNT_MAX
        rowids = []
        if surplus > 0:
            rowids = _some(db.execute(_OLDEST, [self._passed, min(surplus, CULL_COUNT_MAX)]))
        self._passed = rowids[-1] if rowids else 0
        return rowids

    def _count(self, db: sqlite3.Connection, count_max: int) -> int:
        """Return how many tasks there are, or what they are at most if that is no more."""
        (version,) = db.execute("PRAGMA data_version").fetchone()  # of others' changes
        first, last = db.execute(_ENDS).fetchone()
        if self._counted is not None and self._counted[2] == version:
            count, last_then, _ = self._counted
            count += last - last_then
        elif last - first < count_max:
            return int(last - first + 1)
        else:
            (count,) = db.execute("SELECT count(*) FROM tasks").fetchone()
        self._counted = (count, last, version)
        return int(count)

    def forgot(self, db: sqlite3.Connection, deleted_count: int) -> None:
        """Take in that so many tasks are gone since `doomed` was called."""
        if self._counted is not None:
            _, last = db.execute(_ENDS).fetchone()
            self._counted = (self._counted[0] - deleted_count, last, self._counted[2])

    def forget_count(self) -> None:
        """Take in that there may be any number of tasks now."""
        self._counted = None


def _some(rows: Iterable[tuple[int, int]]) -> list[int]:
    """Return the first rowids, as long as their payloads can be forgotten at once."""
    rowids: list[int] = []
    size = 0
    for rowid, row_bytes in rows:
        rowids.append(rowid)
        size += row_bytes
        if size > CULL_BYTES_MAX:
            break
    return rowids


def _bytes_used(db: sqlite3.Connection) -> int:
    pages, free_pages, page_bytes = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free_pages) * page_bytes
