from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pytest
from helpers_store import (
    E0,
    ME,
    RUN,
    F,
    direct_submission,
    end,
    engine_record,
    submission,
    tid,
)

from parallelz.ids import Digest
from parallelz.protocol.messages import (
    AskHistory,
    Reply,
    StoreRecords,
    StoreTrouble,
    TaskOptions,
)
from parallelz.store.interface import DamageError, Limits, RecordError, Run, Store, StoreError
from parallelz.store.memory import MemoryStore
from parallelz.store.record import FunctionRecord, Record, encode
from parallelz.store.recorder import RETRY_PERIOD_S, Answer, Recorder
from parallelz.store.restored import (
    Ends,
    FindEnds,
    NameFunctions,
    Restored,
    RestoredFunction,
    RestoreTasks,
)
from parallelz.store.sqlite import SqliteStore

T = TypeVar("T")
Question = Literal[
    "query", "history", "result", "status", "purge", "functions", "ends", "restore"
]


class FailingStore(MemoryStore):
    """A store whose database can be made to fail."""

    trouble: StoreError | None = None
    culled = 0

    def apply(self, records: Sequence[Record]) -> None:
        if self.trouble is not None:
            raise self.trouble
        if any("unwritable" in str(record) for record in records):
            raise RecordError("too big")
        super().apply(records)

    def end_run(self, now_s: float) -> int:
        if self.trouble is not None:
            raise self.trouble
        return super().end_run(now_s)

    def cull(self, limits: Limits, now_s: float) -> int:
        self.culled += 1
        return super().cull(limits, now_s)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder(MemoryStore, RUN)
    yield made
    made.close()


def told(*records: Record) -> StoreRecords:
    return StoreRecords([encode(record) for record in records])


def ask(question: Question, **asked: object) -> AskHistory:
    return AskHistory(7, question, msgspec.msgpack.encode(asked))


def answer(recorder: Recorder, question: Question, **asked: object) -> Any:
    ((reply, _),) = recorder.handle([ask(question, **asked)], 0.0)
    assert isinstance(reply, Reply)
    assert reply.request_id == 7
    assert reply.error is None
    return msgspec.msgpack.decode(reply.data)


def answered(recorder: Recorder, question: Question, asked: object, kind: type[T]) -> T:
    message = AskHistory(7, question, msgspec.msgpack.encode(asked))
    ((reply, buffers),) = recorder.handle([message], 0.0)
    assert isinstance(reply, Reply)
    assert reply.error is None
    return msgspec.msgpack.decode(buffers[0] if buffers else reply.data, type=kind)


def refusal(recorder: Recorder, message: AskHistory, now_s: float = 0.0) -> tuple[str, str]:
    ((reply, _),) = recorder.handle([message], now_s)
    assert isinstance(reply, Reply)
    assert reply.error is not None
    return reply.error.ename, reply.error.evalue


def test_a_question_is_answered_after_what_came_before_it(recorder: Recorder) -> None:
    replies = recorder.handle(
        [told(submission(1)), ask("history"), told(submission(2)), ask("history")], 0.0
    )
    assert [msgspec.msgpack.decode(reply.data) for reply, _ in replies] == [  # type: ignore[union-attr]
        [tid(1)],
        [tid(1), tid(2)],
    ]


def test_every_question_has_its_answer(recorder: Recorder) -> None:
    recorder.handle([told(submission(1), end(1), submission(2))], 0.0)
    assert answer(recorder, "query", query={"status": "ok"}, keys=["label"]) == [
        {"msg_id": tid(1), "label": ""}
    ]
    assert answer(recorder, "query", order=["-submitted"], limit=1, keys=[]) == [
        {"msg_id": tid(2)}
    ]
    assert answer(recorder, "history") == [tid(1), tid(2)]
    assert answer(recorder, "result", task_ids=[tid(1)])[0]["data"] == b"result"
    assert answer(recorder, "status", task_ids=[tid(2), tid(3)]) == {tid(2): "pending"}
    assert answer(recorder, "purge") == {"count": 1, "pending": []}


def test_a_large_answer_is_a_frame_of_its_own(recorder: Recorder) -> None:
    recorder.handle([told(submission(1), end(1, data=b"x" * 100_000))], 0.0)
    ((reply, buffers),) = recorder.handle([ask("result", task_ids=[tid(1)])], 0.0)
    assert reply == Reply(7, frame_count=1)
    assert msgspec.msgpack.decode(buffers[0])[0]["data"] == b"x" * 100_000


def test_datetimes_survive_the_way(recorder: Recorder) -> None:
    recorder.handle([told(submission(1), submission(2, submitted_s=100.0))], 0.0)
    then = datetime.fromtimestamp(50.0, UTC)
    assert answer(recorder, "query", query={"submitted": {"$gt": then}}, keys=[]) == [
        {"msg_id": tid(2)}
    ]


def test_nothing_is_purged_if_a_named_task_has_not_ended(recorder: Recorder) -> None:
    recorder.handle([told(submission(1), end(1), submission(2))], 0.0)
    ids = [tid(1), tid(2)]
    assert answer(recorder, "purge", task_ids=ids) == {"count": 0, "pending": [tid(2)]}
    assert answer(recorder, "history") == ids
    assert answer(recorder, "purge", engine_uuids=[E0]) == {"count": 1, "pending": []}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ask("query", query={"colour": 1}), "unknown key 'colour'"),
        (ask("query", keys=["colour"]), "unknown key 'colour'"),
        (ask("query", colour=1), "unknown field `colour`"),
        (ask("result"), "missing required field `task_ids`"),
        (AskHistory(7, "history", b"\xc1garbage"), "invalid"),
    ],
)
def test_a_bad_question_gets_an_error_and_harms_nobody(
    recorder: Recorder, message: AskHistory, reason: str
) -> None:
    ename, evalue = refusal(recorder, message)
    assert ename == "QueryError"
    assert reason in evalue
    assert answer(recorder, "history") == []


def troubles(answers: list[Answer]) -> list[StoreTrouble]:
    return [answer for answer, _ in answers if isinstance(answer, StoreTrouble)]


# -- what a new controller asks for -------------------------------------------------------


def test_what_has_not_ended_is_told_page_by_page(recorder: Recorder) -> None:
    options = TaskOptions(label="night", retries=2)
    recorder.handle(
        [
            told(FunctionRecord(F, "f", b"code", msgspec.msgpack.encode([b"frame"]))),
            told(engine_record(), submission(1, options=options, buffers=(b"one", b"two"))),
            told(submission(2), end(2), direct_submission(3, [5], data=b"x" * 2_000_000)),
        ],
        0.0,
    )
    page = answered(recorder, "restore", RestoreTasks(bytes_max=1), Restored)
    (task,) = page.tasks
    assert (task.task_id, task.client, task.digest, task.submitted_s) == (tid(1), ME, F, 1.0)
    assert (task.label, task.options, task.engine_id) == ("night", options, None)
    assert (task.data, task.frames, task.is_whole) == (b"arguments", [b"one", b"two"], True)
    assert page.functions == [RestoredFunction(F, "f", b"code", [b"frame"])]
    assert [engine.session_id for engine in page.engines] == [E0]
    assert page.engine_count == 1
    page = answered(recorder, "restore", RestoreTasks(after=page.next), Restored)
    (task,) = page.tasks
    assert (task.task_id, task.engine_id, task.is_whole) == (tid(3), 5, False)
    assert (page.next, page.engines) == (0, [])


def test_functions_and_ends_are_told(recorder: Recorder) -> None:
    recorder.handle([told(FunctionRecord(F, "f", b"code"), submission(1), submission(2))], 0.0)
    recorder.handle([told(end(1))], 0.0)
    wanted = NameFunctions([F, Digest(b"?")])
    functions = answered(recorder, "functions", wanted, list[RestoredFunction])
    assert functions == [RestoredFunction(F, "f", b"code", [])]
    ends = answered(recorder, "ends", FindEnds([tid(1), tid(2), tid(3)]), Ends)
    assert (ends.looked_up_count, ends.pending) == (3, [tid(2)])
    assert [record["data"] for record in ends.ended] == [b"result"]


def test_what_has_not_ended_when_the_cluster_stops_is_lost(recorder: Recorder) -> None:
    recorder.handle([told(submission(1))], 0.0)
    recorder.finish()
    assert answer(recorder, "status", task_ids=[tid(1)]) == {tid(1): "lost"}


# -- trouble ------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read_is_lost_alone(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    bad = msgspec.Raw(msgspec.msgpack.encode(["NoSuchRecord"]))
    answers = recorder.handle([StoreRecords([bad, encode(submission(1))])], 0.0)
    assert [trouble.lost_count for trouble in troubles(answers)] == [0, 1]
    assert "NoSuchRecord" in troubles(answers)[0].text
    assert answer(recorder, "history") == [tid(1)]
    assert not recorder.is_behind
    assert caplog.text.count("cannot be written") == 1


def test_records_that_cannot_be_written_are_lost_alone() -> None:
    recorder = Recorder(FailingStore, RUN)
    names = ["f", "unwritable", "g", "unwritable", "h"]
    batch = told(*(submission(number, name=name) for number, name in enumerate(names)))
    begin, over = troubles(recorder.handle([batch], 0.0))
    assert "too big" in begin.text
    assert over == StoreTrouble("", 2)
    assert answer(recorder, "history") == [tid(0), tid(2), tid(4)]
    assert not recorder.is_behind


def test_what_a_failing_database_cannot_take_is_kept_and_written_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN)
    store.trouble = StoreError("the disk is full")
    first = recorder.handle([told(submission(1)), told(end(1))], 0.0)
    assert troubles(first) == [StoreTrouble("the disk is full", 0)]
    assert recorder.is_behind
    assert recorder.next_deadline_s() == RETRY_PERIOD_S
    assert refusal(recorder, ask("history"), 0.5) == ("StoreError", "the disk is full")
    assert recorder.handle([told(submission(2))], RETRY_PERIOD_S) == []
    assert caplog.text.count("the disk is full") == 1

    store.trouble = None
    assert recorder.handle([told(submission(3))], 1.5 * RETRY_PERIOD_S) == []
    assert recorder.is_behind
    assert recorder.handle([], 2 * RETRY_PERIOD_S) == [(StoreTrouble("", 0), ())]
    assert not recorder.is_behind
    assert answer(recorder, "history") == [tid(1), tid(2), tid(3)]
    assert answer(recorder, "status", task_ids=[tid(1)]) == {tid(1): "ok"}


def test_what_was_lost_during_trouble_is_counted_once() -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN)
    store.trouble = StoreError("locked")
    bad = msgspec.Raw(b"\xc1")
    recorder.handle([StoreRecords([bad, encode(submission(1, name="unwritable"))])], 0.0)
    recorder.handle([], RETRY_PERIOD_S)
    store.trouble = None
    assert recorder.handle([], 2 * RETRY_PERIOD_S) == [(StoreTrouble("", 2), ())]


def test_a_damaged_database_is_begun_anew_at_once() -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN)
    store.trouble = DamageError("malformed")
    recorder.handle([told(submission(1))], 5.0)
    assert recorder.next_deadline_s() == 5.0
    store.trouble = None
    assert recorder.handle([], 5.0) == [(StoreTrouble("", 0), ())]
    assert answer(recorder, "history") == [tid(1)]


def test_a_database_that_is_not_there_at_first_is_opened_later(tmp_path: Path) -> None:
    recorder = Recorder(lambda: SqliteStore(tmp_path / "later" / "db"), RUN)
    (begin,) = troubles(recorder.handle([told(submission(1))], 0.0))
    assert "later" in begin.text
    (tmp_path / "later").mkdir()
    (reply, _), (over, _) = sorted(
        recorder.handle([ask("history")], RETRY_PERIOD_S), key=lambda item: str(item)
    )
    assert reply == Reply(7, msgspec.msgpack.encode([tid(1)]))
    assert over == StoreTrouble("", 0)
    recorder.close()


def test_a_store_in_which_the_run_cannot_begin_is_closed(tmp_path: Path) -> None:
    class Unready(SqliteStore):
        def begin_run(self, run: Run, now_s: float) -> int:
            raise StoreError("locked")

    opened: list[Unready] = []

    def open_store() -> Store:
        opened.append(Unready(tmp_path / "db"))
        return opened[-1]

    recorder = Recorder(open_store, RUN)
    assert troubles(recorder.handle([told(submission(1))], 0.0)) == [StoreTrouble("locked", 0)]
    assert not (tmp_path / "db-wal").exists()  # as of one that is open


def test_a_cluster_stops_even_if_the_database_fails(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN)
    recorder.handle([told(submission(1))], 0.0)
    store.trouble = StoreError("locked")
    recorder.finish()
    assert "still called pending" in caplog.text


# -- limits -------------------------------------------------------------------------------


def test_limits_are_looked_at_now_and_then_and_at_once_if_there_is_more() -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN, Limits(task_count=1), lambda: 0.0)
    recorder.handle([told(submission(1), end(1), submission(2), end(2))], 0.0)
    assert recorder.next_deadline_s() == 0.0
    recorder.handle([], 0.0)
    assert store.culled == 2
    assert recorder.next_deadline_s() > 1.0
    recorder.handle([told(submission(3))], 1.0)
    assert store.culled == 2
    assert answer(recorder, "history") == [tid(2), tid(3)]


def test_without_limits_nothing_is_looked_at() -> None:
    store = FailingStore()
    recorder = Recorder(lambda: store, RUN)
    recorder.handle([told(submission(1))], 0.0)
    assert (store.culled, recorder.next_deadline_s()) == (0, float("inf"))
