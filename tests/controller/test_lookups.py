"""What nobody knows is impossible, unless it may be on its way from a client that is here."""

from __future__ import annotations

import pytest

from parallelz.controller.lookups import ASK_AGAIN_PERIOD_S, ON_ITS_WAY_S, LookUps
from parallelz.controller.recording import Recording
from parallelz.controller.sessions import UNKNOWN_PEER, Session, Sessions
from parallelz.core.events import EndsFound, LookUpTasks
from parallelz.core.scheduler import Scheduler
from parallelz.ids import Digest, SessionId, TaskId
from parallelz.protocol.messages import Dependency, SubmitTask, TaskOptions
from parallelz.transport.security import ClusterSecrets

ME, YOU = SessionId("me"), SessionId("you")
YOURS = TaskId("you-3")


class Play:
    """A client that depends on a task of another one, which is here. There is no history."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.sessions = Sessions(ClusterSecrets("", [], "", {}), "controller")
        self.sessions.by_id[YOU] = Session(YOU, "client", UNKNOWN_PEER, "")
        self.told: list[EndsFound] = []
        self.lookups = LookUps(
            self.scheduler,
            self.sessions,
            Recording(None),
            lambda found, now_s: self.told.append(found),
        )
        options = TaskOptions(Dependency([YOURS]))
        submission = SubmitTask(TaskId("me-0"), Digest(b"f"), 0.0, options=options)
        actions = self.scheduler.handle(submission, ME, 0.0)
        assert actions[0] == LookUpTasks([YOURS])


@pytest.fixture
def play() -> Play:
    return Play()


def test_a_task_of_a_client_that_is_here_is_waited_for(play: Play) -> None:
    assert play.lookups.ask([YOURS], 0.0) is None
    assert play.lookups.next_deadline_s() == ASK_AGAIN_PERIOD_S
    play.lookups.see_to_timers(ASK_AGAIN_PERIOD_S)
    assert play.told == []
    play.lookups.see_to_timers(ON_ITS_WAY_S)
    assert [found.task_ids for found in play.told] == [[YOURS]]
    assert play.lookups.next_deadline_s() is None


def test_it_is_not_waited_for_once_that_client_has_left(play: Play) -> None:
    assert play.lookups.ask([YOURS], 0.0) is None
    del play.sessions.by_id[YOU]
    play.lookups.see_to_timers(ASK_AGAIN_PERIOD_S)
    assert [found.task_ids for found in play.told] == [[YOURS]]


def test_once_it_has_come_nothing_is_asked_any_more(play: Play) -> None:
    assert play.lookups.ask([YOURS], 0.0) is None
    play.scheduler.handle(SubmitTask(YOURS, Digest(b"f"), 0.0), YOU, 0.5)
    play.lookups.see_to_timers(ASK_AGAIN_PERIOD_S)
    assert play.told == []
    assert play.lookups.next_deadline_s() is None


@pytest.mark.parametrize("task_id", ["nobody-3", "you-x", "you", "", "-1"])
def test_what_no_client_here_can_submit_is_unknown_at_once(play: Play, task_id: str) -> None:
    found = play.lookups.ask([TaskId(task_id)], 0.0)
    assert found is not None
    assert found.task_ids == [task_id]


def test_what_a_client_has_left_out_is_unknown_at_once(play: Play) -> None:
    play.scheduler.board.ended.of(YOU).mark(4)
    found = play.lookups.ask([YOURS], 0.0)
    assert found is not None
    assert found.task_ids == [YOURS]
