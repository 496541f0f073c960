"""Records are safe in the journal of an SQLite file before they are rows."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from helpers_queries import batches
from helpers_store import RUN, end, submission, tid
from hypothesis import given
from hypothesis import strategies as st

from parallelz.protocol.messages import AskHistory, Reply, StoreRecords, StoreTrouble
from parallelz.store.folding import AGE_S, ENTRY_BYTES_MAX, QUIET_S
from parallelz.store.interface import Journaled, RecordError, Run
from parallelz.store.memory import MemoryStore
from parallelz.store.record import EndRecord, Record, encode
from parallelz.store.recorder import Recorder
from parallelz.store.sqlite import SqliteStore

LATER = Run("second", "cluster")
UNREADABLE = msgspec.Raw(msgspec.msgpack.encode("no record"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    made = opened(path)
    yield made
    made.close()


def opened(path: Path, run: Run = RUN) -> Recorder:
    return Recorder(lambda: SqliteStore(path), run)


def tell(recorder: Recorder, now_s: float, *records: Record) -> None:
    assert recorder.handle([StoreRecords([encode(record) for record in records])], now_s) == []


def everything(recorder: Recorder) -> Any:
    message = AskHistory(1, "query", msgspec.msgpack.encode({"keys": ["status", "name"]}))
    ((reply, buffers),) = recorder.handle([message], 0.0)
    assert isinstance(reply, Reply)
    assert reply.error is None
    return msgspec.msgpack.decode(buffers[0] if buffers else reply.data)


def rows(path: Path) -> list[str]:
    """Return the status of each task, as another program sees it."""
    with closing(sqlite3.connect(path)) as db:
        return [status for (status,) in db.execute("SELECT status FROM tasks ORDER BY rowid")]


def test_records_become_rows_when_nothing_more_comes(path: Path, recorder: Recorder) -> None:
    tell(recorder, 1.0, submission(1))
    tell(recorder, 1.0 + QUIET_S / 2, end(1))
    assert rows(path) == []
    assert recorder.next_deadline_s() == 1.0 + QUIET_S / 2 + QUIET_S
    recorder.handle([], recorder.next_deadline_s())
    assert rows(path) == ["ok"]
    assert recorder.next_deadline_s() == float("inf")


def test_records_become_rows_even_if_more_comes_all_the_time(
    path: Path, recorder: Recorder
) -> None:
    for step in range(5):
        tell(recorder, step * AGE_S / 4, submission(step))
    assert rows(path) == ["pending"] * 5


def test_a_question_finds_what_is_in_the_journal(recorder: Recorder) -> None:
    tell(recorder, 1.0, submission(1))
    tell(recorder, 1.0, end(1), submission(2))
    assert [task["status"] for task in everything(recorder)] == ["ok", "pending"]


def test_a_recorder_that_was_killed_loses_nothing(path: Path, recorder: Recorder) -> None:
    tell(recorder, 1.0, submission(1), submission(2))
    tell(recorder, 1.0, end(1))
    assert rows(path) == []
    after = opened(path)  # the one before is not closed: it is as if it were killed
    assert [task["status"] for task in everything(after)] == ["ok", "pending"]
    after.close()


def test_what_an_earlier_run_left_in_the_journal_was_lost_with_it(
    path: Path, recorder: Recorder
) -> None:
    tell(recorder, 1.0, submission(1), submission(2))
    tell(recorder, 1.0, end(1))
    after = opened(path, LATER)
    tell(after, 2.0, submission(3))
    assert [task["status"] for task in everything(after)] == ["ok", "lost", "pending"]
    after.close()


def test_a_stop_ends_what_is_in_the_journal(path: Path, recorder: Recorder) -> None:
    tell(recorder, 1.0, submission(1), submission(2))
    tell(recorder, 1.0, end(1))
    recorder.finish()
    assert rows(path) == ["ok", "lost"]


def test_what_is_large_is_written_once_and_after_what_came_before(
    path: Path, recorder: Recorder
) -> None:
    tell(recorder, 1.0, submission(1))
    tell(recorder, 1.0, end(1, data=b"x" * (ENTRY_BYTES_MAX - 500), buffers=(b"y" * 500,)))
    assert rows(path) == ["ok"]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (0,)


class PickyStore(SqliteStore):
    """A store that cannot hold some functions' names."""

    def fold(self, journaled: Journaled, records: Sequence[Record]) -> None:
        if any("unwritable" in str(record) for record in records):
            raise RecordError("too big")
        super().fold(journaled, records)


def test_a_record_that_cannot_be_read_or_written_costs_no_other(path: Path) -> None:
    recorder = Recorder(lambda: PickyStore(path), RUN)
    unwritable = submission(2, name="unwritable")
    records = [encode(each) for each in (submission(1), unwritable, end(1), submission(3))]
    assert recorder.handle([StoreRecords([UNREADABLE, *records])], 1.0) == []
    (began, _), (over, _) = recorder.handle([], 1.0 + QUIET_S)
    assert isinstance(began, StoreTrouble)
    assert over == StoreTrouble("", 2)
    assert [task["msg_id"] for task in everything(recorder)] == [tid(1), tid(3)]
    recorder.close()


def test_an_entry_that_cannot_be_read_costs_no_other(path: Path, recorder: Recorder) -> None:
    tell(recorder, 1.0, submission(1))
    tell(recorder, 1.0, submission(2))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE journal SET data = x'c1' WHERE number = 1")
    _, (over, _) = recorder.handle([], 1.0 + QUIET_S)
    assert over == StoreTrouble("", 1)
    assert [task["msg_id"] for task in everything(recorder)] == [tid(2)]


def test_a_store_without_a_journal_says_so() -> None:
    store = MemoryStore()
    assert not store.has_journal
    assert store.journaled(1) is None
    with pytest.raises(NotImplementedError, match="MemoryStore has no journal"):
        store.append([])


def test_the_first_end_counts_also_if_the_submission_comes_between(
    recorder: Recorder,
) -> None:
    tell(recorder, 1.0, submission(1))
    everything(recorder)  # so it is a row
    tell(recorder, 2.0, end(1))
    tell(recorder, 2.0, submission(1))
    tell(recorder, 2.0, end(1, status="error"))
    assert [task["status"] for task in everything(recorder)] == ["ok"]


@given(st.lists(st.tuples(batches(), st.floats(0.0, AGE_S), st.booleans()), max_size=8))
def test_however_the_journal_is_folded_the_same_is_found(
    told: list[tuple[list[Record], float, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        journaling = opened(Path(directory) / "db")
        plain = Recorder(MemoryStore, RUN)
        now_s = 0.0
        for batch, pause_s, asks in told:
            now_s += pause_s
            for recorder in (journaling, plain):
                tell(recorder, now_s, *(r for r in batch if not isinstance(r, EndRecord)))
            # What is submitted after its end is another matter: that depends on the batch.
            known = {task["msg_id"] for task in everything(plain)}
            ends = [r for r in batch if isinstance(r, EndRecord) and r.message.task_id in known]
            for recorder in (journaling, plain):
                tell(recorder, now_s, *ends)
            if asks:
                assert everything(journaling) == everything(plain)
        assert everything(journaling) == everything(plain)
        journaling.close()
