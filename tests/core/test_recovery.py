"""After a restart nothing runs twice, nothing gets lost, and what is doubtful is told."""

from __future__ import annotations

import msgspec
import pytest
from helpers_core import (
    ME,
    NOBODY,
    arrive,
    ended,
    engine_session,
    finish,
    lose,
    placed,
    submit,
    submit_direct,
    task,
)

from parallelz.core.events import (
    Action,
    AnnounceLoss,
    AskValues,
    ClientReturned,
    ClientReturns,
    EndTask,
    EngineLost,
    PlaceTask,
    RecoveryBegan,
    RecoveryLoaded,
    RecoveryMayEnd,
    StopTask,
    Tick,
    ValueProvided,
)
from parallelz.core.scheduler import Scheduler
from parallelz.core.story import why
from parallelz.ids import SessionId
from parallelz.protocol.messages import AbortTasks, EngineReturned, TaskOptions

FIRST_RUN = 1000


class Restarted:
    """A scheduler in the place of one that knew these engines."""

    def __init__(self, *engines: int) -> None:
        self.scheduler = Scheduler(first_run=FIRST_RUN)
        self.now_s = 0.0
        self.do(RecoveryBegan([arrive(number).engine for number in engines]))

    def do(self, event: object, source: SessionId = NOBODY) -> list[Action]:
        self.now_s += 0.001
        actions = self.scheduler.handle(event, source, self.now_s)  # type: ignore[arg-type]
        self.scheduler.validate()
        return actions

    def loaded(self) -> list[Action]:
        return self.do(RecoveryLoaded()) + self.do(RecoveryMayEnd())

    def returns(self, number: int, *started: int, count: int = -1) -> list[Action]:
        session = engine_session(number)
        told = EngineReturned([task(n) for n in started], [1] * len(started), count)
        return self.do(arrive(number), session) + self.do(told, session)


def died(number: int, *started: int) -> EngineLost:
    ids = [task(n) for n in started]
    return EngineLost(engine_session(number), "killed", len(ids), ids)


def test_nothing_runs_until_all_engines_have_said_what_they_had_started():
    cluster = Restarted(0, 1)
    cluster.do(submit(0), ME)
    cluster.do(submit(1), ME)
    assert placed(cluster.loaded() + cluster.returns(0, 1)) == []
    assert "engines [1] have not come back" in why(cluster.scheduler, task(0), cluster.now_s)
    assert placed(cluster.returns(1)) == [(0, 1)]


def test_what_an_engine_had_started_ends_with_its_result():
    cluster = Restarted(0)
    cluster.do(submit(0), ME)
    cluster.loaded()
    assert placed(cluster.returns(0, 0)) == []
    assert ended(cluster.do(finish(0), engine_session(0))) == [(0, "ok")]


def test_a_task_of_an_engine_that_died_meanwhile_ends_if_it_had_started():
    cluster = Restarted(0, 1)
    for number in range(3):
        cluster.do(submit(number, retries=1 if number == 2 else 0), ME)
    cluster.loaded()
    cluster.returns(1)
    actions = cluster.do(died(0, 0, 2))
    assert ended(actions) == [(0, "engine-lost")]
    assert placed(actions) == [(1, 1)]
    assert any(isinstance(action, AnnounceLoss) for action in actions)
    assert placed(cluster.do(finish(1), engine_session(1))) == [(2, 1)]


def test_if_nobody_knows_what_a_dead_engine_had_started_all_that_it_may_have_had_has():
    cluster = Restarted(0, 1)
    cluster.do(submit(0), ME)
    cluster.do(submit(1, engines=[1]), ME)
    cluster.do(submit_direct(2, [1]), ME)
    cluster.do(submit(3, retries=1), ME)
    cluster.loaded()
    cluster.do(submit(4), ME)  # it came after the restart
    cluster.returns(1)
    actions = cluster.do(lose(0))
    (end,) = [action for action in actions if isinstance(action, EndTask)]
    assert (end.task_id, end.status, end.engine_id) == (task(0), "engine-lost", 0)
    assert end.error is not None
    assert "nobody can say" in end.error.evalue
    started = [number for number, _ in placed(actions)]
    for _ in range(3):
        done = cluster.do(finish(started[-1]), engine_session(1))
        started += [number for number, _ in placed(done)]
    assert started == [2, 1, 3, 4]


def test_direct_tasks_start_in_their_order_also_those_that_come_meanwhile():
    cluster = Restarted(0)
    cluster.do(submit_direct(0, [0]), ME)
    cluster.loaded()
    cluster.do(submit_direct(1, [0]), ME)
    assert placed(cluster.returns(0)) == [(0, 0)]
    assert placed(cluster.do(finish(0), engine_session(0))) == [(1, 0)]


def test_a_direct_task_for_an_engine_that_did_not_come_back_ends():
    cluster = Restarted(0)
    cluster.do(submit_direct(0, [0]), ME)
    cluster.loaded()
    assert ended(cluster.do(died(0))) == [(0, "engine-lost")]


def test_runs_after_a_restart_are_not_those_before():
    cluster = Restarted(0)
    cluster.do(submit(0, retries=1), ME)
    cluster.do(submit(1, retries=1), ME)
    cluster.loaded()
    cluster.returns(0, 0)
    actions = cluster.do(finish(0, ok=False), engine_session(0))
    runs = {action.task_id: action.run for action in actions if hasattr(action, "run")}
    assert runs in ({task(0): 2}, {task(1): FIRST_RUN + 1})


def test_a_task_that_its_client_sends_again_is_where_it_had_started():
    cluster = Restarted(0)
    cluster.loaded()
    cluster.returns(0, 7)
    cluster.do(ClientReturns(ME, [(7, 7)]))
    assert placed(cluster.do(submit(7), ME)) == []
    assert ended(cluster.do(finish(7), engine_session(0))) == [(7, "ok")]


def test_a_task_that_its_client_sends_again_and_that_a_dead_engine_had_started_ends():
    cluster = Restarted(0)
    cluster.loaded()
    cluster.do(died(0, 7))
    cluster.do(ClientReturns(ME, [(7, 8)]))
    cluster.do(arrive(1), engine_session(1))
    assert ended(cluster.do(submit(7), ME)) == [(7, "engine-lost")]
    assert placed(cluster.do(submit(8), ME)) == [(8, 1)]


def test_what_its_client_has_an_answer_for_does_not_run_again():
    cluster = Restarted(0)
    cluster.do(submit(0), ME)  # aborted, say, and that was not recorded
    cluster.do(RecoveryLoaded())
    cluster.do(ClientReturns(ME, [(1, 1)]))
    cluster.do(submit(1), ME)
    cluster.do(ClientReturned(ME))
    cluster.do(RecoveryMayEnd())
    actions = cluster.returns(0)
    assert ended(actions) == [(0, "lost")]
    assert placed(actions) == [(1, 0)]


def test_all_that_comes_after_a_client_has_returned_is_new():
    cluster = Restarted(0)
    cluster.loaded()
    cluster.returns(0, 7)
    cluster.do(ClientReturns(ME, []))
    cluster.do(ClientReturned(ME))
    assert not cluster.scheduler.recovery.is_needed
    assert placed(cluster.do(submit(8), ME)) == [(8, 0)]


def test_an_engine_that_was_given_up_and_comes_back_is_told_to_stop_what_goes_on_elsewhere():
    scheduler = Scheduler()
    session = engine_session(0)
    scheduler.handle(arrive(0), session, 0.0)
    scheduler.handle(submit(0), ME, 0.1)
    scheduler.handle(lose(0), NOBODY, 0.2)
    scheduler.handle(arrive(0), session, 0.3)
    told = EngineReturned([task(0)], [1], 1)
    (stop,) = scheduler.handle(told, session, 0.4)
    assert isinstance(stop, StopTask)
    assert (stop.task_id, stop.run) == (task(0), 1)
    assert placed(scheduler.handle(submit(1), ME, 0.5)) == [(1, 0)]


def test_an_aborted_task_is_not_run_when_all_have_come_back():
    cluster = Restarted(0)
    cluster.do(submit(0), ME)
    cluster.loaded()
    assert ended(cluster.do(AbortTasks(1, [task(0)]), ME)) == [(0, "aborted")]
    assert placed(cluster.returns(0)) == []


@pytest.mark.parametrize("count", [1, 5])
def test_how_many_an_engine_has_started_is_counted_on(count: int):
    """When it dies later, what waits there has not started and runs elsewhere."""
    cluster = Restarted(0)
    cluster.do(submit(0), ME)
    cluster.loaded()
    cluster.returns(0, 0, count=count)
    cluster.do(submit(1), ME)
    cluster.do(arrive(1), engine_session(1))
    event = EngineLost(engine_session(0), "killed", count, [task(0)])
    assert ended(cluster.do(event)) == [(0, "engine-lost")]


def test_what_had_started_and_waits_again_is_not_taken_for_held():
    cluster = Restarted(0, 1)
    cluster.do(submit(0), ME)
    cluster.loaded()
    cluster.returns(0, 0)
    refused = finish(0, status="unmet", retry_after_s=0.1)
    assert placed(cluster.do(refused, engine_session(0))) == []
    assert placed(cluster.returns(1)) == []
    cluster.now_s += 0.2
    assert placed(cluster.do(Tick())) == [(0, 0)]


def came_back(number: int, run: int) -> EngineReturned:
    return EngineReturned([task(number)], [run])


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("runs", [(1, 2), (2, 1)])
def test_of_two_engines_the_later_run_of_a_task_counts(is_known: bool, runs: tuple[int, int]):
    cluster = Restarted(0, 1)
    if is_known:
        cluster.do(submit(0), ME)
    cluster.do(RecoveryLoaded())
    for number, run in enumerate(runs):
        cluster.do(arrive(number), engine_session(number))
        cluster.do(came_back(0, run), engine_session(number))
    if not is_known:
        cluster.do(submit(0), ME)
    cluster.do(RecoveryMayEnd())
    last = runs.index(2)
    assert ended(cluster.do(finish(0), engine_session(1 - last))) == []
    assert ended(cluster.do(finish(0), engine_session(last))) == [(0, "ok")]


def test_a_result_of_a_run_before_the_restart_is_not_taken_for_one_after_it():
    cluster = Restarted(0)
    cluster.do(submit(0), ME)
    cluster.loaded()
    (place,) = [action for action in cluster.returns(0) if isinstance(action, PlaceTask)]
    assert place.run == FIRST_RUN + 1
    for run, expected in ((1, []), (place.run, [(0, "ok")])):
        result = msgspec.structs.replace(finish(0), run=run)
        assert ended(cluster.do(result, engine_session(0))) == expected


def test_what_had_started_and_is_to_run_again_asks_for_its_inputs():
    cluster = Restarted(0, 1)
    options = TaskOptions(inputs=[task(0)], retries=1)
    cluster.do(msgspec.structs.replace(submit(1), options=options), ME)
    cluster.loaded()
    cluster.returns(1)
    cluster.returns(0, 1)
    actions = cluster.do(lose(0))
    assert placed(actions) == []
    assert AskValues(ME, [task(0)]) in actions
    assert placed(cluster.do(ValueProvided(task(0), is_held=True), ME)) == [(1, 1)]
