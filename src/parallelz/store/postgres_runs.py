"""SQL about runs: whose tasks are whose, which of them have not ended, which may be forgotten.

A database belongs to many clusters. What one of them takes up, ends or forgets is its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import psycopg

from parallelz.protocol.messages import EngineInfo
from parallelz.store.interface import RESTORED_KEYS, Run
from parallelz.store.postgres_connection import Connection
from parallelz.store.rows import PENDING

Cursor = psycopg.Cursor[tuple[Any, ...]]

PAGE_COUNT_MAX = 10_000
FETCH_COUNT = 32  # with their payloads, of which few may be too much for a page already
TASK_BYTES = 500  # about what a task takes besides its payloads and texts

# An update that changes nothing if the run is known, so that its number is returned.
_PUT_RUN = b"""
INSERT INTO runs (key, cluster, started) VALUES (%b, %b, %b)
ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING run, xmax = 0
"""
_END_LOST = f"""
UPDATE tasks SET status = 'lost', ename = 'ClusterError', evalue = %b, traceback = '',
    completed = %b, received = %b, retries = 0
WHERE status = '{PENDING}' AND run = ANY(%b::bigint[])
""".encode()
_RUNS = b"SELECT run FROM runs WHERE cluster = %b ORDER BY run"
_PENDING = f"""
SELECT seq, {", ".join(RESTORED_KEYS)}
FROM tasks WHERE run = %b AND status = '{PENDING}' AND seq > %b ORDER BY seq
""".encode()
_ENGINES = b"SELECT engine_id, cause, info FROM engines WHERE run = %b ORDER BY engine_id"

_BYTES = f"{TASK_BYTES} + " + " + ".join(
    f"COALESCE(octet_length({name}), 0)"
    for name in (
        *("payload", "payload_frames", "data", "frames", "options"),
        *("traceback", "stdout", "stderr", "outputs", "execute_result"),
    )
)
_COUNT = b"SELECT count(*), 0 FROM tasks WHERE run = ANY(%b::bigint[])"
_COUNT_AND_SIZE = f"""
SELECT count(*), COALESCE(sum({_BYTES}), 0)::bigint
FROM tasks WHERE run = ANY(%b::bigint[])
""".encode()
# Run by run, as the tasks of one are in an index, and those of earlier runs are older.
_OLDEST = f"""
SELECT seq, completed, size_bytes
FROM unnest(%b::bigint[]) WITH ORDINALITY AS wanted (run, place) CROSS JOIN LATERAL (
    SELECT seq, submitted, completed, {_BYTES} AS size_bytes FROM tasks
    WHERE tasks.run = wanted.run AND status <> '{PENDING}'
    ORDER BY submitted NULLS FIRST, seq LIMIT %b
) AS ended
ORDER BY place, submitted NULLS FIRST, seq LIMIT %b
""".encode()
_FORGET = b"DELETE FROM tasks WHERE seq = ANY(%b::bigint[])"

_decode_info = msgspec.msgpack.Decoder(EngineInfo).decode


class Old(NamedTuple):
    """A task that has ended."""

    seq: int
    completed_s: float | None
    size_bytes: int


class Usage(NamedTuple):
    """How much there is of a cluster."""

    task_count: int
    size_bytes: int

    def without(self, tasks: list[Old]) -> Usage:
        """Return how much there is without these."""
        size_bytes = sum(task.size_bytes for task in tasks)
        return Usage(self.task_count - len(tasks), self.size_bytes - size_bytes)


def put_run(cursor: Cursor, run: Run, started_s: float) -> tuple[int, bool]:
    """Return the number of a run, and whether it is new."""
    row = cursor.execute(_PUT_RUN, [run.key, run.cluster, started_s]).fetchone()
    assert row is not None
    return row[0], row[1]


def runs_of(cursor: Cursor, cluster: str) -> list[int]:
    """Return the numbers of all runs of a cluster, the oldest first."""
    return [number for (number,) in cursor.execute(_RUNS, [cluster])]


def end_lost(cursor: Cursor, runs: list[int], why: str, now_s: float) -> int:
    """Let the pending tasks of these runs end as lost; return how many those were."""
    return cursor.execute(_END_LOST, [why, now_s, now_s, runs]).rowcount


def pending_tasks(
    connection: Connection, run: int, after: int, bytes_max: int
) -> tuple[list[dict[str, object]], int]:
    """Return a page of what has not ended; see `Store.pending`."""
    found: list[dict[str, object]] = []
    size = 0
    with connection.cursor("pending", binary=True) as rows:
        rows.itersize = FETCH_COUNT
        for seq, *values in rows.execute(_PENDING, [run, after]):
            if size > bytes_max or len(found) == PAGE_COUNT_MAX:
                return found, after
            task = dict(zip(RESTORED_KEYS, values, strict=True))
            found.append(task)
            size += task["payload_bytes"] or 0
            after = seq
    return found, 0


def engines_of(cursor: Cursor, run: int) -> tuple[list[EngineInfo], int]:
    """Return the engines of a run that have not left, and the first id never used."""
    rows = cursor.execute(_ENGINES, [run]).fetchall()
    present = [_decode_info(info) for _, cause, info in rows if cause == ""]
    ids = [engine_id for engine_id, _, _ in rows if engine_id is not None]
    return present, 1 + max(ids, default=-1)


def usage(cursor: Cursor, runs: list[int], *, with_size: bool) -> Usage:
    """Return how much there is of these runs; each of their tasks is looked at."""
    row = cursor.execute(_COUNT_AND_SIZE if with_size else _COUNT, [runs]).fetchone()
    assert row is not None
    return Usage(*row)


def oldest(cursor: Cursor, runs: list[int], count: int) -> list[Old]:
    """Return the oldest tasks of these runs that have ended, at most so many."""
    return [Old(*row) for row in cursor.execute(_OLDEST, [runs, count, count])]


def forget(cursor: Cursor, tasks: list[Old]) -> int:
    """Forget these tasks; return how many were still there."""
    return cursor.execute(_FORGET, [[task.seq for task in tasks]]).rowcount
