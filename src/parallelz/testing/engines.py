"""A simulated engine: the real queue of tasks between two simulated threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from parallelz.engine.results import Results
from parallelz.engine.workqueue import Job, WorkQueue
from parallelz.errors import UnknownFunction
from parallelz.ids import EngineId, TaskId
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.functions import KnownDefinitions
from parallelz.protocol.messages import (
    ClearNamespace,
    DefineFunction,
    DropTasks,
    EngineReturned,
    ErrorInfo,
    Goodbye,
    InterruptTask,
    Message,
    NamespaceCleared,
    Refused,
    RunTask,
    StopEngine,
    TaskFinished,
    TasksDropped,
    Welcome,
)
from parallelz.protocol.roles import ToEngine
from parallelz.testing.network import Network
from parallelz.testing.peers import SimProcess
from parallelz.testing.work import BUSY_S, Finish, Run, SimWork, Witness, result_of

RESULTS_PERIOD_S = 0.002  # as in `engine.engine`
RESCUE_PERIOD_S = 0.005
LINGER_S = 0.3  # from the order to stop to the end of the process


class _Arrived(NamedTuple):
    """What came with a task besides what is in its `Job`."""

    inputs: list[int]
    is_known: bool  # its function


class SimEngine(SimProcess):
    """Runs what it is sent, in simulated time.

    Parameters
    ----------
    on_end
        Called with the engine and the cause when it ends.
    labels, resources
        What it says of itself.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        host: str,
        pid: int,
        witness: Witness,
        on_end: Callable[[SimEngine, str], None],
        labels: Sequence[str] = (),
        resources: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, name, "engine", host, pid)
        self.labels = list(labels)
        self.resources = dict(resources or {})
        self.engine_id = EngineId(-1)
        self.started_count = 0
        self.ended_s = float("inf")  # Unix time
        self._witness = witness
        self._on_end = on_end
        self._queue = WorkQueue()
        self._functions: KnownDefinitions[str] = KnownDefinitions()
        self._arrived: dict[tuple[TaskId, int], _Arrived] = {}
        self._current: tuple[Job, SimWork, float] | None = None  # and since when
        self._end_s: float | None = None  # of what runs
        self._results = Results(self._queue)
        self._bulk_controller_id = ""
        self._is_armed = False
        self._clears: list[str] = []
        self._is_stopping = False
        self._main = self.loop(self._step_main)
        self._io = self.loop(self._step_io)
        self.bulk = self.link("bulk", ToEngine, self._main)
        self.control = self.link("control", ToEngine, self._io)
        self.control.introduction = self._introduce

    @property
    def started(self) -> list[TaskId]:
        """What it has started and whose results the controller may not have."""
        return self._queue.open_ids()

    @property
    def is_idle(self) -> bool:
        """Whether it is connected and has nothing left to do or to say."""
        if self.bulk.welcome is None or self.control.welcome is None:
            return False
        return not (
            len(self._queue)
            or self._current
            or self._results
            or self.bulk.kept_count
            or self.control.kept_count
        )

    # -- the main thread: runs tasks, and reads `bulk` between them ------------------------

    def _step_main(self) -> float | None:
        if self._current is not None:
            assert self._end_s is not None
            if self.timeline.now_s < self._end_s:
                return self._end_s  # user code runs: nobody reads `bulk`
            self._finish()
            if len(self._queue) and self._results_are_due():
                self._flush_results()
                self._take_in_bulk()
        else:
            self._take_in_bulk()
        self._clear_if_asked()
        if not self._is_stopping and (job := self._queue.start_next()) is not None:
            self._start(job)
            return self._end_s
        self._flush_results()
        return self.next_tick_s(self.bulk)

    def _take_in_bulk(self) -> None:
        for message, buffers in self.bulk.receive():
            match message:
                case RunTask():
                    self._queue.add(self._job(message, buffers), self._bulk_controller_id)
                case DefineFunction():
                    self._functions.put(message.digest, message.name)
                case Welcome():
                    self.engine_id = message.engine_id
                    self._bulk_controller_id = message.controller_id
                case _:
                    pass
        self._results.settle(self.bulk)

    def _job(self, message: RunTask, buffers: Sequence[Buffer]) -> Job:
        own_count = message.frame_count - sum(each.frame_count for each in message.inputs)
        values = [msgspec.msgpack.decode(each.data, type=int) for each in message.inputs]
        is_known = True
        try:
            self._functions.get(message.digest)
        except UnknownFunction:
            is_known = False
        self._arrived[message.task_id, message.run] = _Arrived(values, is_known)
        return Job(message.task_id, message.run, None, message.data, buffers[:own_count])

    def _start(self, job: Job) -> None:
        work = msgspec.msgpack.decode(job.data, type=SimWork)
        now_s = self.timeline.wall_clock()
        self.started_count += 1
        self._witness.started(job.task_id, Run(now_s, job.run, self.session_id, self.engine_id))
        self.timeline.note(self.name, "starts", f"{job.task_id} run {job.run}")
        self._current = (job, work, now_s)
        self._end_s = self.timeline.now_s + work.duration_s

    def _finish(self, interrupt: str = "") -> None:
        assert self._current is not None
        (job, work, started_s), self._current, self._end_s = self._current, None, None
        inputs, is_known = self._arrived.pop((job.task_id, job.run))
        now_s = self.timeline.wall_clock()
        is_first = len(self._witness.starts[job.task_id]) == 1
        error: ErrorInfo | None = None
        if interrupt:
            error = ErrorInfo("KeyboardInterrupt", interrupt)
        elif not is_known:
            error = ErrorInfo("UnknownFunction", "the engine was never told what it is")
        elif work.outcome == "error" or (work.outcome == "flaky" and is_first):
            error = ErrorInfo("ValueError", "as the payload says")
        if error is not None:
            result = TaskFinished(
                job.task_id, "error", started_s, now_s, error=error, run=job.run
            )
            buffers: Sequence[Buffer] = ()
        elif _refuses(work, self.engine_id, is_first=is_first):
            error = ErrorInfo("UnmetDependency", "as the payload says")
            retry_after_s = BUSY_S if work.outcome == "busy" else 0.0
            result = TaskFinished(
                job.task_id,
                "unmet",
                started_s,
                now_s,
                error=error,
                retry_after_s=retry_after_s,
                run=job.run,
            )
            buffers = ()
        else:
            data = msgspec.msgpack.encode(result_of(work.value, inputs))
            buffers = job.buffers
            result = TaskFinished(
                job.task_id,
                "ok",
                started_s,
                now_s,
                data,
                frame_count=len(buffers),
                run=job.run,
            )
        finish = Finish(now_s, job.run, self.engine_id, result.status)
        self._witness.ended(job.task_id, finish)
        self.timeline.note(self.name, "finishes", f"{job.task_id} {result.status}")
        self._results.add((result, buffers), self.timeline.now_s)
        if len(self._queue) and not self._results_are_due() and not self._is_armed:
            self._is_armed = True
            self._io.wake(RESCUE_PERIOD_S)

    def _results_are_due(self) -> bool:
        return self.timeline.now_s - self._results.since_s >= RESULTS_PERIOD_S

    def _flush_results(self) -> None:
        self._results.put_on(self.bulk)
        self.bulk.flush()

    def _clear_if_asked(self) -> None:
        while self._clears:
            self.control.put(NamespaceCleared(self._clears.pop(0)))
            self._io.wake()

    # -- the I/O thread: reads `control`, obeys at once ------------------------------------

    def _step_io(self) -> float | None:
        for message, _ in self.control.receive():
            self._obey(message)
        self._results.settle(self.control)
        due_s = self._rescue_results()
        self.control.flush()
        tick_s = self.next_tick_s(self.control)
        return min((s for s in (due_s, tick_s) if s is not None), default=None)

    def _obey(self, message: Message) -> None:
        match message:
            case DropTasks():
                dropped = TasksDropped(*self._queue.revoke(message.task_ids, message.runs))
                self.timeline.note(self.name, "gives back", ", ".join(dropped.task_ids))
                self.control.put(dropped)
            case InterruptTask():
                self._interrupt(message)
            case ClearNamespace():
                self._clears.append(message.request_key)
                self._main.wake()
            case StopEngine() | Refused():
                self._stop(message.reason)
            case _:
                pass

    def _interrupt(self, message: InterruptTask) -> None:
        if self._current is None:
            return
        job, work, _ = self._current
        is_meant = not message.task_id or (message.task_id, message.run) == (
            job.task_id,
            job.run,
        )
        if is_meant and not work.is_stubborn:
            self._finish("it was interrupted")
            self._main.wake()

    def _rescue_results(self) -> float | None:
        """Send on `control` what the main thread holds, if it has been at it for a while."""
        if not self._is_armed:
            return None
        due_s = self._results.since_s + RESCUE_PERIOD_S
        if self._results and self.timeline.now_s < due_s:
            return due_s
        self._is_armed = False
        self._results.put_on(self.control)
        return None

    def _introduce(self, _: int) -> list[Item]:
        task_ids, runs = self._queue.begin(self.control.controller_id)
        self.timeline.note(self.name, "comes back", ", ".join(task_ids))
        returned: Item = (EngineReturned(task_ids, runs, self.started_count), ())
        return [returned, *self._results.unacknowledged("bulk")]

    def _stop(self, reason: str) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._results.put_on(self.control)
        self.control.put(Goodbye(reason))
        self.control.flush()
        self.timeline.after(LINGER_S, lambda: self.die(f"it was stopped: {reason}"))

    def die(self, cause: str) -> None:
        """End now, with all that it has."""
        if self.is_alive:
            self.ended_s = self.timeline.wall_clock()
            super().die(cause)
            self._on_end(self, cause)


def _refuses(work: SimWork, engine_id: EngineId, *, is_first: bool) -> bool:
    if work.outcome == "busy":
        return is_first
    return work.outcome == "unmet" and engine_id % 2 == 1
