"""What becomes of records when the file is locked, full, damaged or gone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from helpers_store import RUN, end, submission, tid

from parallelz.protocol.messages import StoreRecords, StoreTrouble
from parallelz.store import sqlite
from parallelz.store.interface import DamageError, StoreError
from parallelz.store.record import Record, encode
from parallelz.store.recorder import RETRY_PERIOD_S, Recorder
from parallelz.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.0)
    return tmp_path / "db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    made = Recorder(lambda: SqliteStore(path), RUN)
    yield made
    made.close()


def tell(recorder: Recorder, now_s: float, *records: Record) -> list[StoreTrouble]:
    """Have records written, and return what is said of trouble."""
    answers = recorder.handle([StoreRecords([encode(record) for record in records])], now_s)
    return [answer for answer, _ in answers if isinstance(answer, StoreTrouble)]


def history(path: Path) -> list[str]:
    with closing(SqliteStore(path)) as store:
        return store.history()


def damaged(path: Path) -> list[Path]:
    return [
        p for p in path.parent.glob("db.damaged-*") if not p.name.endswith(("-wal", "-shm"))
    ]


# -- locked -------------------------------------------------------------------------------


def test_a_locked_file_is_an_error_and_changes_nothing(path: Path) -> None:
    with (
        closing(SqliteStore(path)) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.apply([submission(1)])
        other.execute("ROLLBACK")
        assert store.history() == []


@pytest.mark.parametrize("is_new", [True, False])
def test_nothing_is_lost_while_another_process_locks_the_file(
    path: Path, recorder: Recorder, is_new: bool
) -> None:
    if is_new:
        SqliteStore(path).close()
    else:
        assert tell(recorder, 0.0, submission(1)) == []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        (begin,) = tell(recorder, 1.0, submission(2), end(2))
        assert "locked" in begin.text
        assert tell(recorder, 1.0 + RETRY_PERIOD_S, submission(3)) == []
    assert tell(recorder, 1.0 + 2 * RETRY_PERIOD_S) == [StoreTrouble("", 0)]
    recorder.close()
    assert history(path) == [tid(n) for n in ([2, 3] if is_new else [1, 2, 3])]


# -- full ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the directory of a file system with little room."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_nothing_is_lost_while_the_disk_is_full(small_disk: Path) -> None:
    path = small_disk / "db"
    recorder = Recorder(lambda: SqliteStore(path), RUN)
    number, said = 0, list[StoreTrouble]()
    while not said:
        said = tell(recorder, 0.0, submission(number, data=b"x" * 50_000), end(number))
        number += 1
    assert "full" in said[0].text
    assert recorder.is_behind
    assert tell(recorder, RETRY_PERIOD_S, submission(number), end(number)) == []
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert tell(recorder, 2 * RETRY_PERIOD_S) == [StoreTrouble("", 0)]
    recorder.close()
    with closing(SqliteStore(path)) as store:
        ids = [tid(n) for n in range(number + 1)]
        assert store.status(ids) == dict.fromkeys(ids, "ok")


def test_a_disk_that_is_full_at_the_start_is_waited_for(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(b"x" * 2 * 1024 * 1024)
    recorder = Recorder(lambda: SqliteStore(small_disk / "db"), RUN)
    assert len(tell(recorder, 0.0, submission(1))) == 1
    filler.unlink()
    assert tell(recorder, RETRY_PERIOD_S) == [StoreTrouble("", 0)]
    recorder.close()
    assert history(small_disk / "db") == [tid(1)]


# -- damaged ------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_moved_aside(path: Path, recorder: Recorder) -> None:
    letter = b"This is a letter to my mother. " * 100
    path.write_bytes(letter)
    (begin,) = tell(recorder, 0.0, submission(1))
    assert "not a database" in begin.text
    (aside,) = damaged(path)
    assert str(aside) in begin.text
    assert aside.read_bytes() == letter
    assert tell(recorder, 0.0) == [StoreTrouble("", 0)]
    recorder.close()
    assert history(path) == [tid(1)]


def wreck(path: Path, first: int = 4096) -> None:
    """Write over a database but for its first bytes."""
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\xff" * (path.stat().st_size - first))


def test_damage_that_shows_when_it_is_written_moves_the_file_aside(
    path: Path, recorder: Recorder
) -> None:
    with closing(SqliteStore(path)) as store:
        for number in range(100):
            store.apply([submission(number), end(number)])
    wreck(path)
    said = tell(recorder, 0.0, submission(200))
    assert "malformed" in said[0].text
    said = [*said[1:], *tell(recorder, 0.0)]
    assert said == [StoreTrouble("", 0)]
    recorder.close()
    assert history(path) == [tid(200)]
    assert len(damaged(path)) == 1


def test_damage_that_shows_when_it_is_read_moves_the_file_aside(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.begin_run(RUN, 0.0)
        for number in range(100):
            store.apply([submission(number), end(number)])
    wreck(path, path.stat().st_size // 8192 * 4096)
    with closing(SqliteStore(path)) as store:
        with pytest.raises(DamageError, match="new one"):
            store.history()
        assert store.history() == []


def test_a_second_damaged_file_does_not_replace_the_first(path: Path) -> None:
    for number in range(3):
        path.write_bytes(b"letter %d" % number * 1000)
        with pytest.raises(DamageError):
            SqliteStore(path)
    assert sorted(p.read_bytes()[:8] for p in damaged(path)) == [
        b"letter 0",
        b"letter 1",
        b"letter 2",
    ]


# -- gone ---------------------------------------------------------------------------------


def test_a_file_that_was_deleted_is_begun_anew(path: Path, recorder: Recorder) -> None:
    assert tell(recorder, 0.0, submission(1)) == []
    path.unlink()
    (begin,) = tell(recorder, 1.0, submission(2))
    assert "deleted or replaced" in begin.text
    assert tell(recorder, 1.0, submission(3)) == [StoreTrouble("", 0)]
    recorder.close()
    assert history(path) == [tid(2), tid(3)]
    assert damaged(path) == []


def test_a_file_that_was_replaced_is_gone_on_with(path: Path, recorder: Recorder) -> None:
    assert tell(recorder, 0.0, submission(1)) == []
    with closing(SqliteStore(path.with_name("backup"))) as store:
        store.apply([submission(7)])
    os.replace(path.with_name("backup"), path)
    tell(recorder, 1.0, submission(2))
    tell(recorder, 1.0)
    recorder.close()
    assert set(history(path)) == {tid(7), tid(2)}


def test_a_file_that_is_deleted_while_it_is_written_is_noticed(path: Path) -> None:
    def delete(statement: str) -> None:
        if statement == "COMMIT":
            path.unlink()

    with closing(SqliteStore(path)) as store:
        store.begin_run(RUN, 0.0)
        store._connected().set_trace_callback(delete)
        with pytest.raises(DamageError):
            store.apply([submission(1)])
        store.apply([submission(1)])
        assert [task["msg_id"] for task in store.pending(0, 1000)[0]] == [tid(1)]
    assert history(path) == [tid(1)]


def test_a_directory_that_was_away_for_a_while_loses_nothing(
    path: Path, recorder: Recorder
) -> None:
    tell(recorder, 0.0, submission(1))
    away = path.parent.with_name("away")
    path.parent.rename(away)
    assert len(tell(recorder, 1.0, submission(2))) == 1
    assert tell(recorder, 1.0 + RETRY_PERIOD_S, submission(3)) == []
    away.rename(path.parent)
    assert tell(recorder, 1.0 + 2 * RETRY_PERIOD_S) == [StoreTrouble("", 0)]
    recorder.close()
    assert history(path) == [tid(1), tid(2), tid(3)]


def test_a_file_that_became_unusable_for_a_while_is_opened_again(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.begin_run(RUN, 0.0)
        store.apply([submission(1)])
        with closing(sqlite3.connect(path)) as other:
            other.execute("ALTER TABLE tasks RENAME TO hidden")
            with pytest.raises(StoreError, match="tasks"):
                store.apply([submission(2)])
            other.execute("ALTER TABLE hidden RENAME TO tasks")
        store.apply([submission(2)])
        assert store.history() == [tid(1), tid(2)]
