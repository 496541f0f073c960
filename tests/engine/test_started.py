"""What was started outlives the process that noted it."""

from __future__ import annotations

import os
import signal

from parallelz.engine.started import SLOTS_COUNT, StartedTasks
from parallelz.ids import TaskId


def test_what_a_killed_process_had_started_can_be_read() -> None:
    started = StartedTasks()
    pid = os.fork()
    if not pid:
        for number in range(3):
            started.add(TaskId(f"client-{number}"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert started.count == 3
    assert started.open() == ["client-0", "client-1", "client-2"]
    started.close()


def test_a_process_that_only_has_the_descriptor_goes_on_counting() -> None:
    started = StartedTasks()
    started.add(TaskId("a-1"))
    other = StartedTasks(os.dup(started.fd))
    other.add(TaskId("a-2"))
    assert started.count == 2
    other.close()
    started.close()


def test_only_what_is_not_settled_is_told() -> None:
    started = StartedTasks()
    for number in range(5):
        started.add(TaskId(f"a-{number}"))
    started.settle(3)
    started.add(TaskId("a-5"))
    assert started.open() == ["a-3", "a-4", "a-5"]
    started.close()


def test_of_very_many_the_latest_are_told() -> None:
    started = StartedTasks()
    for number in range(SLOTS_COUNT + 3):
        started.add(TaskId(f"a-{number}"))
    ids = started.open()
    assert started.count == SLOTS_COUNT + 3
    assert (len(ids), ids[0], ids[-1]) == (SLOTS_COUNT, "a-3", f"a-{SLOTS_COUNT + 2}")
    started.close()
