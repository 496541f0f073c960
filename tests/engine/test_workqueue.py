"""A task is started or given back, never both, in whatever order things arrive."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from parallelz.engine.workqueue import Job, WorkQueue
from parallelz.ids import TaskId

A, B = TaskId("a"), TaskId("b")


def job(task_id: TaskId, run: int = 1) -> Job:
    return Job(task_id, run, None, b"", ())


def test_tasks_start_in_the_order_in_which_they_came() -> None:
    queue = WorkQueue()
    queue.add(job(A))
    queue.add(job(B))
    assert [queue.start_next(), queue.start_next()] == [job(A), job(B)]
    assert queue.start_next() is None


def test_revoked_task_does_not_start() -> None:
    queue = WorkQueue()
    queue.add(job(A))
    queue.add(job(B))
    assert queue.revoke([B], [1]) == ([B], [])
    assert queue.start_next() == job(A)
    assert queue.start_next() is None


def test_started_task_is_kept() -> None:
    queue = WorkQueue()
    queue.add(job(A))
    queue.start_next()
    assert queue.revoke([A], [1]) == ([], [A])


def test_task_that_is_revoked_before_it_comes_does_not_start_either() -> None:
    queue = WorkQueue()
    assert queue.revoke([A], [1]) == ([A], [])
    queue.add(job(A))
    assert queue.start_next() is None


def test_task_that_is_sent_again_after_it_was_given_back_starts() -> None:
    queue = WorkQueue()
    queue.add(job(A, 1))
    queue.revoke([A], [1])
    queue.add(job(A, 2))
    assert queue.start_next() == job(A, 2)
    assert queue.start_next() is None


def test_what_has_started_again_is_open_until_the_result_of_that_run_is_there() -> None:
    queue = WorkQueue()
    for each in (job(A, 1), job(B), job(A, 2)):
        queue.add(each)
        queue.start_next()
    assert queue.open_ids() == [B, A]
    queue.close([(A, 1)])
    assert queue.begin("another") == ([B, A], [1, 2])
    queue.close([(A, 2), (B, 1)])
    assert queue.open_ids() == []


def test_a_new_controller_finds_nothing_that_waits_of_the_one_before() -> None:
    queue = WorkQueue()
    queue.add(job(A), "first")
    queue.begin("second")
    queue.add(job(B), "first")  # the main thread comes to it only now
    assert queue.start_next() is None
    queue.add(job(B, 2), "second")
    assert queue.start_next() == job(B, 2)


def test_what_the_first_controller_sent_waits_on_when_it_is_told_of_the_rest() -> None:
    queue = WorkQueue()
    queue.add(job(A), "first")
    queue.begin("first")
    assert queue.start_next() == job(A)


@given(st.lists(st.sampled_from(["send", "arrive", "start", "revoke"]), max_size=40))
def test_no_run_is_both_started_and_given_back(steps: list[str]) -> None:
    queue = WorkQueue()
    on_the_way: list[Job] = []
    run = 0
    started: set[int] = set()
    given_back: set[int] = set()
    for step in steps:
        match step:
            case "send" if run == len(given_back):  # only what came back is sent again
                run += 1
                on_the_way.append(job(A, run))
            case "arrive" if on_the_way:
                queue.add(on_the_way.pop(0))
            case "start":
                next_job = queue.start_next()
                if next_job is not None:
                    assert next_job.run not in started
                    started.add(next_job.run)
            case "revoke" if run:
                dropped, _ = queue.revoke([A], [run])
                given_back.update(run for _ in dropped)
    assert not started & given_back
