"""The cluster around the core, as a state machine is to play it, and what the core promised it.

Engines are faithful where it matters: what is sent to one may still be on its way when it is
asked back, what it sends may be on its way when it dies, and its work queue is the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from helpers_core import NOBODY, engine_session

from parallelz.core.events import (
    Action,
    AskValues,
    EndTask,
    EngineArrived,
    Event,
    KillEngine,
    LookUpTasks,
    PlaceTask,
    RecallTasks,
    ReleaseEngine,
    StopTask,
)
from parallelz.core.scheduler import Scheduler
from parallelz.core.task import Stop, TaskState
from parallelz.engine.workqueue import Job, WorkQueue
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    Dependency,
    EngineInfo,
    PeerInfo,
    SubmitTask,
    TaskFinished,
    TaskOptions,
)


@dataclass
class Known:
    """What the world knows of a task that it submitted."""

    session: SessionId
    number: int
    options: TaskOptions = field(default_factory=TaskOptions)
    direct: EngineId | None = None
    message: SubmitTask | None = None
    starts: int = 0  # that count against its retries
    ok_runs: int = 0
    refused: set[int] = field(default_factory=set)
    stop_asked: bool = False  # aborted or cancelled
    not_before_s: float = 0.0
    where: int | None = None  # as far as the core has been told
    ran_on: int | None = None


@dataclass
class SimulatedEngine:
    """An engine, as far as the core can tell."""

    info: EngineInfo
    inbox: list[PlaceTask] = field(default_factory=list)
    queue: WorkQueue = field(default_factory=WorkQueue)
    running: Job | None = None
    results: list[TaskFinished] = field(default_factory=list)  # on their way to the core
    recalls: list[RecallTasks] = field(default_factory=list)
    started_count: int = 0
    is_draining: bool = False
    is_released: bool = False
    is_to_die: bool = False


class Cluster:
    """Feeds the core, plays engines, and checks each action against what was promised."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.now_s = 0.0
        self.known: dict[TaskId, Known] = {}
        self.ended: dict[TaskId, str] = {}
        self.engines: dict[int, SimulatedEngine] = {}
        self.engine_count = 0
        self.starts: dict[tuple[SessionId, int], list[int]] = {}  # of direct tasks
        self.lookups: list[TaskId] = []
        self.asked_values: list[tuple[SessionId, TaskId]] = []
        self.journal: list[tuple[Event, SessionId, float, list[Action]]] = []

    def feed(self, event: Event, source: SessionId = NOBODY) -> list[Action]:
        """Hand over one event; check each action."""
        self.now_s += 0.004
        actions = self.scheduler.handle(event, source, self.now_s)
        self.journal.append((event, source, self.now_s, actions))
        for action in actions:
            self._check(action)
        placed = {a.engine_id for a in actions if isinstance(a, PlaceTask)}
        for engine_id in sorted(placed):
            self._check_priority(engine_id)
        return actions

    # -- promises --------------------------------------------------------------------------

    def _check(self, action: Action) -> None:
        match action:
            case PlaceTask():
                self._check_placed(action)
                self.engines[action.engine_id].inbox.append(action)
            case EndTask():
                self._check_ended(action)
            case RecallTasks():
                self.engines[action.engine_id].recalls.append(action)
            case StopTask():
                stop = self.scheduler.tasks[action.task_id].stop
                assert stop in (Stop.CANCEL, Stop.OVERRUN), "stopped what nobody wants stopped"
            case KillEngine():
                placed = self.scheduler.roster.engines[action.engine_id].placed.values()
                stops = {task.stop for task in placed}
                assert stops & {Stop.CANCEL, Stop.OVERRUN}, "killed it for nothing"
                self.engines[action.engine_id].is_to_die = True
            case ReleaseEngine():
                engine = self.engines[action.engine_id]
                assert engine.is_draining, "released an engine that nobody drains"
                assert not self._holds_any(action.engine_id), "released with something to do"
                engine.is_released = True
            case LookUpTasks():
                self.lookups += action.task_ids
            case AskValues():
                self.asked_values += [(action.session_id, t) for t in action.task_ids]
            case _:
                pass

    def _holds_any(self, engine_id: EngineId) -> bool:
        return any(known.where == engine_id for known in self.known.values())

    def _check_placed(self, action: PlaceTask) -> None:
        task_id, engine_id = action.task_id, action.engine_id
        known = self.known[task_id]
        assert task_id not in self.ended, "placed after its end"
        assert engine_id in self.engines, "placed on an engine that is not there"
        assert known.where is None, "placed twice"
        assert not known.stop_asked, "placed after it was aborted"
        assert self.now_s >= known.not_before_s - 1e-9, "retried too early"
        known.where = engine_id
        engine = self.engines[engine_id]
        if known.direct is not None:
            assert engine_id == known.direct, "a direct task on another engine"
            return
        options = known.options
        assert not engine.is_draining, "a drained engine got something new"
        assert options.engine_ids is None or engine_id in options.engine_ids, "not its target"
        assert set(options.labels) <= set(engine.info.labels), "labels"
        for name, amount in options.resources.items():
            assert engine.info.resources.get(name, 0.0) >= amount, "resources"
        assert engine_id not in known.refused, "sent where it was refused"
        for dependency in (options.after, options.follow):
            assert dependency is None or self.is_met(dependency), "too early"
        assert all(self.ended.get(t) == "ok" for t in options.inputs), "without its inputs"
        if options.follow is not None:
            places = {self.known[t].ran_on for t in options.follow.task_ids if t in self.ended}
            assert engine_id in places - {None} or places <= {None}, "did not follow"

    def _check_priority(self, engine_id: int) -> None:
        """An engine that had nothing to do got one of the tasks that matter most."""
        core = self.scheduler.roster.engines.get(EngineId(engine_id))
        if core is None or len(core.placed) != 1 or core.current is None:
            return
        got = core.current
        if got.engine_ids is not None and got.options is None:
            return
        for lane in core.lanes:
            for task in lane.queue.tasks():
                assert task.priority <= got.priority, f"{task} should have gone before {got}"

    def _check_ended(self, action: EndTask) -> None:
        task_id, status = action.task_id, action.status
        known = self.known[task_id]
        assert task_id not in self.ended, "ended twice"
        options = known.options
        match status:
            case "ok":
                assert known.ok_runs, "ended well without having run well"
            case "aborted":
                assert known.stop_asked, "aborted without having been asked"
            case "timeout":
                assert options.wait_timeout_s or options.max_runtime_s, "timed out for nothing"
            case "impossible":
                assert action.error is not None
                assert options != TaskOptions() or known.refused, "impossible for no reason"
            case "engine-lost" | "error":
                pass
        if action.error is not None:
            assert action.error.evalue, "without saying why"
        self.ended[task_id] = status
        known.ran_on = None if action.engine_id < 0 else action.engine_id
        known.where = None

    def is_met(self, dependency: Dependency) -> bool:
        """Whether a dependency is satisfied by what has ended."""
        met = [self._counts(t, dependency) for t in dict.fromkeys(dependency.task_ids)]
        return all(met) if dependency.all else any(met)

    def _counts(self, task_id: TaskId, dependency: Dependency) -> bool:
        status = self.ended.get(task_id)
        if status is None:
            return False
        return dependency.success if status == "ok" else dependency.failure

    def is_hopeless(self, dependency: Dependency) -> bool:
        """Whether it is certain that a dependency never will be satisfied."""
        ids = dict.fromkeys(dependency.task_ids)
        if any(task_id in self.lookups for task_id in ids):
            return False
        lost = [t in self.ended and not self._counts(t, dependency) for t in ids]
        return any(lost) if dependency.all else all(lost) and bool(lost)

    def check_state(self) -> None:
        """What must hold between any two events."""
        self.scheduler.validate()
        for task_id, known in self.known.items():
            limit = 1 + max(known.options.retries, 0)
            assert known.starts <= limit, f"{task_id} started {known.starts} times"
            task = self.scheduler.tasks.get(task_id)
            assert (task is None) == (task_id in self.ended), task_id
            if task is None or task.state is not TaskState.WAITING:
                continue
            for dependency in (known.options.after, known.options.follow):
                assert dependency is None or not self.is_hopeless(dependency), (
                    f"{task_id} waits for what cannot come: {dependency}"
                )

    # -- engines ---------------------------------------------------------------------------

    def arrive(self, labels: list[str], resources: dict[str, float]) -> int:
        number = self.engine_count
        self.engine_count += 1
        peer = PeerInfo("host", "host-id", 100 + number)
        info = EngineInfo(EngineId(number), engine_session(number), peer, labels, resources)
        self.engines[number] = SimulatedEngine(info)
        self.feed(EngineArrived(info), engine_session(number))
        return number

    def deliver(self, number: int) -> None:
        """Let what was sent to an engine arrive, and start if it is idle."""
        engine = self.engines[number]
        for action in engine.inbox:
            engine.queue.add(Job(action.task_id, action.run, None, b"", ()))
        engine.inbox.clear()
        self._start(number)

    def _start(self, number: int) -> None:
        engine = self.engines[number]
        if engine.running is None and (job := engine.queue.start_next()) is not None:
            engine.running = job
            engine.started_count += 1
            known = self.known[job.task_id]
            known.starts += 1
            if known.direct is not None:
                order = self.starts.setdefault((known.session, number), [])
                assert not order or order[-1] < known.number, "direct tasks out of order"
                order.append(known.number)

    def finish(
        self, number: int, status: str, duration_s: float = 0.0, retry_after_s: float = 0.0
    ) -> None:
        """Let the running task end; its result is on its way, and the next one starts."""
        engine = self.engines[number]
        assert engine.running is not None
        task_id = engine.running.task_id
        engine.running = None
        engine.results.append(
            TaskFinished(task_id, status, 10.0, 10.0 + duration_s, retry_after_s=retry_after_s)  # type: ignore[arg-type]
        )
        known = self.known[task_id]
        if status == "unmet":
            known.starts -= 1
        self._start(number)

    def report(self, number: int) -> None:
        """Let an engine's first result reach the core."""
        result = self.engines[number].results.pop(0)
        known = self.known[result.task_id]
        if known.where == number:
            known.where = None
            if result.status == "ok":
                known.ok_runs += 1
            elif result.status == "unmet" and not result.retry_after_s:
                known.refused.add(number)
            delay_s = known.options.retry_delay_s
            if result.status == "error" and delay_s:
                known.not_before_s = self.now_s + 0.004 + delay_s
            elif result.status == "unmet":
                known.not_before_s = self.now_s + 0.004 + result.retry_after_s
        self.feed(result, engine_session(number))
