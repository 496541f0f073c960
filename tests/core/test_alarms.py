"""What is due when."""

from __future__ import annotations

from parallelz.core.alarms import Alarm, Alarms
from parallelz.ids import TaskId

A, B = TaskId("a"), TaskId("b")


def test_the_earliest_is_due_first_and_only_once() -> None:
    alarms = Alarms()
    alarms.set(A, Alarm.KILL, 2.0)
    alarms.set(B, Alarm.DELAY, 1.0)
    assert alarms.next_s() == 1.0
    assert alarms.pop_due(0.5) is None
    assert alarms.pop_due(3.0) == (B, Alarm.DELAY)
    assert alarms.pop_due(3.0) == (A, Alarm.KILL)
    assert alarms.pop_due(3.0) is None
    assert not alarms.by_task


def test_a_task_has_one_alarm_the_last_that_was_set() -> None:
    alarms = Alarms()
    alarms.set(A, Alarm.OVERRUN, 1.0)
    alarms.set(A, Alarm.KILL, 5.0)
    assert alarms.pop_due(2.0) is None
    assert alarms.pop_due(5.0) == (A, Alarm.KILL)


def test_what_was_cleared_is_not_kept() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set(TaskId(str(number)), Alarm.UNPLACED, 1e6)
        alarms.clear(TaskId(str(number)))
    assert alarms.next_s() is None
    assert len(alarms._heap) < 200
