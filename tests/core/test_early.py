"""What was given up before it came never runs."""

from __future__ import annotations

from helpers_core import (
    ME,
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

from parallelz.core.scheduler import Scheduler
from parallelz.ids import EngineId, SessionId
from parallelz.protocol.messages import AbortTasks, CancelTasks


def scheduler() -> Scheduler:
    made = Scheduler()
    made.handle(arrive(0), engine_session(0), 0.0)
    return made


def test_an_abort_that_passed_the_submission_counts() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, [task(3)]), ME, 1.0)
    assert ended(core.handle(submit(3), ME, 2.0)) == [(3, "aborted")]
    assert placed(core.handle(submit(4), ME, 3.0)) == [(4, 0)]


def test_a_cancel_that_passed_the_submission_counts() -> None:
    core = scheduler()
    core.handle(CancelTasks(1, [task(3)], 1.0), ME, 1.0)
    assert ended(core.handle(submit(3), ME, 2.0)) == [(3, "aborted")]


def test_an_abort_of_everything_means_what_was_submitted_before_it() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, None, number_end=5), ME, 1.0)
    assert ended(core.handle(submit(4), ME, 2.0)) == [(4, "aborted")]
    assert placed(core.handle(submit(5), ME, 3.0)) == [(5, 0)]


def test_an_order_is_forgotten_when_all_that_it_is_for_has_come() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, None, number_end=5), ME, 1.0)
    core.handle(submit(4), ME, 2.0)
    assert core._intake.early_stops
    core.handle(submit(5), ME, 3.0)
    assert not core._intake.early_stops


def test_an_abort_for_some_engines_leaves_direct_tasks_of_others() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, None, [EngineId(7)], number_end=9), ME, 1.0)
    assert placed(core.handle(submit_direct(3, [0]), ME, 2.0)) == [(3, 0)]


def test_orders_of_others_and_for_what_has_ended_are_not_kept() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, [task(3)]), SessionId("you"), 1.0)
    assert placed(core.handle(submit(3), ME, 2.0)) == [(3, 0)]
    assert not core._intake.early_stops


def test_tasks_that_depend_on_each_other_are_all_aborted() -> None:
    core = scheduler()
    core.handle(submit(0), ME, 1.0)
    core.handle(submit(1), ME, 1.0)
    core.handle(submit(2, after=[1]), ME, 1.0)
    named = core.handle(AbortTasks(1, [task(1), task(2)]), ME, 2.0)
    assert ended(named) == [(1, "aborted"), (2, "aborted")]
    core.handle(submit(3), ME, 3.0)
    core.handle(submit(4, after=[3]), ME, 3.0)
    cancelled = core.handle(CancelTasks(2, [task(3), task(4)], 1.0), ME, 4.0)
    assert ended(cancelled) == [(3, "aborted"), (4, "aborted")]
    core.handle(submit(5), ME, 5.0)
    core.handle(submit(6, after=[5], failure=True, engines=[8]), ME, 5.0)
    both = core.handle(AbortTasks(3, [task(5), task(6)]), ME, 6.0)
    assert ended(both) == [(5, "aborted"), (6, "aborted")]


def test_an_abort_of_everything_leaves_what_was_submitted_after_it_and_came_before() -> None:
    core = scheduler()
    core.handle(submit(0), ME, 1.0)
    core.handle(submit(1), ME, 1.0)
    core.handle(submit(2), ME, 1.0)
    assert ended(core.handle(AbortTasks(1, None, number_end=2), ME, 2.0)) == [(1, "aborted")]


def test_a_narrower_order_does_not_replace_one_that_came_before_it() -> None:
    core = scheduler()
    core.handle(AbortTasks(1, None, number_end=5), ME, 1.0)
    core.handle(AbortTasks(2, None, [EngineId(7)], number_end=9), ME, 1.0)
    assert ended(core.handle(submit(4), ME, 2.0)) == [(4, "aborted")]
    core.handle(AbortTasks(3, [task(10)]), ME, 3.0)
    core.handle(AbortTasks(4, [task(10)], [EngineId(7)]), ME, 3.0)
    assert ended(core.handle(submit(10), ME, 4.0)) == [(10, "aborted")]


def test_what_started_in_the_place_of_an_aborted_task_does_not_start_again() -> None:
    core = Scheduler(hwm=3)
    core.handle(arrive(0), engine_session(0), 0.0)
    for number in range(3):
        core.handle(submit(number), ME, 0.0)
    core.handle(AbortTasks(1, [task(1)]), ME, 1.0)
    core.handle(finish(0), engine_session(0), 2.0)
    lost = core.handle(lose(0, started_count=2), engine_session(0), 3.0)
    assert ended(lost) == [(1, "aborted"), (2, "engine-lost")]
