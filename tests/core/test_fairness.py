"""Whose turn it is."""

from __future__ import annotations

from parallelz.core.fairness import LEVELS_KEPT_MAX, FairQueue, Shares
from parallelz.core.task import Task, TaskState
from parallelz.ids import Digest, SessionId, task_id_of
from parallelz.protocol.messages import TaskOptions


def ready(client: str, number: int, priority: int = 0) -> Task:
    session = SessionId(client)
    options = TaskOptions(priority=priority) if priority else None
    task = Task(task_id_of(session, number), session, number, Digest(b"f"), options)
    task.state = TaskState.READY
    return task


def served(queue: FairQueue, shares: Shares, cost_s: dict[str, float]) -> list[str]:
    """Take everything, at what a task of each client costs; return whose it was."""
    order = []
    while (task := queue.head()) is not None:
        queue.pop()
        shares.serve(task.session_id, cost_s[task.session_id])
        order.append(task.session_id)
    return order


def test_a_client_with_ten_tasks_is_done_long_before_one_with_a_thousand() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    for number in range(1000):
        queue.push(ready("many", number))
    for number in range(10):
        queue.push(ready("few", number))
    order = served(queue, shares, {"many": 1.0, "few": 1.0})
    assert order[:20].count("few") == 10


def test_shares_are_of_time_not_of_tasks() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    for number in range(20):
        queue.push(ready("long", number))
        queue.push(ready("short", number))
    order = served(queue, shares, {"long": 10.0, "short": 1.0})
    assert order[:12].count("long") in (1, 2)


def test_who_was_away_starts_at_the_present_and_has_saved_up_nothing() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    for number in range(100):
        queue.push(ready("busy", number))
    for _ in range(50):
        queue.head()
        queue.pop()
        shares.serve(SessionId("busy"), 1.0)
    for number in range(10):
        queue.push(ready("late", number))
    order = served(queue, shares, {"busy": 1.0, "late": 1.0})
    assert order[:6].count("busy") == 3


def test_higher_priorities_go_first_whoever_has_them() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    queue.push(ready("a", 0))
    queue.push(ready("b", 0, priority=1))
    queue.push(ready("a", 1, priority=-1))
    assert served(queue, shares, {"a": 1.0, "b": 1.0}) == ["b", "a", "a"]


def test_tasks_that_ended_while_they_waited_are_skipped_and_not_kept() -> None:
    queue = FairQueue(Shares())
    tasks = [ready("a", number) for number in range(1000)]
    for task in tasks:
        queue.push(task)
    for task in tasks[1:]:
        task.state = TaskState.ENDED
        queue.skip(task)
    assert queue.count == 1
    assert queue.tasks() == [tasks[0]]
    held = sum(
        len(line.tasks) for level in queue._levels.values() for line in level.lines.values()
    )
    assert held < 100


def test_to_look_changes_nothing() -> None:
    order = []
    for looks in (False, True):
        shares = Shares()
        queue = FairQueue(shares)
        first = [ready("me", 0), ready("you", 0)]
        for task in first:
            queue.push(task)
        queue.push(ready("me", 1, priority=-5))
        for task in first:
            task.state = TaskState.ENDED
            queue.skip(task)
        if looks:
            queue.head()
        queue.push(ready("you", 2))
        queue.push(ready("me", 2))
        order.append(served(queue, shares, {"me": 1.0, "you": 1.0}))
    assert order[0] == order[1]


def test_priorities_that_were_used_are_not_kept_for_ever() -> None:
    queue = FairQueue(Shares())
    for priority in range(10_000):
        queue.push(ready("me", priority, priority))
        assert queue.head() is not None
        queue.pop()
    assert len(queue._levels) <= LEVELS_KEPT_MAX + 1
    assert queue._priorities == sorted(queue._levels)
