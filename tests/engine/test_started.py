"""The number of started tasks outlives the process that counted them."""

from __future__ import annotations

import os
import signal

from parallelz.engine.started import StartedCount


def test_the_count_of_a_killed_process_can_be_read() -> None:
    started = StartedCount()
    pid = os.fork()
    if not pid:
        for _ in range(3):
            started.add()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert started.value == 3
    started.close()


def test_a_process_that_only_has_the_descriptor_goes_on_counting() -> None:
    started = StartedCount()
    started.add()
    other = StartedCount(os.dup(started.fd))
    other.add()
    assert started.value == 2
    other.close()
    started.close()
