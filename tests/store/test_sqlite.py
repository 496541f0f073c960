from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers_store import end, submission, tid

from parallelz.store import sqlite
from parallelz.store.interface import StoreError
from parallelz.store.query import KEYS
from parallelz.store.sqlite import SqliteStore


def test_what_was_applied_is_there_after_a_restart(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1), end(1)])
        before = store.result([tid(1)])
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.result([tid(1)]) == before


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1)])
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600}


def test_another_process_may_read_meanwhile(tmp_path: Path) -> None:
    with (
        closing(SqliteStore(tmp_path / "db")) as store,
        closing(sqlite3.connect(tmp_path / "db")) as reader,
    ):
        store.apply([submission(1)])
        cursor = reader.execute("SELECT msg_id FROM tasks")
        store.apply([submission(2)])
        assert cursor.fetchall() == [(tid(1),)]


def test_a_batch_is_kept_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        monkeypatch.setattr(sqlite.PUT_END, "_short", "UPDATE nothing")
        with pytest.raises(StoreError, match="syntax error"):
            store.apply([submission(1), end(2)])
        assert store.history() == []
        store.apply([submission(3)])
        assert store.history() == [tid(3)]


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"This is a letter to my mother. " * 100)
    with pytest.raises(StoreError, match="db: file is not a database"):
        SqliteStore(tmp_path / "db")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "db")


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer parallelz"):
        SqliteStore(tmp_path / "db")


def test_a_locked_database_is_an_error_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.0)
    with (
        closing(SqliteStore(tmp_path / "db")) as store,
        closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.apply([submission(1)])
        other.execute("ROLLBACK")
        assert store.history() == []


def test_lookups_by_id_and_by_time_use_an_index(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        plans: list[str] = []
        store._db.set_trace_callback(plans.append)
        store.status([tid(1)])
        store.query({"submitted": {"$gt": 3}})
        store.query({"msg_id": tid(1)})
        store._db.set_trace_callback(None)
        for plan in plans:
            steps = store._db.execute(f"EXPLAIN QUERY PLAN {plan}").fetchall()
            assert any("USING INDEX" in step[3] and "SEARCH tasks" in step[3] for step in steps)


def test_every_key_can_be_asked_of_the_database(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1)])
        (record,) = store.query({}, list(KEYS))
        assert set(record) == set(KEYS)
