"""The store that is there by default: one SQLite file beside the profile.

Every batch is one transaction and every task of it one statement: an INSERT, whole if the task
has ended already, or an UPDATE of the second half. With write-ahead logging
readers (`sqlite3` at a prompt, say) do not disturb the recorder; a transaction survives the end
of any process, and the last ones may be lost only if the machine itself goes down.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from parallelz.ids import Digest
from parallelz.store.interface import Store, StoreError
from parallelz.store.query import Condition, column, compiled, to_sql
from parallelz.store.record import Record
from parallelz.store.rows import (
    COLUMNS,
    END_COLUMNS,
    PENDING,
    PENDING_COLUMNS,
    Batch,
    Function,
    Row,
    legible,
    orphan_row,
)

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0  # how long another process may keep the file locked
CACHE_SIZE_KIB = 32 * 1024
CHECKPOINT_PAGES = 4000

# Large columns come last: what is before them is read without them.
_SCHEMA = f"""
CREATE TABLE tasks (
    msg_id TEXT NOT NULL UNIQUE,
    client_uuid TEXT,
    queue TEXT,
    name TEXT,
    digest BLOB,
    submitted REAL,
    arrived REAL,
    label TEXT,
    engine_id INTEGER,
    status TEXT NOT NULL,
    engine_uuid TEXT,
    started REAL,
    completed REAL,
    received REAL,
    retries INTEGER,
    payload_bytes INTEGER,
    data_bytes INTEGER,
    ename TEXT,
    evalue TEXT,
    after BLOB,
    follow BLOB,
    options BLOB,
    traceback TEXT,
    stdout TEXT,
    stderr TEXT,
    outputs BLOB,
    execute_result BLOB,
    payload BLOB,
    payload_frames BLOB,
    data BLOB,
    frames BLOB
);
CREATE INDEX tasks_by_time ON tasks (submitted);
CREATE TABLE engines (
    engine_uuid TEXT PRIMARY KEY,
    engine_id INTEGER,
    host TEXT,
    pid INTEGER,
    changed REAL,
    cause TEXT
);
CREATE TABLE functions (digest BLOB PRIMARY KEY, name TEXT, data BLOB, frames BLOB);
PRAGMA user_version = {SCHEMA_VERSION};
"""


# What most tasks have in these columns. To pass it for each of them would cost as much as
# all the rest of keeping them.
_USUAL_IN_PENDING: dict[str, object] = {
    "label": "",
    "after": None,
    "follow": None,
    "options": None,
    "payload_frames": None,
    "engine_id": None,
}
_USUAL_IN_END: dict[str, object] = {
    "frames": None,
    "ename": None,
    "evalue": None,
    "traceback": None,
    "stdout": "",
    "stderr": "",
    "outputs": None,
    "execute_result": None,
}


class _Put:
    """Two statements: for rows that have the usual values in some columns, and for any.

    Parameters
    ----------
    columns
        Of the rows.
    usual
        Values by column, which a statement has by itself; None is what is there without it.
    write
        Makes a statement from the columns that are passed, and those that are "".
    """

    def __init__(
        self,
        columns: Sequence[str],
        usual: Mapping[str, object],
        write: Callable[[Sequence[str], Sequence[str]], str],
    ) -> None:
        passed = [name for name in columns if name not in usual]
        self.statement = write(columns, ())
        self._usually = write(passed, [name for name, value in usual.items() if value == ""])
        self._parameters = itemgetter(*map(columns.index, passed))
        values_of = itemgetter(*map(columns.index, usual))
        values = tuple(usual.values())
        self._is_usual: Callable[[Row], bool] = lambda row: values_of(row) == values

    def execute(self, db: sqlite3.Connection, rows: Iterable[Row]) -> int:
        """Write the rows, in order; return how many that changed."""
        count = 0
        for is_usual, some in groupby(rows, self._is_usual):
            if is_usual:
                written = db.executemany(self._usually, map(self._parameters, some))
            else:
                written = db.executemany(self.statement, some)
            count += written.rowcount
        return count


def _insert(passed: Sequence[str], empty: Sequence[str]) -> str:
    places = ["?"] * len(passed) + ["''"] * len(empty)
    return (
        f"INSERT INTO tasks ({', '.join([*passed, *empty])}) VALUES ({', '.join(places)})"
        " ON CONFLICT (msg_id) "
    )


def _insert_pending(passed: Sequence[str], empty: Sequence[str]) -> str:
    return _insert(passed, empty) + "DO NOTHING"


def _insert_ended(passed: Sequence[str], empty: Sequence[str]) -> str:
    changes = ", ".join(f"{name} = excluded.{name}" for name in END_COLUMNS)
    return f"{_insert(passed, empty)}DO UPDATE SET {changes} WHERE status = '{PENDING}'"


def _update(passed: Sequence[str], empty: Sequence[str]) -> str:
    *passed, last = passed
    assert last == "msg_id"
    changes = [*(f"{name} = ?" for name in passed), *(f"{name} = ''" for name in empty)]
    return f"UPDATE tasks SET {', '.join(changes)} WHERE msg_id = ? AND status = '{PENDING}'"


_USUAL_IN_ENDED = {
    name: value
    for name, value in (_USUAL_IN_PENDING | _USUAL_IN_END).items()
    if name != "engine_id"
}
_PUT_PENDING = _Put(PENDING_COLUMNS, _USUAL_IN_PENDING, _insert_pending)
_PUT_ENDED = _Put(COLUMNS, _USUAL_IN_ENDED, _insert_ended)
_PUT_END = _Put((*END_COLUMNS, "msg_id"), _USUAL_IN_END, _update)
_PUT_ENGINE = "INSERT OR REPLACE INTO engines VALUES (?, ?, ?, ?, ?, ?)"
_PUT_FUNCTION = "INSERT OR IGNORE INTO functions VALUES (?, ?, ?, ?)"


class SqliteStore(Store):
    """Tasks in an SQLite file.

    Parameters
    ----------
    path
        Created, for its owner only, if it is not there. Its directory must be.

    Raises
    ------
    StoreError
        If it cannot be opened, is no database, or one of a newer parallelz.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._failures():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            with self._failures():
                self._prepare()
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_SIZE_KIB}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._db.create_function("regexp", 2, _regexp, deterministic=True)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer parallelz (version {version} of its"
                f" tables; this one knows {SCHEMA_VERSION}); move it away or update"
            )
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
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

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these."""
        batch = Batch(records)
        with self._transaction():
            for length, rows in groupby(batch.tasks.values(), len):
                put = _PUT_ENDED if length == len(COLUMNS) else _PUT_PENDING
                put.execute(self._db, rows)
            if batch.ends:
                self._end(batch.ends)
            if batch.engines:
                self._db.executemany(_PUT_ENGINE, batch.engines.values())
            if batch.functions:
                self._db.executemany(_PUT_FUNCTION, batch.functions.values())

    def _end(self, ends: dict[str, Row]) -> None:
        updates = [(*end, task_id) for task_id, end in ends.items()]
        if _PUT_END.execute(self._db, updates) < len(ends):
            orphans = [orphan_row(task_id, end) for task_id, end in ends.items()]
            _PUT_ENDED.execute(self._db, orphans)

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
        terms.append(f"rowid {_direction(order[0]) if order else 'ASC'}")
        statement = (
            f"SELECT {', '.join(map(column, keys))} FROM tasks WHERE {where}"
            f" ORDER BY {', '.join(terms)} LIMIT ?"
        )
        with self._failures():
            rows = self._db.execute(statement, [*values, -1 if limit is None else limit])
            return [legible(dict(zip(keys, row, strict=True))) for row in rows]

    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""
        where, values = to_sql(condition)
        with self._transaction():
            return self._db.execute(f"DELETE FROM tasks WHERE {where}", values).rowcount

    def definition(self, digest: Digest) -> Function | None:
        """Return what a digest stands for."""
        statement = "SELECT digest, name, data, frames FROM functions WHERE digest = ?"
        with self._failures():
            row = self._db.execute(statement, [digest]).fetchone()
        return None if row is None else Function(*row)

    def close(self) -> None:
        """Close the file; another process may go on with it."""
        with self._failures():
            self._db.close()


def _direction(key: str) -> str:
    return "DESC" if key.startswith("-") else "ASC"


def _regexp(pattern: str, value: object) -> bool:
    return value is not None and compiled(pattern).search(str(value)) is not None
