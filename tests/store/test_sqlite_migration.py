"""A file of an older parallelz is gone on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers_store import E0, RUN, F, end, engine_record, submission, tid

from parallelz.protocol.messages import TaskOptions
from parallelz.store import sqlite_schema
from parallelz.store.interface import StoreError
from parallelz.store.query import KEYS
from parallelz.store.record import encode
from parallelz.store.sqlite import SqliteStore
from parallelz.store.sqlite_schema import VERSION

# What version 1 did, word for word.
VERSION_1 = """
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
PRAGMA user_version = 1;
"""
# A task that ended, with a result that is large by now, and one that did not.
TASKS: list[dict[str, object]] = [
    {
        **{"msg_id": "client-1", "client_uuid": "client", "queue": "balanced", "name": "f"},
        **{"digest": F, "submitted": 1.0, "arrived": 1.1, "label": "", "engine_id": 0},
        **{"status": "ok", "engine_uuid": E0, "started": 2.0, "completed": 3.0},
        **{"received": 4.0, "retries": 0, "payload_bytes": 9, "data_bytes": 20_000},
        **{"stdout": "out", "stderr": "", "payload": b"arguments", "data": b"r" * 20_000},
    },
    {
        **{"msg_id": "client-2", "client_uuid": "client", "queue": "direct", "name": "g"},
        **{"digest": F, "submitted": 2.0, "arrived": 2.1, "label": "night", "engine_id": 7},
        **{"status": "pending", "payload_bytes": 9, "payload": b"arguments"},
    },
]


def version_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
        db.execute("PRAGMA journal_mode = WAL")
        for row in TASKS:
            names, places = ", ".join(row), ", ".join("?" * len(row))
            db.execute(f"INSERT INTO tasks ({names}) VALUES ({places})", list(row.values()))
        db.execute(f"INSERT INTO engines VALUES ('{E0}', 0, 'node7', 42, 1.0, '')")
        db.execute("INSERT INTO functions VALUES (?, 'f', ?, ?)", [F, b"code", b""])
        db.commit()


def tables(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()


def test_all_that_version_1_remembered_is_still_there(tmp_path: Path) -> None:
    version_1(tmp_path / "db")
    with closing(SqliteStore(tmp_path / "db")) as store:
        first, second = store.query({}, list(KEYS))
        assert (first["status"], first["data"], first["frames"]) == ("ok", b"r" * 20_000, None)
        assert (first["host"], first["stdout"]) == ("node7", "out")
        assert (second["label"], second["payload"]) == ("night", b"arguments")
        assert [function.data for function in store.functions([F])] == [b"code"]


def test_what_had_not_ended_under_version_1_is_lost(tmp_path: Path) -> None:
    version_1(tmp_path / "db")
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.begin_run(RUN, 9.0) == 1
        assert store.status([tid(1), tid(2)]) == {tid(1): "ok", tid(2): "lost"}
        store.apply([engine_record(), submission(3), end(3, data=b"r" * 10_000), end(1)])
        assert store.result([tid(3)])[0]["data"] == b"r" * 10_000
        assert store.engines() == ([engine_record().engine], 1)


def test_an_old_file_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    version_1(tmp_path / "old")
    for name in ("old", "new", "old"):
        SqliteStore(tmp_path / name).close()
    assert tables(tmp_path / "old") == tables(tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "old")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_migration_that_fails_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    version_1(tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("CREATE TABLE payloads (mine)")
    before = tables(tmp_path / "db")
    with pytest.raises(StoreError, match="payloads already exists"):
        SqliteStore(tmp_path / "db")
    assert tables(tmp_path / "db") == before


def test_what_version_2_remembered_is_still_there(tmp_path: Path) -> None:
    version_1(tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.executescript(f"{sqlite_schema._SECOND} PRAGMA user_version = 2;")
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.status([tid(1), tid(2)]) == {tid(1): "ok", tid(2): "pending"}
        store.append([encode(end(2))])
        journaled = store.journaled(10)
        assert journaled is not None
        store.fold(journaled, [end(2)])
        assert store.journaled(10) is None
        assert store.status([tid(2)]) == {tid(2): "ok"}


def test_what_version_3_remembered_is_still_there_and_has_no_tags(tmp_path: Path) -> None:
    version_1(tmp_path / "db")
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        later = sqlite_schema._SECOND + sqlite_schema._THIRD
        db.executescript(f"{later} PRAGMA user_version = 3;")
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.status([tid(1), tid(2)]) == {tid(1): "ok", tid(2): "pending"}
        store.apply([submission(3, options=TaskOptions(tags={"run": 1}))])
        tags = {record["msg_id"]: record["tags"] for record in store.query({}, ["tags"])}
        assert tags == {tid(1): None, tid(2): None, tid(3): {"run": 1}}
