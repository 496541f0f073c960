"""The store that is there by default: one SQLite file beside the profile.

Every batch is one transaction and every task of it one statement: an INSERT, whole if the task
has ended already, or an UPDATE of the second half. With write-ahead logging
readers (`sqlite3` at a prompt, say) do not disturb the recorder; a transaction survives the end
of any process, and the last ones may be lost only if the machine itself goes down.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from parallelz.ids import Digest
from parallelz.protocol.messages import EngineInfo
from parallelz.store import sqlite_schema
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
from parallelz.store.query import Condition, column, compiled, to_sql
from parallelz.store.record import Record
from parallelz.store.rows import (
    COLUMNS,
    END_COLUMNS,
    PENDING,
    Batch,
    Function,
    Row,
    legible,
    orphan_row,
)
from parallelz.store.sqlite_put import PUT_END, PUT_ENDED, PUT_PENDING

BUSY_TIMEOUT_S = 5.0  # how long another process may keep the file locked
CACHE_SIZE_KIB = 32 * 1024
CHECKPOINT_PAGES = 4000
ROW_PAYLOAD_BYTES_MAX = 8 * 1024  # larger ones are in a table of their own
FILE_CHECK_PERIOD_S = 1.0
VACUUM_PAGES = 2000

_PAYLOAD, _DATA = COLUMNS.index("payload"), COLUMNS.index("data")
_PAYLOAD_BYTES, _DATA_BYTES = COLUMNS.index("payload_bytes"), COLUMNS.index("data_bytes")
_END_DATA = END_COLUMNS.index("data")
_NAMES_DAMAGE = re.compile("malformed|not a database|corrupt", re.IGNORECASE)
_decode_info = msgspec.msgpack.Decoder(EngineInfo).decode


_PUT_ENGINE = (
    "INSERT OR REPLACE INTO engines"
    " (engine_uuid, engine_id, host, pid, changed, cause, info, run)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, {run})"
)
_PUT_FUNCTION = "INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?)"
_PUT_ARGUMENTS = "INSERT OR IGNORE INTO payloads VALUES (?, 0, ?, ?)"
_PUT_RESULT = (  # of the first end, which is the one that counts
    "INSERT OR IGNORE INTO payloads SELECT ?1, 1, ?2, ?3 WHERE NOT EXISTS"
    f" (SELECT 1 FROM tasks WHERE msg_id = ?1 AND status <> '{PENDING}')"
)
_END_LOST = (
    "UPDATE tasks SET status = 'lost', ename = 'ClusterError', evalue = ?, traceback = '',"
    f" completed = ?, received = ?, retries = 0 WHERE status = '{PENDING}' AND run "
)
_OLDEST = f"SELECT rowid FROM tasks WHERE status <> '{PENDING}'"


class SqliteStore(Store):
    """Tasks in an SQLite file.

    A file that is damaged is moved aside, and a new one begun; the same if it was removed or
    replaced. `take_notices` tells.

    Parameters
    ----------
    path
        Created, for its owner only, if it is not there. Its directory must be.
    clock
        Seconds from any origin.

    Raises
    ------
    StoreError
        If it cannot be opened, or is one of a newer parallelz.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._notices: list[str] = []
        self._run = Run("", "")
        self._run_number = 0
        self._checked_s = clock()
        self._open()

    def _open(self) -> None:
        try:
            self._open_file()
        except _Damaged as error:
            self._move_aside(error)
            self._open_file()

    def _open_file(self) -> None:
        with self._failures():
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
            self._file_id = os.fstat(descriptor).st_ino
            os.close(descriptor)
            self._db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with self._failures():
                self._prepare()
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA cache_size = -{CACHE_SIZE_KIB}")
        self._db.create_function("regexp", 2, _regexp, deterministic=True)
        sqlite_schema.prepare(self._db, self._path)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    # -- what can happen to a file ---------------------------------------------------------

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OverflowError, sqlite3.DataError, sqlite3.InterfaceError) as error:
            raise RecordError(f"{self._path}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and _NAMES_DAMAGE.search(str(error)):
                raise _Damaged(f"{self._path}: {error}") from error
            raise StoreError(f"{self._path}: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._failures():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _move_aside(self, error: StoreError) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        with self._failures():
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
        self._notices.append(
            f"the database is damaged ({error}); it was moved to {aside}, and a new one begun:"
            " what was recorded before is only in the old one"
        )

    def _begin_anew(self, error: StoreError) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if isinstance(error, _Damaged):
            self._move_aside(error)
        self._open()
        self._begin_run(time.time())

    def _see_to_file(self) -> None:
        """Begin a new file if ours was removed: else all would go where nobody finds it."""
        now_s = self._clock()
        if now_s - self._checked_s < FILE_CHECK_PERIOD_S:
            return
        self._checked_s = now_s
        try:
            is_there = self._path.stat().st_ino == self._file_id
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self._notices.append(f"{self._path} was removed or replaced; it was begun anew")
            self._begin_anew(StoreError("it was removed"))

    def take_notices(self) -> list[str]:
        """See `Store.take_notices`."""
        notices, self._notices = self._notices, []
        return notices

    # -- runs ------------------------------------------------------------------------------

    def begin_run(self, run: Run, now_s: float) -> int:
        """See `Store.begin_run`. A file belongs to one cluster."""
        self._run = run
        try:
            return self._begin_run(now_s)
        except _Damaged as error:
            self._begin_anew(error)
            return 0

    def _begin_run(self, now_s: float) -> int:
        key, cluster = self._run
        with self._transaction():
            known = self._db.execute("SELECT run FROM runs WHERE key = ?", [key]).fetchone()
            if known is not None:
                (self._run_number,) = known
                return 0
            number = self._db.execute(
                "INSERT INTO runs (key, cluster, started) VALUES (?, ?, ?)",
                [key, cluster, now_s],
            ).lastrowid
            assert number is not None
            self._run_number = number
            values = [CLUSTER_ENDED, now_s, now_s, number]
            return self._db.execute(f"{_END_LOST} <> ?", values).rowcount

    def end_run(self, now_s: float) -> int:
        """See `Store.end_run`."""
        values = [CLUSTER_STOPPED, now_s, now_s, self._run_number]
        with self._transaction():
            return self._db.execute(f"{_END_LOST} = ?", values).rowcount

    # -- keeping ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        self._see_to_file()
        batch = Batch(records)
        try:
            self._apply(batch)
        except _Damaged as error:
            self._begin_anew(error)
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        run = self._run_number
        arguments, results = _taken_out(batch)
        with self._transaction():
            if arguments:
                self._db.executemany(_PUT_ARGUMENTS, arguments)
            if results:
                self._db.executemany(_PUT_RESULT, results)
            for length, rows in groupby(batch.tasks.values(), len):
                put = PUT_ENDED if length == len(COLUMNS) else PUT_PENDING
                put.execute(self._db, rows, run)
            if batch.ends:
                self._end(batch.ends)
            if batch.engines:
                engines = batch.engines.values()
                self._db.executemany(_PUT_ENGINE.format(run=run), engines)
            if batch.functions:
                self._db.executemany(_PUT_FUNCTION, batch.functions.values())

    def _end(self, ends: dict[str, Row]) -> None:
        updates = [(*end, task_id) for task_id, end in ends.items()]
        if PUT_END.execute(self._db, updates, self._run_number) < len(ends):
            orphans = [orphan_row(task_id, end) for task_id, end in ends.items()]
            PUT_ENDED.execute(self._db, orphans, self._run_number)

    # -- finding ---------------------------------------------------------------------------

    def select(
        self,
        condition: Condition,
        keys: Sequence[str],
        order: Sequence[str],
        limit: int | None,
    ) -> list[dict[str, object]]:
        """See `Store.select`."""
        where, values = to_sql(condition)
        terms = [f"{column(key.removeprefix('-'))} {_direction(key)}" for key in order]
        terms.append(f"number {_direction(order[0]) if order else 'ASC'}")
        statement = (
            f"SELECT {', '.join(map(column, keys))} FROM records AS tasks WHERE {where}"
            f" ORDER BY {', '.join(terms)} LIMIT ?"
        )
        with self._failures():
            rows = self._db.execute(statement, [*values, -1 if limit is None else limit])
            return [legible(dict(zip(keys, row, strict=True))) for row in rows]

    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """See `Store.pending`."""
        statement = (
            f"SELECT number, {', '.join(RESTORED_KEYS)} FROM records"
            f" WHERE run = ? AND status = '{PENDING}' AND number > ? ORDER BY number"
        )
        found: list[dict[str, object]] = []
        nbytes = 0
        with self._failures():
            for number, *values in self._db.execute(statement, [self._run_number, after]):
                if nbytes > bytes_max:
                    return found, after
                found.append(dict(zip(RESTORED_KEYS, values, strict=True)))
                nbytes += found[-1]["payload_bytes"] or 0  # type: ignore[operator]
                after = number
        return found, 0

    def engines(self) -> tuple[list[EngineInfo], int]:
        """See `Store.engines`."""
        with self._failures():
            present = self._db.execute(
                "SELECT info FROM engines WHERE run = ? AND cause = '' ORDER BY engine_id",
                [self._run_number],
            ).fetchall()
            (last,) = self._db.execute(
                "SELECT max(engine_id) FROM engines WHERE run = ?", [self._run_number]
            ).fetchone()
        return [_decode_info(info) for (info,) in present], 0 if last is None else last + 1

    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """See `Store.functions`."""
        statement = "SELECT digest, name, data, frames FROM functions WHERE digest = ?"
        with self._failures():
            rows = [self._db.execute(statement, [digest]).fetchone() for digest in digests]
        return [Function(*row) for row in rows if row is not None]

    # -- forgetting ------------------------------------------------------------------------

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        where, values = to_sql(condition)
        matching = f"SELECT number FROM records AS tasks WHERE {where}"
        with self._transaction():
            statement = f"DELETE FROM tasks WHERE rowid IN ({matching})"
            return self._db.execute(statement, values).rowcount

    def cull(self, limits: Limits, now_s: float) -> int:
        """See `Store.cull`. The file shrinks with it, if it was made by version 2 or later."""
        with self._transaction():
            matching, values = self._beyond(limits, now_s)
            if not matching:
                return 0
            statement = f"DELETE FROM tasks WHERE rowid IN ({matching})"
            count = self._db.execute(statement, values).rowcount
        with self._failures():
            self._db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return count

    def _beyond(self, limits: Limits, now_s: float) -> tuple[str, list[object]]:
        """Return a statement that finds what to forget first; "": nothing."""
        if limits.age_s is not None:
            cutoff_s = now_s - limits.age_s
            matching = (
                f"{_OLDEST} AND submitted < ? AND completed < ? ORDER BY submitted LIMIT ?"
            )
            values: list[object] = [cutoff_s, cutoff_s, CULL_COUNT_MAX]
            if self._db.execute(f"{matching[:-1]}1", values[:2]).fetchone() is not None:
                return matching, values
        excess = 0
        if limits.task_count is not None:
            (count,) = self._db.execute("SELECT count(*) FROM tasks").fetchone()
            excess = count - limits.task_count
        if limits.size_bytes is not None and self._size_bytes() > limits.size_bytes:
            excess = CULL_COUNT_MAX
        if excess <= 0:
            return "", []
        return f"{_OLDEST} ORDER BY submitted LIMIT ?", [min(excess, CULL_COUNT_MAX)]

    def _size_bytes(self) -> int:
        sizes = [
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        ]
        return (sizes[0] - sizes[1]) * sizes[2]

    def close(self) -> None:
        """Close the file; another process may go on with it."""
        with self._failures():
            self._db.close()


class _Damaged(StoreError):
    """The file is no database, or one that cannot be read."""


def _taken_out(batch: Batch) -> tuple[list[Row], list[Row]]:
    """Take large arguments and results out of a batch, and return them."""
    arguments: list[Row] = []
    results: list[Row] = []
    for task_id, row in batch.tasks.items():
        if _is_large(row[_PAYLOAD_BYTES]):
            batch.tasks[task_id] = row = _without(row, _PAYLOAD, task_id, arguments)
        if len(row) == len(COLUMNS) and _is_large(row[_DATA_BYTES]):
            batch.tasks[task_id] = _without(row, _DATA, task_id, results)
    for task_id, end in batch.ends.items():
        if _is_large(end[_END_DATA + 2]):
            batch.ends[task_id] = _without(end, _END_DATA, task_id, results)
    return arguments, results


def _is_large(size: object) -> bool:
    return isinstance(size, int) and size > ROW_PAYLOAD_BYTES_MAX


def _without(row: Row, place: int, task_id: object, elsewhere: list[Row]) -> Row:
    data, frames = row[place], row[place + 1]
    if data is None and frames is None:
        return row  # only its size is kept
    elsewhere.append((task_id, data, frames))
    return (*row[:place], None, None, *row[place + 2 :])


def _direction(key: str) -> str:
    return "DESC" if key.startswith("-") else "ASC"


def _regexp(pattern: str, value: object) -> bool:
    return value is not None and compiled(pattern).search(str(value)) is not None
