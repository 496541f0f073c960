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
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import psycopg

from parallelz.ids import Digest
from parallelz.protocol.messages import EngineInfo
from parallelz.store.interface import (
    CLUSTER_ENDED,
    CLUSTER_STOPPED,
    CULL_COUNT_MAX,
    Limits,
    RecordError,
    Run,
    Store,
    StoreError,
)
from parallelz.store.postgres_connection import Connection, connect, told
from parallelz.store.postgres_runs import (
    Cursor,
    Usage,
    end_lost,
    engines_of,
    forget,
    oldest,
    pending_tasks,
    put_run,
    runs_of,
    usage,
)
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
UNSEEN_PART = 20  # limits are looked at when there is one task more for each 20 that are kept
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
_FUNCTIONS = b"""
SELECT digest, name, data, frames FROM functions WHERE digest = ANY(%b::bytea[])
"""
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
        self._run = Run("", "")
        self._run_number = 0
        self._begun_s = 0.0
        self._usage: Usage | None = None  # when it was last looked at
        self._put_count = 0  # tasks since then
        with self._transaction(WRITE_TIMEOUT_S):
            pass

    # -- the connection --------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, timeout_s: float) -> Iterator[Cursor]:
        """Give a cursor in a transaction; whatever fails, the connection is given up."""
        try:
            if self._connection is None:
                self._connect()
            assert self._connection is not None
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

    def _connect(self) -> None:
        self._connection = connect(self._conninfo)
        with self._connection.cursor() as cursor:
            cursor.execute(_MAKE_BATCH)
            if self._run_number:
                # Perhaps the tables are new, and know nothing of it.
                self._run_number, _ = put_run(cursor, self._run, self._begun_s)
        self._connection.commit()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- runs ------------------------------------------------------------------------------

    def begin_run(self, run: Run, now_s: float) -> int:
        """See `Store.begin_run`."""
        # The name of a directory may be no text.
        run = Run(run.key, _UNSTORABLE.sub("\ufffd", run.cluster))
        with self._transaction(READ_TIMEOUT_S) as cursor:
            number, is_new = put_run(cursor, run, now_s)
            earlier = [other for other in runs_of(cursor, run.cluster) if other != number]
            count = end_lost(cursor, earlier, CLUSTER_ENDED, now_s) if is_new else 0
        self._run, self._run_number, self._begun_s = run, number, now_s
        return count

    def end_run(self, now_s: float) -> int:
        """See `Store.end_run`."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            return end_lost(cursor, [self._run_number], CLUSTER_STOPPED, now_s)

    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """See `Store.pending`."""
        with self._transaction(READ_TIMEOUT_S):
            assert self._connection is not None
            return pending_tasks(self._connection, self._run_number, after, bytes_max)

    def engines(self) -> tuple[list[EngineInfo], int]:
        """See `Store.engines`."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            return engines_of(cursor, self._run_number)

    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """See `Store.functions`."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            rows = cursor.execute(_FUNCTIONS, [list(digests)]).fetchall()
        known = {row[0]: Function(*row) for row in rows}
        return [known[digest] for digest in digests if digest in known]

    # -- keeping ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these; see `Store.apply`. What no text can hold is replaced."""
        batch = Batch(records)
        rows = [row + (None,) * (len(COLUMNS) - len(row)) for row in _task_rows(batch)]
        engines: list[Row] = list(batch.engines.values())
        functions: list[Row] = list(batch.functions.values())
        try:
            self._put(rows, engines, functions)
        except RecordError:
            self._put(_mended(rows), _mended(engines), _mended(functions))

    def _put(self, rows: list[Row], engines: list[Row], functions: list[Row]) -> None:
        with self._transaction(WRITE_TIMEOUT_S) as cursor:
            run = self._run_number  # may be another after a break
            if len(rows) < COPY_ROWS_MIN:
                cursor.executemany(_PUT_TASK, [(run, *row) for row in rows])
            else:
                with cursor.copy(_COPY_BATCH) as copy:
                    copy.set_types(["int4", *_COLUMN_TYPES])
                    for place, row in enumerate(rows):
                        copy.write_row((place, *row))
                cursor.execute(_PUT_BATCH, [run])
            cursor.executemany(_PUT_ENGINE, [(*engine, run) for engine in engines])
            cursor.executemany(_PUT_FUNCTION, functions)
        self._put_count += len(rows)

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

    # -- forgetting ------------------------------------------------------------------------

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        self._usage = None
        with self._transaction(READ_TIMEOUT_S) as cursor:
            where, values = self._where(condition)
            return cursor.execute(f"DELETE FROM tasks WHERE {where}".encode(), values).rowcount

    def cull(self, limits: Limits, now_s: float) -> int:
        """See `Store.cull`. Each cluster forgets its own tasks."""
        with self._transaction(READ_TIMEOUT_S) as cursor:
            runs = runs_of(cursor, self._run.cluster)
            count, size = self._excess(cursor, runs, limits)
            if count <= 0 and size <= 0 and limits.age_s is None:
                return 0
            cutoff_s = -math.inf if limits.age_s is None else now_s - limits.age_s
            doomed = []
            for task in oldest(cursor, runs, CULL_COUNT_MAX):
                if count > 0 or size > 0 or (task.completed_s or 0.0) < cutoff_s:
                    doomed.append(task)
                    count -= 1
                    size -= task.size_bytes
            forgotten_count = forget(cursor, doomed)
        if self._usage is not None:
            self._usage = self._usage.without(doomed)
        if forgotten_count < CULL_COUNT_MAX and (count > 0 or size > 0):
            self._usage = None  # what is too much has not ended: look again when it may have
        return forgotten_count

    def _excess(self, cursor: Cursor, runs: list[int], limits: Limits) -> Usage:
        """Return how much there is beyond the limits.

        To look takes long, so it does again only when there are some more tasks: an excess of
        that part may stay for a while.
        """
        if limits.task_count is None and limits.size_bytes is None:
            return Usage(0, 0)
        used = self._usage
        if used is None or self._put_count > used.task_count // UNSEEN_PART:
            used = self._usage = usage(cursor, runs, with_size=limits.size_bytes is not None)
            self._put_count = 0
        return Usage(
            0 if limits.task_count is None else used.task_count - limits.task_count,
            0 if limits.size_bytes is None else used.size_bytes - limits.size_bytes,
        )


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
