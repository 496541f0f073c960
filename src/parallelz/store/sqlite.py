"""The store that is there by default: one SQLite file beside the profile.

Records are first one row of the table `journal`, whatever their number, and become rows of
tasks when the recorder has time for that: most tasks have ended by then and are one INSERT,
else the end is an UPDATE. With write-ahead logging readers (`sqlite3` at a prompt, say) do not
disturb the recorder; a transaction survives the end of any process, and the last ones may be
lost only if the machine itself goes down.

A connection on which anything failed that does not pass by itself is given up, and the next
call makes a new one. A file that is damaged is moved aside before that, and one that was
deleted or replaced is let go: whoever finds it gets a `DamageError`, the next call a new file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from parallelz.ids import Digest
from parallelz.protocol.messages import EngineInfo
from parallelz.store import sqlite_schema
from parallelz.store.interface import (
    CLUSTER_ENDED,
    CLUSTER_STOPPED,
    RESTORED_KEYS,
    DamageError,
    Journaled,
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
    TASK_BYTES,
    Batch,
    Function,
    Row,
    legible,
    orphan_row,
)
from parallelz.store.sqlite_limits import Culling
from parallelz.store.sqlite_put import PUT_END, PUT_ENDED, PUT_PENDING

BUSY_TIMEOUT_S = 2.0  # how long a call waits for another process that keeps the file locked
CACHE_SIZE_KIB = 32 * 1024
CHECKPOINT_PAGES = 4000
ROW_PAYLOAD_BYTES_MAX = 8 * 1024  # larger ones are in a table of their own
VACUUM_PAGES = 2000

_PAYLOAD, _DATA = COLUMNS.index("payload"), COLUMNS.index("data")
_PAYLOAD_BYTES, _DATA_BYTES = COLUMNS.index("payload_bytes"), COLUMNS.index("data_bytes")
_END_DATA = END_COLUMNS.index("data")
_NOWHERE = (0, 0)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
_REFUSALS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    OverflowError,
    UnicodeEncodeError,
)
_decode_info = msgspec.msgpack.Decoder(EngineInfo).decode
_decode_entry = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode

_PUT_ENGINE = (
    "INSERT OR REPLACE INTO engines"
    " (engine_uuid, engine_id, host, pid, changed, cause, info, run)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, {run})"
)
_PUT_FUNCTION = "INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?)"
# What came first holds, and whether that has its payload outside can be seen in the row.
_PUT_ARGUMENTS = (
    "INSERT OR IGNORE INTO payloads SELECT msg_id, 0, ?, ? FROM tasks"
    " WHERE msg_id = ? AND payload IS NULL AND payload_bytes = ?"
)
_PUT_RESULT = (
    "INSERT OR IGNORE INTO payloads SELECT msg_id, 1, ?, ? FROM tasks"
    " WHERE msg_id = ? AND data IS NULL AND data_bytes = ?"
)
_APPEND = "INSERT INTO journal (run, count, data) VALUES (?, ?, ?)"
_JOURNAL = "SELECT number, run, count, data FROM journal ORDER BY number"
_END_LOST = (
    "UPDATE tasks SET status = 'lost', ename = 'ClusterError', evalue = ?, traceback = '',"
    f" completed = ?, received = ?, retries = 0 WHERE status = '{PENDING}' AND run "
)


class SqliteStore(Store):
    """Tasks in an SQLite file.

    Parameters
    ----------
    path
        Created, for its owner only, if it is not there. Its directory must be.

    Raises
    ------
    StoreError
        If it cannot be opened, or is one of a newer parallelz.
    DamageError
        If it was no database; that is moved aside now.
    """

    has_journal = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._log_path = Path(f"{path}-wal")
        self._place = self._log_place = _NOWHERE  # of the files that are open
        self._run: tuple[Run, float] | None = None  # and when it began
        self._run_number = 0
        self._culling = Culling()
        with self._failures():
            self._connected()

    # -- the file --------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None:
            self._check_place()
            return self._db
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            db.execute(f"PRAGMA cache_size = -{CACHE_SIZE_KIB}")
            db.create_function("regexp", 2, _regexp, deterministic=True)
            sqlite_schema.prepare(db, self._path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            if self._run is not None:
                self._run_number = _register(db, *self._run)
            db.execute("SELECT 1 FROM tasks LIMIT 1")  # from here on there is a log beside it
            self._place, self._log_place = _place_of(self._path), _place_of(self._log_path)
        except BaseException:
            db.close()
            raise
        self._culling.forget_count()
        self._db = db
        return db

    def _check_place(self) -> None:
        """Let go of a file that nobody will find any more."""
        if _place_of(self._path) == self._place:
            return
        self._disconnect()
        if _place_of(self._log_path) == self._log_place:
            # SQLite would take the log of the old file for that of the new one.
            self._log_path.unlink()
        raise DamageError(
            f"{self._path} was deleted or replaced; what was recorded in it is gone, and a new"
            " one is begun if there is none"
        )

    def _disconnect(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except _REFUSALS as error:
            raise RecordError(f"{self._path}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            text = f"{self._path}: {error}"
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGE:
                raise self._damaged(text) from error
            if code not in _PASSING:
                self._disconnect()
            raise StoreError(text) from error

    def _damaged(self, text: str) -> StoreError:
        """Move the file aside; return what is to be raised."""
        aside = _unused(self._path, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
        except OSError as error:
            return StoreError(f"{text}; it must be moved away, which failed: {error}")
        finally:
            # Only now: SQLite leaves a file as it is that is not in its place any more.
            self._disconnect()
        return DamageError(
            f"{text}; it was moved to {aside}, and a new one is begun: what was recorded"
            " before is only in the old one"
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._failures():
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._check_place()

    def close(self) -> None:
        """Close the file; another process may go on with it."""
        with self._failures():
            self._disconnect()

    # -- runs ------------------------------------------------------------------------------

    def begin_run(self, run: Run, now_s: float) -> int:
        """See `Store.begin_run`. A file belongs to one cluster."""
        with self._transaction() as db:
            is_known = db.execute("SELECT 1 FROM runs WHERE key = ?", [run.key]).fetchone()
            number = _register(db, run, now_s)
            values = [CLUSTER_ENDED, now_s, now_s, number]
            count = 0 if is_known else db.execute(f"{_END_LOST} <> ?", values).rowcount
        self._run = (run, now_s)
        self._run_number = number
        return count

    def end_run(self, now_s: float) -> int:
        """See `Store.end_run`."""
        values = [CLUSTER_STOPPED, now_s, now_s, self._run_number]
        with self._transaction() as db:
            return db.execute(f"{_END_LOST} = ?", values).rowcount

    # -- keeping ---------------------------------------------------------------------------

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        batch = Batch(records)
        arguments, results = _taken_out(batch)
        with self._transaction() as db:
            _put(db, batch, arguments, results, self._run_number)

    def append(self, records: Sequence[msgspec.Raw]) -> None:
        """See `Store.append`."""
        data = msgspec.msgpack.encode(records)
        with self._transaction() as db:
            db.execute(_APPEND, [self._run_number, len(records), data])

    def journaled(self, count_max: int) -> Journaled | None:
        """See `Store.journaled`."""
        records: list[msgspec.Raw] = []
        entry_count = run = last = 0
        with self._failures(), contextlib.closing(self._connected().cursor()) as cursor:
            for number, of_run, count, data in cursor.execute(_JOURNAL):
                if entry_count and (of_run != run or len(records) + count > count_max):
                    break
                run, last = of_run, number
                entry_count += 1
                records += _records_of(data)
        return Journaled(run, last, entry_count, records) if entry_count else None

    def fold(self, journaled: Journaled, records: Sequence[Record]) -> None:
        """See `Store.fold`."""
        batch = Batch(records)
        arguments, results = _taken_out(batch)
        with self._transaction() as db:
            _put(db, batch, arguments, results, journaled.run)
            db.execute("DELETE FROM journal WHERE number <= ?", [journaled.last])

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
            db = self._connected()
            rows = db.execute(statement, [*values, -1 if limit is None else limit])
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
            db = self._connected()
            for number, *values in db.execute(statement, [self._run_number, after]):
                if nbytes > bytes_max:
                    return found, after
                found.append(dict(zip(RESTORED_KEYS, values, strict=True)))
                nbytes += TASK_BYTES + (found[-1]["payload_bytes"] or 0)  # type: ignore[operator]
                after = number
        return found, 0

    def engines(self) -> tuple[list[EngineInfo], int]:
        """See `Store.engines`."""
        with self._failures():
            db = self._connected()
            present = db.execute(
                "SELECT info FROM engines WHERE run = ? AND cause = '' ORDER BY engine_id",
                [self._run_number],
            ).fetchall()
            (last,) = db.execute(
                "SELECT max(engine_id) FROM engines WHERE run = ?", [self._run_number]
            ).fetchone()
        return [_decode_info(info) for (info,) in present], 0 if last is None else last + 1

    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """See `Store.functions`."""
        statement = "SELECT digest, name, data, frames FROM functions WHERE digest = ?"
        with self._failures():
            db = self._connected()
            rows = [db.execute(statement, [digest]).fetchone() for digest in digests]
        return [Function(*row) for row in rows if row is not None]

    # -- forgetting ------------------------------------------------------------------------

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        where, values = to_sql(condition)
        matching = f"SELECT number FROM records AS tasks WHERE {where}"
        self._culling.forget_count()
        with self._transaction() as db:
            statement = f"DELETE FROM tasks WHERE rowid IN ({matching})"
            return db.execute(statement, values).rowcount

    def cull(self, limits: Limits, now_s: float) -> int:
        """See `Store.cull`. The file shrinks with it, if it was made by version 2 or later."""
        with self._failures():
            rowids = self._culling.doomed(self._connected(), limits, now_s)
        if rowids:
            with self._transaction() as db:
                rows = [(rowid,) for rowid in rowids]
                db.executemany("DELETE FROM tasks WHERE rowid = ?", rows)
            with self._failures():
                db = self._connected()
                self._culling.forgot(db, len(rowids))
                # As a script: `execute` would end after the first page.
                db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        return len(rowids)


def _place_of(path: Path) -> tuple[int, int]:
    """Return what tells a file from others that are called the same."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return _NOWHERE
    return status.st_dev, status.st_ino


def _unused(path: Path, stamp: str) -> Path:
    """Return where a damaged file can go without overwriting an earlier one."""
    name = f"{path.name}.damaged-{stamp}"
    count = 1
    while path.with_name(name).exists():
        count += 1
        name = f"{path.name}.damaged-{stamp}-{count}"
    return path.with_name(name)


def _register(db: sqlite3.Connection, run: Run, now_s: float) -> int:
    """Return the number of a run, new or known."""
    db.execute(
        "INSERT OR IGNORE INTO runs (key, cluster, started) VALUES (?, ?, ?)", [*run, now_s]
    )
    (number,) = db.execute("SELECT run FROM runs WHERE key = ?", [run.key]).fetchone()
    return int(number)


def _records_of(data: bytes) -> list[msgspec.Raw]:
    try:
        return _decode_entry(data)
    except msgspec.MsgspecError:
        return [msgspec.Raw(data)]  # is told of, and dropped, as a record that cannot be read


def _put(
    db: sqlite3.Connection,
    batch: Batch,
    arguments: Sequence[Row],
    results: Sequence[Row],
    run: int,
) -> None:
    """Write what became known in a run into the tables, large payloads beside their tasks."""
    for length, rows in groupby(batch.tasks.values(), len):
        put = PUT_ENDED if length == len(COLUMNS) else PUT_PENDING
        put.execute(db, rows, run)
    if batch.ends:
        _end(db, batch.ends, run)
    if arguments:
        db.executemany(_PUT_ARGUMENTS, arguments)
    if results:
        db.executemany(_PUT_RESULT, results)
    if batch.engines:
        db.executemany(_PUT_ENGINE.format(run=run), batch.engines.values())
    if batch.functions:
        db.executemany(_PUT_FUNCTION, batch.functions.values())


def _end(db: sqlite3.Connection, ends: dict[str, Row], run: int) -> None:
    updates = [(*end, task_id) for task_id, end in ends.items()]
    if PUT_END.execute(db, updates, run) < len(ends):
        orphans = [orphan_row(task_id, end) for task_id, end in ends.items()]
        PUT_ENDED.execute(db, orphans, run)


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
    data, frames, size = row[place : place + 3]
    if data is None:
        return row  # only its size is kept
    elsewhere.append((data, frames, task_id, size))
    return (*row[:place], None, None, *row[place + 2 :])


def _direction(key: str) -> str:
    return "DESC" if key.startswith("-") else "ASC"


def _regexp(pattern: str, value: object) -> bool:
    return value is not None and compiled(pattern).search(str(value)) is not None
