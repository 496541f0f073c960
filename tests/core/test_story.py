"""For every state that a task can be in, one sentence says why it is in that."""

from __future__ import annotations

from helpers_core import (
    ME,
    NOBODY,
    arrive,
    dropped,
    engine_session,
    finish,
    lose,
    submit,
    submit_direct,
    submit_map,
    task,
)

from parallelz.core.events import Event
from parallelz.core.scheduler import Scheduler
from parallelz.core.story import dump, why
from parallelz.ids import EngineId, SessionId
from parallelz.protocol.messages import CancelTasks, DrainEngines, SubmitTask, TaskOptions


class Told:
    """A scheduler that is asked why a second after the last event."""

    def __init__(self, engine_count: int = 1) -> None:
        self.core = Scheduler()
        self.now_s = 0.0
        for number in range(engine_count):
            self.hear(arrive(number), engine_session(number))

    def hear(self, event: Event, source: SessionId = ME) -> None:
        self.now_s += 1.0
        self.core.handle(event, source, self.now_s)

    def why(self, number: int) -> str:
        return why(self.core, task(number), self.now_s + 1.0)


def test_a_task_that_waits_for_others() -> None:
    told = Told()
    told.hear(submit(0))
    told.hear(submit(1, after=[0]))
    told.hear(submit(2, after=[1], timeout_s=60.0))
    assert told.why(1) == ("me-1 waits: for me-0, which has been running on engine 0 for 3.0 s")
    assert told.why(2) == ("me-2 waits: for me-1, which is waiting, at most 59.0 s longer")


def test_a_task_that_waits_for_many_names_some() -> None:
    told = Told()
    told.hear(submit_map(0, 6))
    told.hear(submit(6, after=[0, 1, 2, 3, 4, 5]))
    assert told.why(6).endswith("me-1, which is ready; me-2, which is ready; and 3 more")


def test_a_task_that_waits_for_the_history_or_a_value() -> None:
    told = Told()
    told.hear(submit(0, after=[99]))
    told.hear(SubmitTask(task(1), b"f", 0.0, options=TaskOptions(inputs=[task(98)])))  # type: ignore[arg-type]
    assert told.why(0) == "me-0 waits: for the history to tell how me-99 ended"
    assert told.why(1) == "me-1 waits: for its client to send the value of me-98"


def test_a_task_that_is_ready() -> None:
    told = Told(0)
    told.hear(submit(0))
    assert told.why(0) == "me-0 is ready: there are no engines"
    told.hear(arrive(0), engine_session(0))
    told.hear(submit(1))
    told.hear(submit(2))
    told.hear(submit_direct(3, [0]))
    assert told.why(2) == (
        "me-2 is ready: engine 0 has been running me-0 for 4.0 s, and 1 other is before it"
    )
    assert told.why(3) == (
        "me-3 is ready: engine 0 has been running me-0 for 4.0 s, and it is next there"
    )


def test_a_task_that_is_ready_while_several_engines_are_busy() -> None:
    told = Told(2)
    told.hear(submit_map(0, 3))
    assert told.why(2) == (
        "me-2 is ready: the 2 engines all have something to do, engine 0 for 1.0 s,"
        " and it is next"
    )
    told.hear(DrainEngines(1, [EngineId(0), EngineId(1)]))
    assert told.why(2) == (
        "me-2 is ready: all engines that may run it (0, 1) are being drained, and it is next"
    )


def test_a_task_that_is_placed() -> None:
    told = Told()
    told.hear(submit(0))
    told.hear(finish(0, duration_s=0.001), engine_session(0))
    told.hear(submit_map(1, 2))
    assert told.why(1) == "me-1 has been running on engine 0 for 1.0 s"
    assert told.why(2) == (
        "me-2 is at engine 0, 1 place behind me-1, which has been running for 1.0 s"
    )
    told.hear(CancelTasks(1, [task(1)], 9.0))
    told.hear(dropped([2]), engine_session(0))
    assert told.why(1).endswith("for 3.0 s and was asked to stop (cancelled)")


def test_a_task_that_has_ended() -> None:
    told = Told()
    told.hear(submit(0))
    told.hear(lose(0, "killed"), engine_session(0))
    assert told.why(0) == (
        "me-0 has ended 1.0 s ago on engine 0: engine 0 (pid 100 on host) is gone: killed"
    )


def test_a_task_that_nobody_knows() -> None:
    assert Told().why(7) == ""


def test_a_dump_says_how_much_of_what_there_is() -> None:
    told = Told(2)
    told.hear(submit_map(0, 5))
    told.hear(submit(5, after=[0]))
    state = dump(told.core, told.now_s)
    assert state["tasks"] == {"placed": 2, "ready": 3, "waiting": 1}
    assert state["tasks_by_client"] == {"me": 6}
    assert NOBODY not in state["tasks_by_client"]  # type: ignore[operator]
