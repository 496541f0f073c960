"""A store for many clusters: a database of a PostgreSQL server.

The rows are those of the SQLite store. A batch is one transaction and its tasks one statement:
an INSERT of whole rows, which ends what is known and has not ended. Large batches are copied to
the server first, which takes half as long as row by row.

A connection on which anything has failed is given up, and the next call makes a new one. So,
whatever the server does, each call ends: with what was asked for, or with a `StoreError`. What
is written again, because nobody knows whether it was written, changes nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg

from parallelz.ids import Digest
from parallelz.protocol.messages import EngineInfo
from parallelz.store.interface import (
    CLUSTER_ENDED,
    CLUSTER_STOPPED,
    CULL_COUNT_MAX,
    RESTORED_KEYS,
    Limits,
    RecordError,
    Run,
    Store,
    StoreError,
)
from parallelz.store.postgres_connection import Connection, connect, told
from parallelz.store.postgres_sql import compare, keys_of, widened
from parallelz.store.query import KEYS, Condition, Kind, column, predicate, to_sql
from parallelz.store.record import Record
from parallelz.store.rows import (
    COLUMNS,
    END_COLUMNS,
    PENDING,
    Batch,
    Function,
    Row,
    ended_row,
    legible,
    orphan_row,
)

WRITE_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0  # a question may be about all tasks there are
FETCH_COUNT = 1000  # rows that are looked at again, at once
COPY_ROWS_MIN = 100  # for fewer, a temporary table costs more than it saves

_TYPES = {
    Kind.TEXT: "text",
    Kind.NUMBER: "int8",
    Kind.TIME: "float8",
    Kind.OPAQUE: "bytea",
}
_COLUMN_TYPES = [_TYPES[KEYS[name]] for name in COLUMNS]
_NAMES = ", ".join(COLUMNS)


def _written(places: Iterable[str]) -> str:
    """Return the values of `COLUMNS`; what is not a number is missing, as in SQLite."""
    return ", ".join(
        f"NULLIF({place}, 'NaN')" if kind == "float8" else place
        for place, kind in zip(places, _COLUMN_TYPES, strict=True)
    )


_ON_CONFLICT = (
    f"ON CONFLICT (msg_id) DO UPDATE"
    f" SET {', '.join(f'{name} = excluded.{name}' for name in END_COLUMNS)}"
    f" WHERE tasks.status = '{PENDING}' AND excluded.status <> '{PENDING}'"
)
_PUT_TASK = (
    f"INSERT INTO tasks (run, {_NAMES})"
    f" VALUES (%b, {_written(f'%b::{kind}' for kind in _COLUMN_TYPES)}) {_ON_CONFLICT}"
).encode()
_MAKE_BATCH = (
    "CREATE TEMPORARY TABLE batch ON COMMIT DELETE ROWS"
    f" AS SELECT 0 AS place, {_NAMES} FROM tasks WITH NO DATA"
).encode()
_COPY_BATCH = f"COPY batch (place, {_NAMES}) FROM STDIN (FORMAT BINARY)".encode()
_PUT_BATCH = (
    f"INSERT INTO tasks (run, {_NAMES})"
    f" SELECT %b, {_written(COLUMNS)}"
    f" FROM batch ORDER BY place {_ON_CONFLICT}"
).encode()
_PUT_ENGINE = b"""
INSERT INTO engines (engine_uuid, engine_id, host, pid, changed, cause, info, run)
VALUES (%b, %b, %b, %b, NULLIF(%b::float8, 'NaN'), %b, %b, %b)
ON CONFLICT (engine_uuid) DO UPDATE SET engine_id = excluded.engine_id, host = excluded.host,
    pid = excluded.pid, changed = excluded.changed, cause = excluded.cause,
    info = excluded.info, run = excluded.run
"""
_END_LOST = f"""
UPDATE tasks SET status = 'lost', ename = 'ClusterError', evalue = %b, traceback = '',
    completed = %b, received = %b, retries = 0
WHERE status = '{PENDING}' AND run
"""
_OLDEST = f"SELECT seq FROM tasks WHERE status <> '{PENDING}'"
_PUT_FUNCTION = b"INSERT INTO functions VALUES (%b, %b, %b, %b) ON CONFLICT DO NOTHING"

# What cannot be written, now or later; all else may be possible when it is tried again.
_REFUSALS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    UnicodeEncodeError,  # by psycopg, like the next one
    OverflowError,
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_INT_MAX = 2**63 - 1
_decode_info = msgspec.msgpack.Decoder(EngineInfo).decode


Cursor = psycopg.Cursor[tuple[Any, ...]]
T = TypeVar("T")


class PostgresStore(Store):
    """Tasks in the schema `parallelz` of a PostgreSQL database.

    Parameters
    ----------
    conninfo
        URL or keywords for libpq, which `check_conninfo` lets pass. What it does not say is
        taken from libpq's environment variables, service file and password file.

    Raises
    ------
    StoreError
        If the server cannot be reached, refuses us, or has tables of a newer parallelz. It
        never shows a password.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None
        self._run_number = 0
        with self._transaction(WRITE_TIMEOUT_S):
            pass

    # -- the connection --------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, timeout_s: float) -> Iterator[Cursor]:
        """Give a cursor in a transaction; whatever fails, the connection is given up."""
        try:
            if self._connection is None:
                self._connection = connect(self._conninfo)
                self._connection.execute(_MAKE_BATCH)
                self._connection.commit()
            self._connection.timeout_s = timeout_s
            # Not `connection.transaction()`: that would roll back where we give up.
            with self._connection.cursor(binary=True) as cursor:
                yield cursor
            self._connection.commit()
        except BaseException as error:
            self.close()
            if isinstance(error, _REFUSALS):
                raise RecordError(f"PostgreSQL: {told(error)}") from error
            if isinstance(error, psycopg.Error):
                raise StoreError(f"PostgreSQL: {told(error)}") from error
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- runs ------------------------------------------------------------------------------

    def begin_run(self, run: Run, now_s: float) -> int:
        """See `Store.begin_run`."""
        with self._transaction(WRITE_TIMEOUT_S) as cursor:
            cursor.execute(b"SELECT run FROM runs WHERE key = %b", [run.key])
            known = cursor.fetchone()
            if known is not None:
                (self._run_number,) = known
                return 0
            cursor.execute(
                b"INSERT INTO runs (key, cluster, started) VALUES (%b, %b, %b) RETURNING run",
                [run.key, run.cluster, now_s],
            )
            (number,) = cursor.fetchone() or (0,)
            self._run_number = number
            statement = (
                f"{_END_LOST} IN (SELECT run FROM runs WHERE cluster = %b AND run <> %b)"
            )
            values = [CLUSTER_ENDED, now_s, now_s, run.cluster, number]
            return cursor.execute(statement.encode(), values).rowcount

    def end_run(self, now_s: float) -> int:
        """See `Store.end_run`."""
        values = [CLUSTER_STOPPED, now_s, now_s, self._run_number]
        with self._transaction(WRITE_TIMEOUT_S) as cursor:
            return cursor.execute(f"{_END_LOST} = %b".encode(), values).rowcount

    # -- keeping ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        batch = Batch(records)
        rows = [row + (None,) * (len(COLUMNS) - len(row)) for row in _task_rows(batch)]
        engines: list[Row] = [(*e, self._run_number) for e in batch.engines.values()]
        functions: list[Row] = list(batch.functions.values())
        try:
            self._put(rows, engines, functions)
        except RecordError:
            self._put(_mended(rows), _mended(engines), _mended(functions))

    def _put(self, rows: list[Row], engines: list[Row], functions: list[Row]) -> None:
        run = self._run_number
        with self._transaction(WRITE_TIMEOUT_S) as cursor:
            if len(rows) < COPY_ROWS_MIN:
                cursor.executemany(_PUT_TASK, [(run, *row) for row in rows])
            else:
                with cursor.copy(_COPY_BATCH) as copy:
                    copy.set_types(["int4", *_COLUMN_TYPES])
                    for place, row in enumerate(rows):
                        copy.write_row((place, *row))
                cursor.execute(_PUT_BATCH, [run])
            cursor.executemany(_PUT_ENGINE, engines)
            cursor.executemany(_PUT_FUNCTION, functions)

    # -- finding ---------------------------------------------------------------------------

    def select(
        self,
        condition: Condition,
        keys: Sequence[str],
        order: Sequence[str],
        limit: int | None,
    ) -> list[dict[str, object]]:
        """See `Store.select`."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            where, values = self._where(condition, order, limit)
            cursor.execute(
                f"SELECT {', '.join(map(column, keys))} FROM tasks WHERE {where}"
                f" ORDER BY {_ordering(order)} LIMIT %b".encode(),
                [*values, limit],
            )
            return [legible(dict(zip(keys, row, strict=True))) for row in cursor]

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            where, values = self._where(condition)
            return cursor.execute(f"DELETE FROM tasks WHERE {where}".encode(), values).rowcount

    def _where(
        self, condition: Condition, order: Sequence[str] = (), limit: int | None = None
    ) -> tuple[str, list[object]]:
        """Return what holds for just those tasks, of which the first ones will be used."""
        wide = widened(condition)
        where, values = to_sql(wide, compare)
        if wide == condition:
            return where, values
        matches = predicate(condition)
        keys = sorted(keys_of(condition))
        statement = (
            f"SELECT seq, {', '.join(map(column, keys))} FROM tasks WHERE {where}"
            f" ORDER BY {_ordering(order)}"
        )
        found: list[int] = []
        assert self._connection is not None
        with self._connection.cursor("candidates", binary=True) as candidates:
            candidates.itersize = FETCH_COUNT
            for seq, *task in candidates.execute(statement.encode(), values):
                if len(found) == limit:
                    break
                if matches(dict(zip(keys, task, strict=True))):
                    found.append(seq)
        return "seq = ANY(%b::bigint[])", [found]

    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """See `Store.pending`."""
        statement = (
            f"SELECT seq, {', '.join(RESTORED_KEYS)} FROM tasks"
            f" WHERE run = %b AND status = '{PENDING}' AND seq > %b ORDER BY seq"
        )
        found: list[dict[str, object]] = []
        nbytes = 0
        with self._transaction(READ_TIMEOUT_S):
            assert self._connection is not None
            with self._connection.cursor("pending", binary=True) as rows:
                rows.itersize = FETCH_COUNT
                rows.execute(statement.encode(), [self._run_number, after])
                for seq, *values in rows:
                    if nbytes > bytes_max:
                        return found, after
                    found.append(dict(zip(RESTORED_KEYS, values, strict=True)))
                    nbytes += found[-1]["payload_bytes"] or 0  # type: ignore[operator]
                    after = seq
        return found, 0

    def engines(self) -> tuple[list[EngineInfo], int]:
        """See `Store.engines`."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            cursor.execute(
                b"SELECT engine_id, info, cause FROM engines WHERE run = %b ORDER BY engine_id",
                [self._run_number],
            )
            rows = cursor.fetchall()
        present = [_decode_info(info) for _, info, cause in rows if cause == ""]
        return present, 1 + max((engine_id for engine_id, _, _ in rows), default=-1)

    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """See `Store.functions`."""
        statement = b"SELECT digest, name, data, frames FROM functions WHERE digest = %b"
        with self._transaction(READ_TIMEOUT_S) as cursor:
            rows = [cursor.execute(statement, [digest]).fetchone() for digest in digests]
        return [Function(*row) for row in rows if row is not None]

    def cull(self, limits: Limits, now_s: float) -> int:
        """See `Store.cull`. The database is that of all clusters, and so are the limits."""
        with self._transaction(WRITE_TIMEOUT_S) as cursor:
            matching, values = self._beyond(cursor, limits, now_s)
            if not matching:
                return 0
            statement = f"DELETE FROM tasks WHERE seq IN ({matching})"
            return cursor.execute(statement.encode(), values).rowcount

    def _beyond(self, cursor: Cursor, limits: Limits, now_s: float) -> tuple[str, list[object]]:
        """Return a statement that finds what to forget first; "": nothing."""
        if limits.age_s is not None:
            cutoff_s = now_s - limits.age_s
            old = f"{_OLDEST} AND submitted < %b AND completed < %b ORDER BY submitted"
            values: list[object] = [cutoff_s, cutoff_s]
            if cursor.execute(f"{old} LIMIT 1".encode(), values).fetchone() is not None:
                return f"{old} LIMIT {CULL_COUNT_MAX}", values
        excess = 0
        if limits.task_count is not None:
            (count,) = cursor.execute(b"SELECT count(*) FROM tasks").fetchone() or (0,)
            excess = count - limits.task_count
        if limits.size_bytes is not None:
            cursor.execute(b"SELECT pg_total_relation_size('tasks')")
            (size,) = cursor.fetchone() or (0,)
            if size > limits.size_bytes:
                excess = CULL_COUNT_MAX
        if excess <= 0:
            return "", []
        return f"{_OLDEST} ORDER BY submitted LIMIT {min(excess, CULL_COUNT_MAX)}", []


def _task_rows(batch: Batch) -> list[Row]:
    """Return a row for each task, in the order in which they became known."""
    tasks = batch.tasks
    for task_id, end in batch.ends.items():
        known = tasks.get(task_id)
        tasks[task_id] = orphan_row(task_id, end) if known is None else ended_row(known, end)
    return list(tasks.values())


def _ordering(order: Sequence[str]) -> str:
    """Return what sorts tasks: what is missing is the smallest, equals as they became known."""
    terms = [
        f"{column(key[1:])} DESC NULLS LAST"
        if key.startswith("-")
        else f"{column(key)} ASC NULLS FIRST"
        for key in order
    ]
    terms.append("seq DESC" if order and order[0].startswith("-") else "seq ASC")
    return ", ".join(terms)


def _mended(rows: list[Row]) -> list[Row]:
    """Return rows that can be stored: the first of each key, what cannot be is replaced."""
    mended: dict[object, Row] = {}
    for row in rows:
        values = tuple(map(_storable, row))
        mended.setdefault(values[0], values)
    return list(mended.values())


def _storable(value: object) -> object:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, int) and not -_INT_MAX <= value <= _INT_MAX:
        return None
    return value
