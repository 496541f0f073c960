"""Which task runs where, and how each one ends.

Theory of operation
-------------------
`Scheduler.handle(event, source, now)` updates the state and returns what must be done about it,
in order. The same events give the same actions, always; a bug can be replayed.

Ready tasks that may run anywhere stand in one queue, first come, first served. A task that is
bound to one engine stands in that engine's own queue, before all others there, in the order of
submission. A task that may run on some engines stands in the queues of all of them and is
skipped where it is met after its start.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import assert_never

from parallelz.core.dependencies import Dependencies, Settled, Wait
from parallelz.core.ended import NOWHERE, EndedTasksByClient
from parallelz.core.events import (
    Action,
    AnnounceEngine,
    AnnounceLoss,
    ClientForgotten,
    EndTask,
    EngineArrived,
    EngineLost,
    Event,
    PlaceTask,
    RecallTasks,
    Tick,
    Warn,
)
from parallelz.core.roster import PREFETCH_S, Engine, Roster
from parallelz.core.task import InvalidTransition, Task, TaskState, Transition
from parallelz.ids import EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    AbortTasks,
    ErrorInfo,
    Status,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskFinished,
    TaskOptions,
    TasksDropped,
)

STORY_LENGTH_MAX = 10_000
STUCK_PERIOD_S = 2 * PREFETCH_S


class Scheduler:
    """Assigns tasks to engines and sees each to its end. Holds no socket, reads no clock."""

    def __init__(self) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self.roster = Roster()
        self._ready: deque[Task] = deque()
        self._dependencies = Dependencies()
        self._ended = EndedTasksByClient()
        self._timed: dict[TaskId, Task] = {}  # not placed yet, and only so long
        self._timeouts: list[tuple[float, TaskId]] = []  # a heap; what is not timed is stale
        self._stuck_check_s = 0.0
        self._warned: set[SessionId] = set()  # of having no engines; membership only
        self._story: deque[tuple[float, TaskId, TaskState, TaskState, str, EngineId | None]] = (
            deque(maxlen=STORY_LENGTH_MAX)  # lines of `Transition`
        )
        self._changed: dict[EngineId, Engine] = {}  # with room or tasks that it had not before

    def handle(  # noqa: C901 - one arm for each event, and nothing else
        self, event: Event, source: SessionId, now_s: float
    ) -> list[Action]:
        """Take in one event; return what to do about it, in order.

        Parameters
        ----------
        event
            What was said or seen.
        source
            Who said it; "" for what the controller saw.
        now_s
            Seconds from any origin, never less than before.
        """
        actions: list[Action] = []
        match event:
            case TaskFinished():
                self._finish(event, source, now_s, actions)
            case SubmitTask():
                number = int(event.task_id.rpartition("-")[2])
                self._submit(event.task_id, source, number, event, now_s, actions)
            case SubmitMap():
                for number in range(event.first_number, event.first_number + len(event.items)):
                    task_id = task_id_of(source, number)
                    self._submit(task_id, source, number, event, now_s, actions)
            case SubmitDirect():
                self._submit_direct(event, source, now_s, actions)
            case TasksDropped():
                self._take_back(event, source, now_s, actions)
            case AbortTasks():
                self._abort(event, source, now_s, actions)
            case EngineArrived():
                self._join(event, now_s, actions)
            case EngineLost():
                self._lose(event, now_s, actions)
            case ClientForgotten():
                self._ended.forget(event.session_id)
                self._warned.discard(event.session_id)
            case Tick():
                self._tick(now_s, actions)
            case _:
                assert_never(event)
        self._fill(now_s, actions)
        return actions

    def next_deadline_s(self) -> float | None:
        """Return when `Tick` is due, if nothing happens before."""
        while self._timeouts and self._timeouts[0][1] not in self._timed:
            heapq.heappop(self._timeouts)  # it was placed or ended in time
        stuck_s = self._stuck_check_s + STUCK_PERIOD_S if self.roster.prefetches else None
        timeout_s = self._timeouts[0][0] if self._timeouts else None
        return min((t for t in (stuck_s, timeout_s) if t is not None), default=None)

    def _submit(
        self,
        task_id: TaskId,
        source: SessionId,
        number: int,
        event: SubmitTask | SubmitMap,
        now_s: float,
        actions: list[Action],
    ) -> None:
        if task_id in self.tasks or number in self._ended.of(source):
            return  # a client says it again after a break
        task = Task(task_id, source, number, event.digest, event.options)
        self.tasks[task_id] = task
        if event.options is None:
            self._make_ready(task, now_s, "submitted", actions)
        else:
            self._submit_picky(task, event.options, now_s, actions)
        if not self.roster.engines and source not in self._warned:
            self._warned.add(source)
            text = (
                "there are no engines: balanced tasks wait until one joins"
                " (start some with `ipclusterz engines -n 4` or `ipenginez -n 4`)"
            )
            actions.append(Warn(source, text))

    def _submit_picky(
        self, task: Task, options: TaskOptions, now_s: float, actions: list[Action]
    ) -> None:
        if options.engine_ids is not None:
            task.engine_ids = tuple(options.engine_ids)
        if options.wait_timeout_s:
            self._timed[task.id] = task
            heapq.heappush(self._timeouts, (now_s + options.wait_timeout_s, task.id))
        waits = [
            self._dependencies.add(task, dependency, self.tasks, self._ended, is_place=is_place)
            for dependency, is_place in ((options.after, False), (options.follow, True))
            if dependency is not None
        ]
        task.unresolved = sum(not wait.is_settled for wait in waits)
        for wait in waits:
            if wait.is_settled and not self._apply(wait, now_s, actions):
                return
        if not task.unresolved:
            self._make_ready(task, now_s, "submitted", actions)

    def _submit_direct(
        self, event: SubmitDirect, source: SessionId, now_s: float, actions: list[Action]
    ) -> None:
        ended = self._ended.of(source)
        for index, engine_id in enumerate(event.engine_ids):
            number = event.first_number + index
            task_id = task_id_of(source, number)
            if task_id in self.tasks or number in ended:
                continue
            task = Task(task_id, source, number, event.digest, None, (engine_id,))
            self.tasks[task_id] = task
            engine = self.roster.engines.get(engine_id)
            if engine is None:
                error = ErrorInfo("EngineError", self.roster.why_gone(engine_id))
                self._end(task, "engine-lost", now_s, "no such engine", actions, error=error)
            else:
                self._make_ready(task, now_s, f"submitted for {engine_id}", actions)

    def _finish(
        self, event: TaskFinished, source: SessionId, now_s: float, actions: list[Action]
    ) -> None:
        engine = self.roster.by_session.get(source)
        task = self.tasks.get(event.task_id)
        if engine is None or task is None or task.engine_id != engine.id:
            return  # an engine believed lost still answers for a task that moved on
        engine.is_late = False
        self._release(task, engine, now_s)
        engine.ended_count += 1
        self.roster.learn(task.digest, event.completed_s - event.started_s)
        task.run_count += 1
        if event.status != "ok" and task.retries_left:
            task.retries_left -= 1
            self._make_ready(task, now_s, f"failed on {engine.id}, to be retried", actions)
            return
        status: Status = "ok" if event.status == "ok" else "error"
        self._end(task, status, now_s, status, actions, engine.id, by_result=True)

    def _take_back(
        self, event: TasksDropped, source: SessionId, now_s: float, actions: list[Action]
    ) -> None:
        engine = self.roster.by_session.get(source)
        if engine is None:
            return
        engine.recalling = False
        returned = [
            task
            for task_id in event.task_ids
            if (task := self.tasks.get(task_id)) is not None and task.engine_id == engine.id
        ]
        for task in reversed(returned):
            self._release(task, engine, now_s)
            if task.abort:
                self._end(task, "aborted", now_s, "aborted", actions)
            else:
                self._make_ready(task, now_s, f"given back by {engine.id}", actions, first=True)
        self.roster.recalled(engine)
        self._changed[engine.id] = engine

    def _abort(
        self, event: AbortTasks, source: SessionId, now_s: float, actions: list[Action]
    ) -> None:
        if event.task_ids is None:
            tasks = [task for task in self.tasks.values() if task.session_id == source]
        else:
            tasks = [t for task_id in event.task_ids if (t := self.tasks.get(task_id))]
        recalls: dict[EngineId, list[Task]] = {}
        for task in tasks:
            if event.engine_ids is not None and not _bound_for(task, event.engine_ids):
                continue
            if task.engine_id is not None:
                task.abort = True
                recalls.setdefault(task.engine_id, []).append(task)
            elif task.state is not TaskState.ENDED:
                self._end(task, "aborted", now_s, "aborted", actions)
        actions.extend(_recall(engine_id, placed) for engine_id, placed in recalls.items())

    def _join(self, event: EngineArrived, now_s: float, actions: list[Action]) -> None:
        engine = Engine(event.engine)
        self.roster.add(engine)
        self._changed[engine.id] = engine
        self._warned.clear()
        actions.append(AnnounceEngine(event.engine))

    def _lose(self, event: EngineLost, now_s: float, actions: list[Action]) -> None:
        engine = self.roster.by_session.get(event.session_id)
        if engine is None:
            return
        self._changed.pop(engine.id, None)
        actions.append(AnnounceLoss(engine.id, event.cause))
        peer = engine.info.peer
        text = f"engine {engine.id} (pid {peer.pid} on {peer.host}) is gone: {event.cause}"
        self.roster.remove(engine, text)
        error = ErrorInfo("EngineError", text)
        cause = f"lost {engine.id}"
        placed = list(engine.placed.values())
        again: list[Task] = []
        for task in placed:
            self._move(task, TaskState.READY, now_s, cause)
            if task.abort:
                self._end(task, "aborted", now_s, "aborted", actions)
            elif task.retries_left and self._has_place(task):
                again.append(task)
            else:
                # It may have started, and without retries a task starts at most once.
                self._end(task, "engine-lost", now_s, cause, actions, engine.id, error)
        for task in reversed(again):
            task.retries_left -= 1
            task.run_count += 1
            self._queue(task, first=True)
        for task in engine.bound:
            if task.state is TaskState.READY and not self._has_place(task):
                self._end(task, "engine-lost", now_s, f"lost {engine.id}", actions, error=error)

    def _has_place(self, task: Task) -> bool:
        return task.engine_ids is None or any(
            engine_id in self.roster.engines for engine_id in task.engine_ids
        )

    def _tick(self, now_s: float, actions: list[Action]) -> None:
        while self._timeouts and self._timeouts[0][0] <= now_s:
            task = self._timed.pop(heapq.heappop(self._timeouts)[1], None)
            if task is not None:
                error = ErrorInfo("TaskTimeout", f"task {task.id} was not placed in time")
                self._end(task, "timeout", now_s, "timed out", actions, error=error)
        if now_s < self._stuck_check_s + STUCK_PERIOD_S:
            return
        self._stuck_check_s = now_s
        for engine in self.roster.stuck():
            engine.recalling = engine.is_late = True
            self.roster.recalled(engine)
            actions.append(_recall(engine.id, list(engine.placed.values())[1:]))

    # -- queues ----------------------------------------------------------------------------

    def _make_ready(
        self,
        task: Task,
        now_s: float,
        cause: str,
        actions: list[Action],
        *,
        first: bool = False,
    ) -> None:
        if task.engine_ids is not None and not self._has_place(task):
            text = f"none of the engines {list(task.engine_ids)} that it may run on is there"
            error = ErrorInfo("ImpossibleDependency", text)
            self._end(task, "impossible", now_s, text, actions, error=error)
            return
        self._move(task, TaskState.READY, now_s, cause)
        self._queue(task, first=first)

    def _queue(self, task: Task, *, first: bool) -> None:
        if task.engine_ids is None:
            queues = [self._ready]
        else:
            engines = [self.roster.engines.get(engine_id) for engine_id in task.engine_ids]
            queues = [engine.bound for engine in engines if engine is not None]
            self._changed.update((e.id, e) for e in engines if e is not None)
        for queue in queues:
            if first:
                queue.appendleft(task)
            else:
                queue.append(task)

    def _fill(self, now_s: float, actions: list[Action]) -> None:
        """Place ready tasks until none is left or no engine has room."""
        if self._changed:
            changed, self._changed = self._changed, {}
            for engine in changed.values():
                self._fill_bound(engine, now_s, actions)
        ready, roster = self._ready, self.roster
        while ready:
            task = ready[0]
            if task.state is not TaskState.READY:
                ready.popleft()  # it was aborted or timed out meanwhile
                continue
            engine_with_room = roster.room_for(task)
            if engine_with_room is None:
                return
            ready.popleft()
            self._place(task, engine_with_room, now_s, actions)

    def _fill_bound(self, engine: Engine, now_s: float, actions: list[Action]) -> None:
        while engine.bound:
            task = engine.bound[0]
            if task.state is TaskState.READY:
                if not self.roster.has_room_for(engine, task):
                    return
                self._place(task, engine, now_s, actions)
            engine.bound.popleft()

    def _place(self, task: Task, engine: Engine, now_s: float, actions: list[Action]) -> None:
        self._move(task, TaskState.PLACED, now_s, "placed", engine.id)
        if self._timed:
            self._timed.pop(task.id, None)
        task.placed_count += 1
        self.roster.place(engine, task)
        actions.append(PlaceTask(task.id, engine.id, task.placed_count))

    def _release(self, task: Task, engine: Engine, now_s: float) -> None:
        self.roster.release(engine, task)
        if engine.bound:
            self._changed[engine.id] = engine

    # -- ends ------------------------------------------------------------------------------

    def _end(
        self,
        task: Task,
        status: Status,
        now_s: float,
        cause: str,
        actions: list[Action],
        engine_id: EngineId = NOWHERE,
        error: ErrorInfo | None = None,
        *,
        by_result: bool = False,
    ) -> None:
        """Answer the client, then release or end what waits for this task."""
        settled = self._end_alone(
            task, status, now_s, cause, actions, engine_id, error, by_result=by_result
        )
        if not settled:
            return
        waves = deque([settled])
        while waves:
            for other, wait in waves.popleft():
                if other.state is not TaskState.WAITING:
                    continue  # another of its dependencies ended it first
                other.unresolved -= 1
                if wait.is_impossible:
                    why = wait.error
                    waves.append(
                        self._end_alone(
                            other, "impossible", now_s, why.evalue, actions, NOWHERE, why
                        )
                    )
                elif self._apply(wait, now_s, actions) and not other.unresolved:
                    self._make_ready(other, now_s, f"after {wait.last_id}", actions)

    def _end_alone(
        self,
        task: Task,
        status: Status,
        now_s: float,
        cause: str,
        actions: list[Action],
        engine_id: EngineId,
        error: ErrorInfo | None,
        *,
        by_result: bool = False,
    ) -> list[Settled]:
        """End one task; return the dependencies that this decides."""
        self._move(task, TaskState.ENDED, now_s, cause)
        del self.tasks[task.id]
        if self._timed:
            self._timed.pop(task.id, None)
        ok = status == "ok"
        self._ended.add(task.session_id, task.number, engine_id, ok=ok)
        actions.append(
            EndTask(
                task.id, task.session_id, status, engine_id, task.run_count, by_result, error
            )
        )
        return self._dependencies.ended(task.id, engine_id, ok=ok)

    def _apply(self, wait: Wait, now_s: float, actions: list[Action]) -> bool:
        """Do what a settled dependency means for its task; return whether that lives on."""
        task = wait.task
        error = None
        if wait.is_impossible:
            error = wait.error
        elif wait.is_place and wait.engines:
            allowed = wait.engines if task.engine_ids is None else task.engine_ids
            task.engine_ids = tuple(e for e in wait.engines if e in allowed)
            if not self._has_place(task):
                text = f"the engine of {', '.join(wait.dependency.task_ids)} is gone"
                error = ErrorInfo("ImpossibleDependency", text)
        if error is None:
            return True
        self._end(task, "impossible", now_s, error.evalue, actions, error=error)
        return False

    def _move(
        self,
        task: Task,
        finish: TaskState,
        now_s: float,
        cause: str,
        engine_id: EngineId | None = None,
    ) -> None:
        """Change a task's state. Nothing else does."""
        if not task.state.successors & finish.bit:
            raise InvalidTransition(f"{task!r} -> {finish.value} ({cause})")
        self._story.append((now_s, task.id, task.state, finish, cause, engine_id))
        task.state = finish
        task.engine_id = engine_id

    def story(self, task_id: TaskId) -> list[Transition]:
        """Return what happened to a task, oldest first, as far back as is remembered."""
        return [Transition(*line) for line in self._story if line[1] == task_id]

    def validate(self) -> None:
        """Check every invariant; costs time linear in the number of tasks."""
        queued = {id(task) for task in self._ready}
        for engine in self.roster.engines.values():
            queued.update(id(task) for task in engine.bound)
            for task in engine.placed.values():
                assert task.engine_id == engine.id, task
        for task in self.tasks.values():
            is_placed = task.state is TaskState.PLACED
            assert (task.engine_id is not None) == is_placed, task
            assert (task.state is TaskState.WAITING) == bool(task.unresolved), task
            assert task.state is not TaskState.READY or id(task) in queued, task
            assert task.state is not TaskState.ENDED, task
            if task.engine_id is not None:
                assert task.id in self.roster.engines[task.engine_id].placed, task
        self.roster.validate()
        head = next((t for t in self._ready if t.state is TaskState.READY), None)
        assert head is None or self.roster.room_for(head) is None, "an engine lies idle"


def _recall(engine_id: EngineId, tasks: list[Task]) -> RecallTasks:
    return RecallTasks(engine_id, [t.id for t in tasks], [t.placed_count for t in tasks])


def _bound_for(task: Task, engine_ids: list[EngineId]) -> bool:
    if task.engine_id is not None:
        return task.engine_id in engine_ids
    return task.engine_ids is not None and any(e in engine_ids for e in task.engine_ids)
