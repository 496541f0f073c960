from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers_store import end, submission, tid

from parallelz.store import sqlite
from parallelz.store.interface import Limits, StoreError
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


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "db")


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer parallelz"):
        SqliteStore(tmp_path / "db")


def test_lookups_by_id_and_by_time_use_an_index(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        plans: list[str] = []
        db = store._connected()
        db.set_trace_callback(plans.append)
        store.status([tid(1)])
        store.query({"submitted": {"$gt": 3}})
        store.query({"msg_id": tid(1)})
        db.set_trace_callback(None)
        for plan in plans:
            steps = db.execute(f"EXPLAIN QUERY PLAN {plan}").fetchall()
            assert any("USING INDEX" in step[3] and "SEARCH tasks" in step[3] for step in steps)


def test_every_key_can_be_asked_of_the_database(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1)])
        (record,) = store.query({}, list(KEYS))
        assert set(record) == set(KEYS)


def test_a_payload_survives_that_someone_tidies_the_file_up(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        for number in range(5):
            store.apply([submission(number), end(number, data=bytes([number]) * 10_000)])
        store.purge([tid(0), tid(2)])
    with closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("VACUUM")
    with closing(SqliteStore(tmp_path / "db")) as store:
        results = store.query({}, ["data"])
        assert [record["data"] for record in results] == [
            bytes([number]) * 10_000 for number in (1, 3, 4)
        ]


def test_large_payloads_are_in_a_table_of_their_own(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1, data=b"a" * 9000), end(1, data=b"r" * 8192), submission(2)])
        with closing(sqlite3.connect(tmp_path / "db")) as db:
            assert db.execute("SELECT msg_id, part, length(data) FROM payloads").fetchall() == [
                (tid(1), 0, 9000)
            ]
            rows = db.execute("SELECT length(payload), length(data) FROM tasks").fetchall()
            assert rows == [(None, 8192), (9, None)]
        store.apply([end(2)])
        store.purge()
        with closing(sqlite3.connect(tmp_path / "db")) as db:
            assert db.execute("SELECT count(*) FROM payloads").fetchone() == (0,)


def test_what_comes_again_does_not_change_a_payload(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        for size in (20_000, 10, 30_000, 20_000):
            fill = bytes([size % 251])
            store.apply([submission(1, data=fill * size), end(1, data=fill * size)])
        (record,) = store.result([tid(1)])
        assert record["payload"] == record["data"] == bytes([20_000 % 251]) * 20_000


def test_a_file_shrinks_when_much_is_forgotten(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        for number in range(50):
            store.apply([submission(number), end(number, data=b"r" * 100_000)])
        while store.cull(Limits(size_bytes=1_000_000), 0.0):
            pass
        kept = len(store.history())
        assert 5 <= kept <= 10
    assert (tmp_path / "db").stat().st_size < 1_500_000


def test_how_many_tasks_there_are_is_counted_again_when_others_delete_some(
    tmp_path: Path,
) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        for number in range(20):
            store.apply([submission(number), end(number)])
        assert store.cull(Limits(task_count=15), 0.0) == 5
        with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
            db.execute("DELETE FROM tasks WHERE rowid > 15")
        store.apply([submission(30), end(30)])
        assert store.cull(Limits(task_count=10), 0.0) == 1
        assert store.cull(Limits(task_count=10), 0.0) == 0
        store.purge()
        store.apply([submission(31), end(31)])
        assert store.cull(Limits(task_count=1), 0.0) == 0


def test_looking_for_what_to_forget_or_restore_uses_an_index(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "db")) as store:
        store.apply([submission(1), end(1)])
        db = store._connected()
        plans: list[str] = []
        db.set_trace_callback(plans.append)
        store.cull(Limits(age_s=1e9, task_count=10, size_bytes=10**9), 0.0)
        store.pending(0, 1000)
        db.set_trace_callback(None)
        for plan in plans:
            steps = db.execute(f"EXPLAIN QUERY PLAN {plan}").fetchall()
            assert not any(step[3] == "SCAN tasks" for step in steps), plan
