"""Every live task and where it stands, and the only ways to move one.

`Scheduler` knows what an event means; what follows from it for a task is written here once. An
event's time and the actions that come of it are kept while it is dealt with, so that each move
can be one call.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from parallelz.core.alarms import Alarm, Alarms
from parallelz.core.dependencies import News, Wait, Waits
from parallelz.core.ended import NOWHERE, Blame, EndedTasksByClient
from parallelz.core.events import Action, EndTask, PlaceTask, RecallTasks, ReleaseEngine
from parallelz.core.roster import Engine, Lane, Roster
from parallelz.core.task import (
    ENDED,
    PLACED,
    READY,
    WAITING,
    InvalidTransition,
    Stop,
    Task,
    TaskState,
    Transition,
)
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import ErrorInfo, Status

STORY_LENGTH_MAX = 10_000
FAILURES_KEPT_MAX = 50
CAUSE_LENGTH_MAX = 300

HOW = {
    "ok": "ended well",
    "error": "failed",
    "aborted": "was aborted",
    "engine-lost": "was lost with its engine",
    "impossible": "could not run",
    "timeout": "timed out",
    "lost": "got lost",
}
"""How a task ended, by its status, for those that wait for it."""


class FailedTask(NamedTuple):
    """A task that did not end well, for those who look at the cluster."""

    now_s: float
    name: str
    status: Status
    cause: str
    engine_id: EngineId


class Board:
    """Tasks, and the moves between the states of their lives.

    Parameters
    ----------
    roster
        The engines.
    first_run
        More than any run of a task before.
    """

    def __init__(self, roster: Roster, first_run: int = 0) -> None:
        self.first_run = first_run
        self.tasks: dict[TaskId, Task] = {}
        self.roster = roster
        self.waits = Waits()  # for ends of tasks
        self.fetches = Waits()  # for values that a client holds
        self.ended = EndedTasksByClient()
        self.without_inputs: dict[TaskId, None] = {}  # adopted: the values were not asked for
        self.fetch_inputs: Callable[[Task, str], None]  # `Intake` sets it
        self.alarms = Alarms()
        self.ended_counts: Counter[Status] = Counter()
        self.failed: deque[FailedTask] = deque(maxlen=FAILURES_KEPT_MAX)  # the latest
        self.now_s = 0.0
        self.actions: list[Action] = []
        self._story: deque[tuple[float, TaskId, TaskState, TaskState, str, EngineId | None]] = (
            deque(maxlen=STORY_LENGTH_MAX)  # lines of `Transition`
        )
        self._news: deque[News] = deque()  # of ends, for those who wait
        self._to_look_at: dict[EngineId, Engine] = {}  # has direct tasks, or is to end

    # -- states ----------------------------------------------------------------------------

    def move(
        self, task: Task, finish: TaskState, cause: str, engine_id: EngineId | None = None
    ) -> None:
        """Change a task's state. Nothing else does."""
        if not task.state.successors & finish.bit:
            raise InvalidTransition(f"{task!r} -> {finish.value} ({cause})")
        self._story.append((self.now_s, task.id, task.state, finish, cause, engine_id))
        task.state = finish
        task.engine_id = engine_id

    def story(self, task_id: TaskId) -> list[Transition]:
        """Return what happened to a task, oldest first, as far back as is remembered."""
        return [Transition(*line) for line in self._story if line[1] == task_id]

    def last_moves(self, count: int) -> list[Transition]:
        """Return the latest moves of all tasks, oldest first."""
        start = max(len(self._story) - count, 0)
        return [Transition(*line) for line in islice(self._story, start, None)]

    def make_ready(self, task: Task, cause: str, *, first: bool = False) -> None:
        """Let a task wait for an engine, or end it if none ever can have it."""
        options = task.options
        if self.without_inputs and task.id in self.without_inputs:
            del self.without_inputs[task.id]
            self.fetch_inputs(task, cause)
            return
        if options is None and task.engine_ids is not None:
            engine = self.roster.engines[task.engine_ids[0]]
            self.move(task, READY, cause)
            engine.direct.push(task, first=first)
            self.look_at(engine)
            return
        lane = self.roster.open
        if options is not None or task.refused:
            lane = self.roster.lane_of(task)
            why = "" if lane.engines else self._why_impossible(task, lane)
            if why:
                self.end(task, "impossible", error=ErrorInfo("ImpossibleDependency", why))
                return
        self.move(task, READY, cause)
        lane.queue.push(task, first=first)
        self.roster.awake[lane.number] = lane
        if options is None or options.wait_timeout_s <= 0:
            return
        if task.id not in self.alarms.by_task:
            self.alarms.set(task.id, Alarm.UNPLACED, self.now_s + options.wait_timeout_s)

    def look_at(self, engine: Engine) -> None:
        """Have `fill` see to what only this engine can have."""
        self._to_look_at[engine.id] = engine

    def _why_impossible(self, task: Task, lane: Lane) -> str:
        if task.engine_ids is not None:
            present = [e for e in task.engine_ids if e in self.roster.engines]
            if not present:
                return (
                    f"none of the engines {list(task.engine_ids)} that it may run on is there"
                )
            if task.refused:
                return f"every engine that it may run on refused it: {list(task.refused)}"
            return f"no engine {lane.needs}"
        if task.refused:
            return f"every engine that it may run on refused it: {list(task.refused)}"
        return ""

    # -- engines ---------------------------------------------------------------------------

    def tell(self) -> None:
        """Tell those who wait for it what has ended."""
        while self._news:
            self.settle(self.waits.settle(self._news.popleft()))

    def fill(self) -> None:
        """Place ready tasks until none is left or no engine has room."""
        if self._to_look_at:
            engines, self._to_look_at = self._to_look_at, {}
            for engine in engines.values():
                if self.roster.engines.get(engine.id) is engine:  # else it was lost meanwhile
                    self._fill_direct(engine)
        awake = self.roster.awake
        while awake:
            if len(awake) > 1:
                self._fill_next_lane()
                continue
            (lane,) = awake.values()
            queue = lane.queue
            while (task := queue.head()) is not None:
                found = self.roster.room_for(lane, task.digest)
                if found is None:
                    break
                queue.pop()
                self.place(task, found)
            awake.clear()

    def _fill_next_lane(self) -> None:
        """Place the first task of the lane whose first task comes before those of others."""
        best: tuple[Lane, Task, Engine] | None = None
        best_rank = (0, 0.0, False)
        for number, lane in list(self.roster.awake.items()):
            task = lane.queue.head()
            engine = None if task is None else self.roster.room_for(lane, task.digest)
            if task is None or engine is None:
                del self.roster.awake[number]
                continue
            used_s = self.roster.shares.of(task.session_id)
            rank = (-task.priority, used_s, lane is self.roster.open)  # who has choice waits
            if best is None or rank < best_rank:
                best, best_rank = (lane, task, engine), rank
        if best is not None:
            lane, task, engine = best
            lane.queue.pop()
            self.place(task, engine)

    def _fill_direct(self, engine: Engine) -> None:
        while (task := engine.direct.head()) is not None:
            if not self.roster.has_room_for(engine, task):
                return
            engine.direct.pop()
            self.place(task, engine)
        if engine.is_draining and not engine.placed:
            self.actions.append(ReleaseEngine(engine.id))

    def place(self, task: Task, engine: Engine) -> None:
        """Put a ready task on an engine."""
        self.move(task, PLACED, "placed", engine.id)
        task.placed_count += 1
        if not engine.placed:
            engine.since_s = self.now_s
        self.roster.place(engine, task)
        self.roster.shares.serve(task.session_id, task.expected_s)
        if self.alarms.by_task:
            self.alarms.clear(task.id)
        if task.options is not None and task.options.max_runtime_s > 0:
            engine.has_limits = True
            self._limit(engine)
        self.actions.append(PlaceTask(task.id, engine.id, task.placed_count))

    def adopt(self, task: Task, engine: Engine, run: int) -> None:
        """Note that a task which waits was started by an engine before all that is there."""
        options = task.options
        if options is not None and options.engine_ids is not None:
            task.engine_ids = tuple(options.engine_ids)
        self.move(task, READY, f"was started on {engine.id} before the restart")
        self.move(task, PLACED, "is still there", engine.id)
        task.placed_count = run
        later = list(engine.placed.values())
        self.roster.place(engine, task)
        for other in later:
            engine.placed[other.id] = engine.placed.pop(other.id)
        engine.adopted_count += 1
        engine.ended_count = max(engine.ended_count - 1, 0)
        engine.since_s = self.now_s
        if options is not None and options.inputs:
            self.without_inputs[task.id] = None
        if options is not None and options.max_runtime_s > 0:
            engine.has_limits = True
            self._limit(engine)

    def has_ended(self, task_id: TaskId) -> bool:
        """Whether a task is known to have ended."""
        session_id, _, digits = task_id.rpartition("-")
        return digits.isdecimal() and int(digits) in self.ended.of(SessionId(session_id))

    def release(self, task: Task, engine: Engine) -> None:
        """Take a task off its engine; what to do with it is for the caller."""
        is_current = next(iter(engine.placed)) == task.id
        self.roster.release(engine, task)
        if self.alarms.by_task:
            self.alarms.clear(task.id)
        if is_current:
            engine.since_s = self.now_s
            if engine.has_limits:
                self._limit(engine)
        if engine.direct.count or engine.is_draining:
            self.look_at(engine)

    def _limit(self, engine: Engine) -> None:
        """See to it that the task which runs now does not do so for too long."""
        task = engine.current
        if task is None:
            engine.has_limits = False
        elif task.options is not None and task.options.max_runtime_s > 0:
            due_s = engine.since_s + task.options.max_runtime_s
            if task.id not in self.alarms.by_task:
                self.alarms.set(task.id, Alarm.OVERRUN, due_s)

    def recall(self, engine: Engine, tasks: Iterable[Task]) -> None:
        """Ask an engine to give back what it has not started.

        Until it has answered it gets nothing: what comes back is to go before that.
        """
        placed = list(tasks)
        if placed:
            engine.recall_count += 1
            self.roster.sort(engine)
            counts = [task.placed_count for task in placed]
            self.actions.append(RecallTasks(engine.id, [task.id for task in placed], counts))

    # -- ends ------------------------------------------------------------------------------

    def end(
        self,
        task: Task,
        status: Status,
        *,
        engine_id: EngineId = NOWHERE,
        error: ErrorInfo | None = None,
        by_result: bool = False,
        how: str = "",
        root: str = "",
        raised: ErrorInfo | None = None,
    ) -> None:
        """Answer the client and forget the task; `fill` tells those who wait for it.

        Parameters
        ----------
        how, root
            For those who wait: see `News`. "": as the status says.
        raised
            What the result says that it failed by; `error` is what we say.
        """
        if task.state is READY:
            self._skip(task)
        self.move(task, ENDED, status if error is None else error.evalue or status)
        task_id = task.id
        self.without_inputs.pop(task_id, None)
        del self.tasks[task_id]
        if not self.tasks:
            self.tasks.clear()  # a dict keeps the room of all that it ever held
        if self.alarms.by_task:
            self.alarms.clear(task_id)
        session_id = task.session_id
        ok = status == "ok"
        self.ended_counts[status] += 1
        self.ended.add(session_id, task.number, engine_id, ok=ok)
        self.actions.append(
            EndTask(task_id, session_id, status, engine_id, task.run_count, by_result, error)
        )
        is_awaited = task_id in self.waits.by_task
        if ok:
            if is_awaited:
                self._news.append(News(task_id, ok, engine_id, task_id, HOW["ok"], task_id))
            return
        if status != "aborted":  # which somebody wanted
            self._note_failure(task, status, engine_id, error or raised)
        how = how or HOW[status]
        blame = Blame(task.name, how, root or f"{task.name} {how}")
        self.ended.add_blame(session_id, task.number, blame)
        if is_awaited:
            self._news.append(News(task_id, ok, engine_id, *blame))

    def _note_failure(
        self, task: Task, status: Status, engine_id: EngineId, error: ErrorInfo | None
    ) -> None:
        cause = HOW[status] if error is None else f"{error.ename}: {error.evalue}"
        failed = FailedTask(self.now_s, task.name, status, cause[:CAUSE_LENGTH_MAX], engine_id)
        self.failed.append(failed)

    def settle(self, waits: list[Wait]) -> None:
        """Do what decided waits mean for their tasks."""
        for wait in waits:
            task = wait.task
            if task.state is not WAITING:
                continue  # another of its dependencies ended it first
            error = self.apply(wait)
            if error is not None:
                how = f"could not run as {wait.root}" if wait.root else ""
                self.end(task, "impossible", error=error, how=how, root=wait.root)
                continue
            task.unresolved -= 1
            if not task.unresolved:
                last = wait.last
                self.make_ready(task, "submitted" if last is None else f"after {last.task_id}")

    def apply(self, wait: Wait) -> ErrorInfo | None:
        """Note what a decided wait says of where its task may run; return why it cannot."""
        if wait.verdict is False:
            return wait.error
        if not wait.is_place:
            return None
        task = wait.task
        if wait.engines:
            allowed = wait.engines if task.engine_ids is None else task.engine_ids
            targets = task.engine_ids
            task.engine_ids = tuple(e for e in wait.engines if e in allowed)
            if not task.engine_ids and targets:
                text = f"it is to follow {wait.some_ids}, which ran on {list(wait.engines)}"
                return ErrorInfo("ImpossibleDependency", f"{text}, and not on {list(targets)}")
        is_gone = not any(engine_id in self.roster.engines for engine_id in wait.engines)
        if is_gone and (wait.engines or wait.is_place_lost):
            text = f"the engine of {wait.some_ids}, which it is to follow, is gone"
            return ErrorInfo("ImpossibleDependency", text)
        return None

    def _skip(self, task: Task) -> None:
        if not task.is_direct:
            self.roster.lane_of(task).queue.skip(task)
        elif task.engine_ids is not None and task.engine_ids[0] in self.roster.engines:
            self.roster.engines[task.engine_ids[0]].direct.skip(task)

    def fail_stopped(self, task: Task, engine: Engine) -> None:
        """End a task that was stopped while it ran."""
        if task.stop is Stop.OVERRUN:
            assert task.options is not None
            text = f"it ran longer than max_runtime = {task.options.max_runtime_s:g} s"
            error = ErrorInfo("TaskTimeout", text)
            self.end(task, "timeout", engine_id=engine.id, error=error)
        else:
            error = ErrorInfo("TaskAborted", "it was cancelled while it ran")
            self.end(task, "aborted", engine_id=engine.id, error=error)

    # -- checks ----------------------------------------------------------------------------

    def validate(self) -> None:
        """Check every invariant; costs time linear in the number of tasks."""
        queued: dict[TaskId, int] = {}
        for lane in self.roster.lanes.values():
            for task in lane.queue.tasks():
                queued[task.id] = queued.get(task.id, 0) + 1
        for engine in self.roster.engines.values():
            for task in engine.direct.tasks():
                queued[task.id] = queued.get(task.id, 0) + 1
            for task in engine.placed.values():
                assert task.engine_id == engine.id, task
        for task in self.tasks.values():
            is_placed = task.state is PLACED
            assert (task.engine_id is not None) == is_placed, task
            assert (task.state is WAITING) == bool(task.unresolved), task
            assert queued.get(task.id, 0) == (task.state is READY), task
            assert task.state is not ENDED, task
            if task.engine_id is not None:
                assert task.id in self.roster.engines[task.engine_id].placed, task
        self.roster.validate()
        for lane in self.roster.lanes.values():
            head = lane.queue.head()
            idle = [engine for engine in lane.engines.values() if engine.rank == 0]
            assert head is None or not idle, f"an engine lies idle for {head}"
