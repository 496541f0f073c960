"""Each rule of the core in a few lines, without a cluster."""

from __future__ import annotations

import pytest
from helpers_core import (
    ME,
    NOBODY,
    arrive,
    dropped,
    ended,
    engine_session,
    finish,
    lose,
    placed,
    submit,
    submit_direct,
    submit_map,
    task,
)

from parallelz.core.events import (
    Action,
    EndsFound,
    Event,
    KillEngine,
    LookUpTasks,
    PastEnd,
    RecallTasks,
    Tick,
    Warn,
)
from parallelz.core.placement import SCHEMES
from parallelz.core.scheduler import Scheduler
from parallelz.core.story import queue_status
from parallelz.core.task import TaskState
from parallelz.ids import EngineId, SessionId
from parallelz.protocol.messages import AbortTasks, CancelTasks, TasksDropped


class Play:
    """A scheduler and the time; every event is checked against the invariants."""

    def __init__(self, engine_count: int) -> None:
        self.scheduler = Scheduler()
        self.now_s = 0.0
        for number in range(engine_count):
            self(arrive(number))

    def __call__(self, event: Event, source: SessionId = ME) -> list[Action]:
        self.now_s += 0.001
        actions = self.scheduler.handle(event, source, self.now_s)
        self.scheduler.validate()
        return actions

    def finish(
        self, number: int, engine: int, *, ok: bool = True, duration_s: float = 1.0
    ) -> list[Action]:
        return self(finish(number, ok=ok, duration_s=duration_s), engine_session(engine))


def test_ready_tasks_start_first_come_first_served() -> None:
    play = Play(1)
    assert placed(play(submit(0))) == [(0, 0)]
    assert placed(play(submit(1))) == []
    assert placed(play(submit(2))) == []
    assert placed(play.finish(0, 0)) == [(1, 0)]
    assert placed(play.finish(1, 0)) == [(2, 0)]


def test_events_that_come_together_may_be_taken_in_before_anything_is_placed() -> None:
    play = Play(2)
    scheduler = play.scheduler
    for number in range(3):
        event = submit(number)
        assert placed(scheduler.handle(event, ME, play.now_s, places=False)) == []
    assert placed(scheduler.place(play.now_s)) == [(0, 0), (1, 1)]
    scheduler.validate()
    for number in (0, 1):
        event = finish(number)
        actions = scheduler.handle(event, engine_session(number), play.now_s, places=False)
        assert ended(actions) == [(number, "ok")]
    assert placed(scheduler.place(play.now_s)) == [(2, 0)]


def test_an_engine_that_is_lost_before_anything_is_placed_gets_nothing() -> None:
    play = Play(1)
    scheduler = play.scheduler
    scheduler.handle(submit_direct(0, [0]), ME, play.now_s, places=False)
    assert ended(scheduler.handle(lose(0), NOBODY, play.now_s, places=False)) == [
        (0, "engine-lost")
    ]
    assert placed(scheduler.place(play.now_s)) == []


def test_nothing_is_placed_behind_a_task_of_unknown_length() -> None:
    play = Play(2)
    assert placed(play(submit_map(0, 10))) == [(0, 0), (1, 1)]


def test_short_tasks_are_placed_ahead_in_numbers() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0, duration_s=0.0)
    assert len(placed(play(submit_map(1, 1000)))) == 500


def test_what_waits_behind_a_long_task_is_recalled_and_runs_elsewhere() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0, duration_s=0.001)
    assert len(placed(play(submit_map(1, 3)))) == 3
    play.now_s += 1.0
    play(Tick(), NOBODY)  # from now on without an end
    play.now_s += 1.0
    recalls = [a for a in play(Tick(), NOBODY) if isinstance(a, RecallTasks)]
    assert recalls == [RecallTasks(EngineId(0), [task(2), task(3)], [1, 1])]
    play(arrive(1))
    assert placed(play(dropped([2, 3]), engine_session(0))) == [(2, 1), (3, 1)]


def test_direct_tasks_of_one_engine_keep_their_order_before_all_others() -> None:
    play = Play(1)
    play(submit(0))
    play(submit(1))
    play(submit_direct(2, [0]))
    play(submit_direct(3, [0]))
    assert placed(play.finish(0, 0)) == [(2, 0)]
    assert placed(play.finish(2, 0)) == [(3, 0)]
    assert placed(play.finish(3, 0)) == [(1, 0)]


def test_direct_task_for_an_engine_that_is_not_there_ends_at_once() -> None:
    assert ended(Play(1)(submit_direct(0, [7]))) == [(0, "engine-lost")]


def test_submitting_again_changes_nothing() -> None:
    play = Play(1)
    play(submit(0))
    assert play(submit(0)) == []
    play.finish(0, 0)
    assert play(submit(0)) == []


def test_without_engines_tasks_wait_and_the_user_is_told_once() -> None:
    play = Play(0)
    assert [type(a) for a in play(submit(0))] == [Warn]
    assert play(submit(1)) == []
    assert placed(play(arrive(0))) == [(0, 0)]


def test_lost_engine_ends_its_task_with_the_cause() -> None:
    play = Play(1)
    play(submit(0))
    end = next(a for a in play(lose(0, "killed by signal 9")) if ended([a]))
    assert end.status == "engine-lost"
    assert "killed by signal 9" in end.error.evalue
    assert "pid 100" in end.error.evalue


def test_direct_task_that_comes_after_the_death_of_its_engine_is_told_the_cause() -> None:
    play = Play(2)
    play(lose(0, "killed by signal 9"))
    end = next(a for a in play(submit_direct(0, [0])) if ended([a]))
    assert end.status == "engine-lost"
    assert "killed by signal 9" in end.error.evalue


def test_lost_engine_retries_its_task_elsewhere() -> None:
    play = Play(2)
    assert placed(play(submit(0, retries=1))) == [(0, 0)]
    assert placed(play(lose(0))) == [(0, 1)]
    assert ended(play(lose(1))) == [(0, "engine-lost")]


def test_late_answer_of_a_lost_engine_is_ignored() -> None:
    play = Play(1)
    play(submit(0))
    play(lose(0))
    assert play.finish(0, 0) == []


def test_failed_task_is_retried_and_its_last_error_is_the_answer() -> None:
    play = Play(1)
    play(submit(0, retries=1))
    assert placed(play.finish(0, 0, ok=False)) == [(0, 0)]
    assert ended(play.finish(0, 0, ok=False)) == [(0, "error")]


def test_negative_retries_are_none() -> None:
    play = Play(1)
    play(submit(0, retries=-1))
    assert ended(play.finish(0, 0, ok=False)) == [(0, "error")]


def test_task_runs_after_what_it_waits_for() -> None:
    play = Play(2)
    play(submit(0))
    play(submit(1))
    assert play(submit(2, after=[0, 1])) == []
    assert placed(play.finish(0, 0)) == []
    assert placed(play.finish(1, 1)) == [(2, 0)]


def test_task_may_depend_on_one_that_ended_long_ago() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0)
    assert placed(play(submit(1, after=[0]))) == [(1, 0)]


def test_failure_ends_every_task_that_waits_for_success_also_through_chains() -> None:
    play = Play(1)
    play(submit(0))
    play(submit(1, after=[0]))
    play(submit(2, after=[1]))
    assert ended(play.finish(0, 0, ok=False)) == [
        (0, "error"),
        (1, "impossible"),
        (2, "impossible"),
    ]


def test_any_of_several_is_enough_when_asked_for() -> None:
    play = Play(2)
    play(submit(0))
    play(submit(1))
    play(submit(2, after=[0, 1], every=False))
    play.finish(0, 0, ok=False)
    assert placed(play.finish(1, 1)) == [(2, 0)]


def test_task_can_wait_for_a_failure() -> None:
    play = Play(1)
    play(submit(0))
    play(submit(1, after=[0], success=False, failure=True))
    assert placed(play.finish(0, 0, ok=False)) == [(1, 0)]


def test_what_the_core_does_not_know_is_looked_up_in_the_history() -> None:
    play = Play(1)
    assert play(submit(1, after=[99])) == [LookUpTasks([task(99)])]
    found = EndsFound([task(99)], {task(99): PastEnd(True, "ended well", SessionId(""))})
    assert placed(play(found, NOBODY)) == [(1, 0)]


def test_dependency_that_nobody_knows_is_impossible() -> None:
    play = Play(1)
    play(submit(1, after=[99]))
    end = next(a for a in play(EndsFound([task(99)], {}), NOBODY) if ended([a]))
    assert end.status == "impossible"
    assert end.error.evalue == "it depends on me-99, which nobody knows"


def test_follow_runs_where_the_other_ran() -> None:
    play = Play(2)
    play(submit(0))
    play(submit(1))
    play(submit(2, follow=[1]))
    play.finish(0, 0)
    assert placed(play.finish(1, 1)) == [(2, 1)]


def test_follow_to_an_engine_that_is_not_among_the_targets_is_impossible() -> None:
    play = Play(2)
    play(submit(0, engines=[1]))
    play(submit(1, follow=[0], engines=[0]))
    end = next(a for a in play.finish(0, 1) if ended([a]) == [(1, "impossible")])
    assert end.error.evalue == "it is to follow me-0, which ran on [1], and not on [0]"


def test_follow_of_tasks_on_two_engines_is_impossible() -> None:
    play = Play(2)
    play(submit(0))
    play(submit(1))
    play(submit(2, follow=[0, 1]))
    play.finish(0, 0)
    assert (2, "impossible") in ended(play.finish(1, 1))


def test_targets_limit_where_a_task_runs() -> None:
    play = Play(3)
    assert placed(play(submit(0, engines=[2]))) == [(0, 2)]
    assert placed(play(submit(1, engines=[2, 1]))) == [(1, 1)]


def test_task_that_is_not_placed_in_time_ends() -> None:
    play = Play(1)
    play(submit(0))
    play(submit(1, timeout_s=0.5))
    assert play.scheduler.next_deadline_s() == pytest.approx(0.503)
    play.now_s = 0.6
    assert ended(play(Tick(), NOBODY)) == [(1, "timeout")]
    assert play.scheduler.next_deadline_s() is None


def test_abort_ends_what_waits_and_asks_the_engine_about_the_rest() -> None:
    play = Play(1)
    play(submit(0))
    play(submit(1))
    actions = play(AbortTasks(1, None))
    assert ended(actions) == [(1, "aborted")]
    assert RecallTasks(EngineId(0), [task(0)], [1]) in actions
    assert ended(play(dropped([0]), engine_session(0))) == [(0, "aborted")]


def test_nothing_is_placed_before_every_recall_is_answered() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0, duration_s=0.001)
    play(submit_map(1, 3))
    play(AbortTasks(1, [task(2)]))
    play(AbortTasks(1, [task(3)]))
    play(submit_direct(4, [0]))
    assert placed(play(dropped([2]), engine_session(0))) == []
    assert placed(play(dropped([3]), engine_session(0))) == [(4, 0)]


def test_engine_is_not_killed_for_a_cancelled_task_that_it_does_not_run() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0, duration_s=0.001)
    play(submit_map(1, 2))
    play(CancelTasks(1, [task(2)], 0.5))
    play.now_s += 1.0
    assert not [a for a in play(Tick(), NOBODY) if isinstance(a, KillEngine)]
    play.finish(1, 0)
    play.now_s += 10.0
    kills = [a for a in play(Tick(), NOBODY) if isinstance(a, KillEngine)]
    assert [kill.engine_id for kill in kills] == [0]


def test_engine_is_killed_for_what_it_runs_though_results_before_that_are_on_their_way() -> (
    None
):
    play = Play(1)
    play(submit(0))
    play.finish(0, 0, duration_s=0.001)
    play(submit_map(1, 2))
    play(CancelTasks(1, [task(2)], 0.5))
    play(TasksDropped([], [task(2)]), engine_session(0))  # so task 1 has ended there
    play.now_s += 1.0
    kills = [a for a in play(Tick(), NOBODY) if isinstance(a, KillEngine)]
    assert [kill.engine_id for kill in kills] == [0]


def test_aborted_task_that_runs_ends_as_it_does_by_itself_and_is_not_retried() -> None:
    play = Play(1)
    play(submit(0, retries=3))
    play(AbortTasks(1, [task(0)]))
    assert ended(play.finish(0, 0, ok=False)) == [(0, "error")]


def test_pure_scheme_refuses_dependencies() -> None:
    core = Scheduler(SCHEMES["pure"])
    core.handle(arrive(0), engine_session(0), 0.0)
    core.handle(submit(0), ME, 1.0)
    end = next(a for a in core.handle(submit(1, after=[0]), ME, 1.0) if ended([a]))
    assert (end.status, end.error.ename) == ("impossible", "InvalidDependency")


def test_hwm_is_how_many_tasks_are_placed_whatever_they_take() -> None:
    core = Scheduler(hwm=3)
    core.handle(arrive(0), engine_session(0), 0.0)
    assert placed(core.handle(submit_map(0, 10), ME, 1.0)) == [(0, 0), (1, 0), (2, 0)]
    assert placed(core.handle(finish(0), engine_session(0), 2.0)) == [(3, 0)]


def test_abort_of_an_empty_list_aborts_nothing() -> None:
    play = Play(1)
    play(submit(0))
    assert play(AbortTasks(1, [])) == []


def test_nothing_is_left_of_ended_tasks() -> None:
    play = Play(1)
    play(submit_map(0, 50))
    for number in range(50):
        play.finish(number, 0)
    assert play.scheduler.tasks == {}
    status = queue_status(play.scheduler, [EngineId(0)], verbose=False)
    assert status.engines[EngineId(0)].completed == 50
    assert status.unassigned == 0


def test_story_tells_what_happened() -> None:
    play = Play(1)
    play(submit(0))
    play.finish(0, 0)
    moves = [(line.start, line.finish) for line in play.scheduler.story(task(0))]
    assert moves == [
        (TaskState.WAITING, TaskState.READY),
        (TaskState.READY, TaskState.PLACED),
        (TaskState.PLACED, TaskState.ENDED),
    ]
