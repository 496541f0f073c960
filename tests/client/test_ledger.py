from __future__ import annotations

import gc

from parallelz.client.ledger import Ledger, Submission
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    EngineInfo,
    EngineJoined,
    EngineLeft,
    PeerInfo,
    TaskEnded,
    Welcome,
)

ME = SessionId("me-too")


def ended(number: int) -> TaskEnded:
    return TaskEnded(TaskId(f"{ME}-{number}"), "ok", EngineId(0))


def engine(number: int) -> EngineInfo:
    return EngineInfo(EngineId(number), SessionId(f"e{number}"), PeerInfo("h", "h", 1))


def test_an_answer_finds_its_submission_and_nothing_is_left_in_the_ledger() -> None:
    ledger = Ledger(ME)
    submission = Submission(ME, 5, 3, 0.0)
    ledger.expect(submission)
    for number in (6, 5, 7):
        ledger.end(ended(number), ())
    assert submission.pending_count == 0
    assert ledger.outstanding() == set()


def test_a_second_answer_and_one_for_nobody_change_nothing() -> None:
    ledger = Ledger(ME)
    submission = Submission(ME, 0, 2, 0.0)
    ledger.expect(submission)
    ledger.end(ended(0), ())
    ledger.end(ended(0), ())
    ledger.end(ended(99), ())
    assert submission.pending_count == 1


def test_ended_tasks_are_found_as_long_as_somebody_holds_their_result() -> None:
    ledger = Ledger(ME)
    submission = Submission(ME, 0, 2, 0.0)
    ledger.expect(submission)
    ledger.end(ended(0), ())
    ledger.end(ended(1), ())
    assert ledger.find(TaskId(f"{ME}-1")) == (submission, 1)
    assert ledger.find(TaskId(f"{ME}-2")) is None
    assert ledger.find(TaskId("other-1")) is None
    del submission
    gc.collect()
    assert ledger.find(TaskId(f"{ME}-1")) is None


def test_ended_submissions_are_swept_out() -> None:
    ledger = Ledger(ME)
    for number in range(10_000):
        ledger.expect(Submission(ME, number, 1, 0.0))
        ledger.end(ended(number), ())
    assert len(ledger._remembered) < 5_000


def test_engines_are_sorted_and_the_cause_of_their_end_is_kept() -> None:
    ledger = Ledger(ME)
    ledger.handle(EngineJoined(engine(2)), ())
    ledger.handle(EngineJoined(engine(0)), ())
    ledger.handle(EngineLeft(EngineId(2), "killed"), ())
    assert list(ledger.engines) == [0]
    assert ledger.causes == {2: "killed"}
    assert ledger.past_engines == {2: engine(2)}


def test_a_welcome_says_who_is_there_and_who_came_back() -> None:
    ledger = Ledger(ME)
    ledger.welcome(Welcome("a", 0, engines=[engine(0)]), is_control=True)
    ledger.welcome(Welcome("b", 0, engines=[engine(1)]), is_control=True)
    assert list(ledger.engines) == [1]
    assert 0 in ledger.causes
    ledger.welcome(Welcome("b", 0, engines=[engine(0), engine(1)]), is_control=True)
    assert list(ledger.engines) == [0, 1]
    assert 0 not in ledger.causes
    assert ledger.welcomed == {"bulk": "", "control": "b"}
