from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from helpers_store import E0, end, submission, tid

from parallelz.protocol.messages import AskHistory, Reply, StoreRecords
from parallelz.store.interface import Store, StoreError
from parallelz.store.memory import MemoryStore
from parallelz.store.record import Record, encode
from parallelz.store.recorder import REOPEN_PERIOD_S, Recorder
from parallelz.store.sqlite import SqliteStore

Question = Literal["query", "history", "result", "status", "purge"]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder(MemoryStore)
    yield made
    made.close()


def told(*records: Record) -> StoreRecords:
    return StoreRecords([encode(record) for record in records])


def ask(question: Question, **asked: object) -> AskHistory:
    return AskHistory(7, question, msgspec.msgpack.encode(asked))


def answer(recorder: Recorder, question: Question, **asked: object) -> Any:
    ((reply, _),) = recorder.handle([ask(question, **asked)], 0.0)
    assert reply.request_id == 7
    assert reply.error is None
    return msgspec.msgpack.decode(reply.data)


def refusal(recorder: Recorder, message: AskHistory, now_s: float = 0.0) -> tuple[str, str]:
    ((reply, _),) = recorder.handle([message], now_s)
    assert reply.error is not None
    return reply.error.ename, reply.error.evalue


def test_a_question_is_answered_after_what_came_before_it(recorder: Recorder) -> None:
    replies = recorder.handle(
        [told(submission(1)), ask("history"), told(submission(2)), ask("history")], 0.0
    )
    assert [msgspec.msgpack.decode(reply.data) for reply, _ in replies] == [
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


def test_a_record_that_cannot_be_read_is_lost_alone(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    bad = msgspec.Raw(msgspec.msgpack.encode(["NoSuchRecord"]))
    recorder.handle([StoreRecords([bad, encode(submission(1))])], 0.0)
    assert answer(recorder, "history") == [tid(1)]
    assert "cannot be read" in caplog.text


def test_a_database_that_fails_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    recorder = Recorder(lambda: SqliteStore(tmp_path / "later" / "db"))
    recorder.handle([told(submission(1))], 0.0)
    recorder.handle([told(submission(2))], 1.0)
    ename, evalue = refusal(recorder, ask("history"), 2.0)
    assert ename == "StoreError"
    assert "later" in evalue
    assert "2 records were lost" in evalue
    assert caplog.text.count("!") == 1

    (tmp_path / "later").mkdir()
    replies = recorder.handle([told(submission(3)), ask("history")], REOPEN_PERIOD_S + 1.0)
    assert replies == [(Reply(7, msgspec.msgpack.encode([tid(3)])), ())]
    assert "works again; 2 records were lost" in caplog.text
    recorder.close()


def test_a_question_is_enough_to_see_that_the_database_works_again(tmp_path: Path) -> None:
    def open_store() -> Store:
        if not is_mended:
            raise StoreError("the disk is full")
        return SqliteStore(tmp_path / "db")

    is_mended = False
    recorder = Recorder(open_store)
    assert refusal(recorder, ask("history")) == (
        "StoreError",
        "the disk is full; 0 records were lost",
    )
    is_mended = True
    ((reply, _),) = recorder.handle([ask("history")], REOPEN_PERIOD_S)
    assert reply.error is None
    recorder.close()
