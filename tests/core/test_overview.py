"""What someone sees who watches a cluster."""

from __future__ import annotations

from helpers_core import (
    ME,
    arrive,
    engine_session,
    finish,
    lose,
    submit,
    submit_direct,
    submit_map,
)

from parallelz.core.events import Event
from parallelz.core.overview import overview
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId, TaskId
from parallelz.protocol.answers import Overview, Queue
from parallelz.protocol.messages import (
    CancelTasks,
    ErrorInfo,
    SubmitTask,
    TaskFinished,
    TaskOptions,
)


class Seen:
    """A scheduler that is looked at a second after the last event."""

    def __init__(self, engine_count: int) -> None:
        self.core = Scheduler()
        self.now_s = 0.0
        for number in range(engine_count):
            self.hear(arrive(number), engine_session(number))

    def hear(self, event: Event, source: SessionId = ME) -> None:
        self.now_s += 1.0
        self.core.handle(event, source, self.now_s)

    def look(self) -> Overview:
        return overview(
            self.core,
            self.now_s + 1.0,
            function_of=lambda task: f"f{task.number}",
            client_of=lambda session_id: session_id.upper(),
            controller_pid=7,
            trouble="",
        )


def test_engines_say_what_they_run_and_for_how_long() -> None:
    seen = Seen(2)
    seen.hear(submit(0))
    busy, idle = seen.look().engines
    assert (busy.state, busy.task, busy.function, busy.for_s) == ("busy", "me-0", "f0", 1.0)
    assert (busy.host, busy.pid, busy.placed_count) == ("host", 100, 1)
    assert (idle.state, idle.task, idle.function, idle.for_s) == ("idle", "", "", 0.0)


def test_queues_are_counted_by_what_they_need_and_by_client() -> None:
    seen = Seen(1)
    seen.hear(submit_map(0, 5))
    seen.hear(SubmitTask(TaskId("you-0"), b"f", 0.0), SessionId("you"))  # type: ignore[arg-type]
    options = TaskOptions(labels=["gpu"])
    seen.hear(SubmitTask(TaskId("me-5"), b"f", 0.0, options=options))  # type: ignore[arg-type]
    seen.hear(submit_direct(6, [0]))
    seen.hear(submit(7, after=[6]))
    look = seen.look()
    assert look.queues[0] == Queue("", ME, "ME", 4)
    assert set(look.queues[1:]) == {
        Queue("", SessionId("you"), "YOU", 1),
        Queue("has the label 'gpu'", ME, "ME", 1),
        Queue("was named alone", ME, "ME", 1),
    }
    assert (look.ready_count, look.waiting_count) == (7, 1)
    assert look.engines[0].direct_count == 1


def test_what_ended_is_counted_and_what_failed_is_told() -> None:
    seen = Seen(2)
    for number in range(4):
        seen.hear(submit(number))
    seen.hear(finish(0), engine_session(0))
    error = ErrorInfo("ValueError", "no good")
    failed = TaskFinished(TaskId("me-1"), "error", 0.0, 1.0, error=error)
    seen.hear(failed, engine_session(1))
    seen.hear(CancelTasks(1, [TaskId("me-2")], 0.0))
    seen.hear(lose(1))
    look = seen.look()
    assert look.ended_counts == {"ok": 1, "error": 1, "engine-lost": 1}
    lost, raised = look.failures
    assert (raised.task, raised.engine_id, raised.ago_s) == ("me-1", 1, 3.0)
    assert raised.cause == "ValueError: no good"
    assert lost.task == "me-3"
    assert lost.cause.startswith("EngineError: ")


def test_a_task_that_somebody_gave_up_is_no_error() -> None:
    seen = Seen(0)
    seen.hear(submit(0))
    seen.hear(CancelTasks(1, [TaskId("me-0")], 0.0))
    look = seen.look()
    assert (look.ended_counts, look.failures) == ({"aborted": 1}, [])
