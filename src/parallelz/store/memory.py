"""A store that forgets everything at its end, and the oldest tasks when it is full.

Whatever happens it stays within its bounds: when there is nothing else to forget, it forgets
tasks that have not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import msgspec

from parallelz.ids import Digest
from parallelz.protocol.messages import EngineInfo
from parallelz.store.interface import (
    CLUSTER_ENDED,
    CLUSTER_STOPPED,
    CULL_COUNT_MAX,
    RESTORED_KEYS,
    Limits,
    Run,
    Store,
)
from parallelz.store.query import Condition, predicate
from parallelz.store.record import Record
from parallelz.store.rows import (
    COLUMNS,
    END,
    PENDING,
    STATUS,
    TASK_BYTES,
    Batch,
    Engine,
    Function,
    Row,
    ended_row,
    legible,
    lost_end,
    orphan_row,
)

TASKS_COUNT_MAX = 100_000
TASKS_BYTES_MAX = 1024 * 1024 * 1024

_RECEIVED = COLUMNS.index("received")
_ENGINE_ID = COLUMNS.index("engine_id")
_ENGINE_UUID = COLUMNS.index("engine_uuid")
_PAYLOAD_BYTES = COLUMNS.index("payload_bytes")
_ENAME = COLUMNS.index("ename")
_SIZED = (bytes, str)
_decode_info = msgspec.msgpack.Decoder(EngineInfo).decode


class MemoryStore(Store):
    """Tasks in a dictionary.

    Parameters
    ----------
    count_max, bytes_max
        When there are more tasks, or their payloads and outputs are larger, the oldest of them
        are forgotten, a tenth at once: of those that have ended, or of all if none has.
    """

    def __init__(
        self, *, count_max: int = TASKS_COUNT_MAX, bytes_max: int = TASKS_BYTES_MAX
    ) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tasks: dict[str, Row] = {}
        self._runs: dict[str, Run] = {}
        self._run = Run("", "")
        self._pending: dict[str, str] = {}  # of which run; in the order they became known
        self._numbers: dict[str, int] = {}  # of those, by that order
        self._next_number = 1
        self._engines: dict[str, tuple[Engine, str]] = {}  # and of which run
        self._functions: dict[bytes, Function] = {}

    def begin_run(self, run: Run, now_s: float) -> int:
        """See `Store.begin_run`."""
        self._run = run
        if run.key in self._runs:
            return 0
        self._runs[run.key] = run
        earlier = {key for key, other in self._runs.items() if other.cluster == run.cluster}
        return self._end_all(earlier - {run.key}, CLUSTER_ENDED, now_s)

    def end_run(self, now_s: float) -> int:
        """See `Store.end_run`."""
        return self._end_all({self._run.key}, CLUSTER_STOPPED, now_s)

    def _end_all(self, runs: set[str], why: str, now_s: float) -> int:
        doomed = [task_id for task_id, run in self._pending.items() if run in runs]
        for task_id in doomed:
            row = self._tasks[task_id]
            self._put(task_id, ended_row(row, lost_end(now_s, why, row[_ENGINE_ID])))
        return len(doomed)

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        batch = Batch(records)
        for task_id, row in batch.tasks.items():
            old = self._tasks.get(task_id)
            if old is None:
                self._put(task_id, row)
            elif len(row) == len(COLUMNS):
                self._put(task_id, ended_row(old, row[END:]))
        for task_id, end in batch.ends.items():
            old = self._tasks.get(task_id)
            row = orphan_row(task_id, end) if old is None else ended_row(old, end)
            self._put(task_id, row)
        for engine_uuid, engine in batch.engines.items():
            self._engines[engine_uuid] = (engine, self._run.key)
        for digest, function in batch.functions.items():
            self._functions.setdefault(digest, function)
        while len(self._tasks) > self._count_max or self._bytes > self._bytes_max:
            count = len(self._tasks) // 10 + 1
            ended = (task_id for task_id in self._tasks if task_id not in self._pending)
            for task_id in list(islice(ended, count)) or list(islice(self._tasks, count)):
                self._drop(task_id)

    def _put(self, task_id: str, row: Row) -> None:
        row += (None,) * (len(COLUMNS) - len(row))
        self._bytes += _size_of(row) - _size_of(self._tasks.get(task_id, ()))
        self._tasks[task_id] = row
        if row[STATUS] != PENDING:
            self._pending.pop(task_id, None)
            self._numbers.pop(task_id, None)
        elif task_id not in self._pending:
            self._pending[task_id] = self._run.key
            self._numbers[task_id] = self._next_number
            self._next_number += 1

    def _drop(self, task_id: str) -> None:
        self._bytes -= _size_of(self._tasks.pop(task_id))
        self._pending.pop(task_id, None)
        self._numbers.pop(task_id, None)

    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """See `Store.pending`."""
        found: list[dict[str, object]] = []
        nbytes = 0
        for task_id, run in self._pending.items():
            if run != self._run.key or self._numbers[task_id] <= after:
                continue
            if nbytes > bytes_max:
                return found, after
            row = self._tasks[task_id]
            record = dict(zip(COLUMNS, row, strict=True))
            found.append({key: record[key] for key in RESTORED_KEYS})
            nbytes += TASK_BYTES + (row[_PAYLOAD_BYTES] or 0)
            after = self._numbers[task_id]
        return found, 0

    def engines(self) -> tuple[list[EngineInfo], int]:
        """See `Store.engines`."""
        own = [engine for engine, run in self._engines.values() if run == self._run.key]
        present = [_decode_info(engine.info) for engine in own if not engine.cause]
        ids = (engine.engine_id for engine in own if engine.engine_id is not None)
        return present, max(ids, default=-1) + 1

    def cull(self, limits: Limits, now_s: float) -> int:
        """See `Store.cull`."""
        doomed: list[str] = []
        count, nbytes = len(self._tasks), self._bytes
        for task_id, row in self._tasks.items():
            if row[STATUS] == PENDING:
                continue
            if len(doomed) == CULL_COUNT_MAX:
                break
            is_old = limits.age_s is not None and row[_RECEIVED] < now_s - limits.age_s
            is_many = limits.task_count is not None and count > limits.task_count
            is_much = limits.size_bytes is not None and nbytes > limits.size_bytes
            if is_old or is_many or is_much:
                doomed.append(task_id)
                count -= 1
                nbytes -= _size_of(row)
        for task_id in doomed:
            self._drop(task_id)
        return len(doomed)

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
        record["host"] = None if engine is None else engine[0].host
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

    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """See `Store.functions`."""
        return [self._functions[digest] for digest in digests if digest in self._functions]

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
