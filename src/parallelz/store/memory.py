"""A store that forgets everything at its end, and the oldest tasks when it is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from parallelz.ids import Digest
from parallelz.store.interface import Store
from parallelz.store.query import Condition, predicate
from parallelz.store.record import Record
from parallelz.store.rows import (
    COLUMNS,
    END,
    Batch,
    Engine,
    Function,
    Row,
    ended_row,
    legible,
    orphan_row,
)

TASKS_COUNT_MAX = 100_000
TASKS_BYTES_MAX = 1024 * 1024 * 1024

_ENGINE_UUID = COLUMNS.index("engine_uuid")
_ENAME = COLUMNS.index("ename")
_SIZED = (bytes, str)


class MemoryStore(Store):
    """Tasks in a dictionary.

    Parameters
    ----------
    count_max, bytes_max
        When there are more tasks, or their payloads and outputs are larger, the oldest tenth
        of the tasks is forgotten, ended or not.
    """

    def __init__(
        self, *, count_max: int = TASKS_COUNT_MAX, bytes_max: int = TASKS_BYTES_MAX
    ) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tasks: dict[str, Row] = {}
        self._engines: dict[str, Engine] = {}
        self._functions: dict[bytes, Function] = {}

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        batch = Batch(records)
        for task_id, row in batch.tasks.items():
            old = self._tasks.get(task_id)
            self._put(task_id, row if old is None else ended_row(old, row[END:]))
        for task_id, end in batch.ends.items():
            old = self._tasks.get(task_id)
            row = orphan_row(task_id, end) if old is None else ended_row(old, end)
            self._put(task_id, row)
        self._engines.update(batch.engines)
        for digest, function in batch.functions.items():
            self._functions.setdefault(digest, function)
        while len(self._tasks) > self._count_max or self._bytes > self._bytes_max:
            for task_id in list(islice(self._tasks, len(self._tasks) // 10 + 1)):
                self._drop(task_id)

    def _put(self, task_id: str, row: Row) -> None:
        row += (None,) * (len(COLUMNS) - len(row))
        self._bytes += _size_of(row) - _size_of(self._tasks.get(task_id, ()))
        self._tasks[task_id] = row

    def _drop(self, task_id: str) -> None:
        self._bytes -= _size_of(self._tasks.pop(task_id))

    def select(
        self,
        condition: Condition,
        keys: Sequence[str],
        order: Sequence[str],
        limit: int | None,
    ) -> list[dict[str, object]]:
        """See `Store.select`."""
        matches = predicate(condition)
        found = [
            record for record in map(self._record, self._tasks.values()) if matches(record)
        ]
        if order and order[0].startswith("-"):
            found.reverse()
        for key in reversed(order):
            name = key.removeprefix("-")
            found.sort(key=_sorting_by(name), reverse=key.startswith("-"))
        return [legible({key: record[key] for key in keys}) for record in found[:limit]]

    def _record(self, row: Row) -> dict[str, object]:
        record = dict(zip(COLUMNS, row, strict=True))
        engine = self._engines.get(str(row[_ENGINE_UUID]))
        record["host"] = None if engine is None else engine.host
        is_failed = row[_ENAME] is not None
        record["error"] = f"{record['ename']}: {record['evalue']}" if is_failed else None
        return record

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        matches = predicate(condition)
        doomed = [task_id for task_id, row in self._tasks.items() if matches(self._record(row))]
        for task_id in doomed:
            self._drop(task_id)
        return len(doomed)

    def definition(self, digest: Digest) -> Function | None:
        """Return what a digest stands for."""
        return self._functions.get(digest)

    def close(self) -> None:
        """Forget everything."""
        self._tasks.clear()


def _sorting_by(name: str) -> Callable[[dict[str, object]], tuple[object, ...]]:
    def place(record: dict[str, object]) -> tuple[object, ...]:
        value = record[name]
        return (False,) if value is None else (True, value)

    return place


def _size_of(row: Row) -> int:
    return sum(len(value) for value in row if isinstance(value, _SIZED))
