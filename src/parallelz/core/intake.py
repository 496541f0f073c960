"""New tasks: what each waits for, and what is asked elsewhere before it may run.

A task may depend on what ended long ago or belongs to another client: the history is asked. It
may want the value of a task that had ended before it came: its client has that, and is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from parallelz.core.alarms import Alarm
from parallelz.core.board import HOW, Board
from parallelz.core.dependencies import News, Wait
from parallelz.core.early import EarlyStops
from parallelz.core.ended import GONE, NOWHERE, End
from parallelz.core.events import (
    AskValues,
    EndsFound,
    EndsKnown,
    LookUpTasks,
    ValueProvided,
    Warn,
)
from parallelz.core.recovery import Recovery
from parallelz.core.task import READY, WAITING, Task
from parallelz.ids import EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    Dependency,
    ErrorInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskOptions,
)


class Intake:
    """Takes in submissions, and the answers to what was asked for them."""

    def __init__(self, board: Board) -> None:
        self._board = board
        board.fetch_inputs = self._fetch_inputs
        self._roster = board.roster
        self._tasks = board.tasks
        self.early_stops = EarlyStops()
        self.recovery = Recovery(board, self._admit)
        self._looked_up: dict[TaskId, None] = {}
        self._warned: set[tuple[SessionId, str]] = set()  # membership only

    def engine_joined(self) -> None:
        """Say what is missing again when it is missing again."""
        self._warned.clear()

    def submit(
        self, task_id: TaskId, source: SessionId, number: int, event: SubmitTask | SubmitMap
    ) -> None:
        """Take in a balanced task; one that is known is left as it is."""
        if task_id in self._tasks or number in self._board.ended.of(source):
            return  # a client says it again after a break
        task = Task(task_id, source, number, event.digest, event.options)
        task.placed_count = self._board.first_run
        self._tasks[task_id] = task
        if self.early_stops and self.early_stops.take(task_id, source, number, None):
            self._board.end(task, "aborted")
        elif not (self.recovery.is_needed and self.recovery.takes(task)):
            self._admit(task)
        if not self._roster.engines and not self.recovery.is_holding:
            self._warn(
                source,
                "there are no engines: balanced tasks wait until one joins"
                " (start some with `ipclusterz engines -n 4` or `ipenginez -n 4`)",
            )

    def _admit(self, task: Task) -> None:
        """Let a task wait for what it needs, or run."""
        if task.options is not None:
            self._admit_picky(task, task.options)
        elif task.engine_ids is None:
            self._board.make_ready(task, "submitted")
        else:
            self._admit_direct(task, task.engine_ids[0])

    def _admit_picky(self, task: Task, options: TaskOptions) -> None:
        board = self._board
        if options.engine_ids is not None:
            task.engine_ids = tuple(options.engine_ids)
        depends = options.after is not None or options.follow is not None or options.inputs
        if depends and not self._roster.scheme.has_dependencies:
            text = (
                "the cluster runs with the scheme 'pure', in which no task depends on another"
            )
            error = ErrorInfo("InvalidDependency", text)
            board.end(task, "impossible", error=error)
            return
        for wait in self._waits_of(task, options) if depends else ():
            if wait.verdict is None:
                task.unresolved += 1
            elif (reason := board.apply(wait)) is not None:
                how = f"could not run as {wait.root}" if wait.root else ""
                board.end(task, "impossible", error=reason, how=how, root=wait.root)
                return
        if options.wait_timeout_s > 0:
            board.alarms.set(task.id, Alarm.UNPLACED, board.now_s + options.wait_timeout_s)
        if task.unresolved:
            return
        board.make_ready(task, "submitted")
        if task.state is READY and (options.labels or options.resources):
            lane = self._roster.lane_of(task)
            if self._roster.engines and not lane.engines:
                text = f"no engine {lane.needs}: tasks that need this wait until one joins"
                self._warn(task.session_id, text)

    def _waits_of(self, task: Task, options: TaskOptions) -> list[Wait]:
        """Begin to wait for all that a task depends on; return that, as far as it counts."""
        waits: list[Wait] = []
        unknown: list[TaskId] = []
        for dependency, is_place in ((options.after, False), (options.follow, True)):
            if dependency is not None and dependency.task_ids:
                waits.append(self._wait(task, dependency, unknown, is_place=is_place))
        waits += self._waits_for_inputs(task, options.inputs)
        if unknown:
            self._looked_up.update(dict.fromkeys(unknown))
            self._board.actions.append(LookUpTasks(unknown))
        return waits

    def _waits_for_inputs(self, task: Task, inputs: Sequence[TaskId]) -> list[Wait]:
        waits: list[Wait] = []
        live = [task_id for task_id in inputs if task_id in self._tasks]
        if live:
            waits.append(self._wait(task, Dependency(live), [], is_place=False))
        held = [task_id for task_id in inputs if task_id not in self._tasks]
        if held:
            wait = Wait(task, Dependency(held), len(held), is_place=False)
            for task_id in held:
                self._board.fetches.add(wait, task_id)
            waits.append(wait)
            self._board.actions.append(AskValues(task.session_id, held))
        return waits

    def _fetch_inputs(self, task: Task, cause: str) -> None:
        """Let a task that is to run again wait for its inputs, which an engine had got."""
        assert task.options is not None
        if task.state is not WAITING:
            self._board.move(task, WAITING, cause)
        for _ in self._waits_for_inputs(task, task.options.inputs):
            task.unresolved += 1

    def _wait(
        self, task: Task, dependency: Dependency, unknown: list[TaskId], *, is_place: bool
    ) -> Wait:
        board = self._board
        ids = dict.fromkeys(dependency.task_ids)
        wait = Wait(task, dependency, len(ids), is_place=is_place)
        for task_id in ids:
            if task_id == task.id:
                wait.reject(_news(task_id, "is that task itself"))
            elif task_id in self._tasks:
                board.waits.add(wait, task_id)
            elif (end := board.ended.find(task_id)) is not None:
                wait.count(self._past_news(task_id, end))
            else:
                board.waits.add(wait, task_id)
                if task_id not in self._looked_up:
                    unknown.append(task_id)
        return wait

    def _past_news(self, task_id: TaskId, end: End) -> News:
        if end.ok:
            return News(task_id, end.ok, end.engine_id, task_id, HOW["ok"], task_id)
        return News(task_id, end.ok, end.engine_id, *self._board.ended.blame_of(task_id))

    def submit_direct(self, event: SubmitDirect, source: SessionId) -> None:
        """Take in a task for each of some engines."""
        ended = self._board.ended.of(source)
        for index, engine_id in enumerate(event.engine_ids):
            number = event.first_number + index
            task_id = task_id_of(source, number)
            if task_id in self._tasks or number in ended:
                continue
            task = Task(task_id, source, number, event.digest, None, (engine_id,))
            task.placed_count = self._board.first_run
            self._tasks[task_id] = task
            if self.early_stops and self.early_stops.take(task_id, source, number, engine_id):
                self._board.end(task, "aborted")
            elif not (self.recovery.is_needed and self.recovery.takes(task)):
                self._admit_direct(task, engine_id)

    def _admit_direct(self, task: Task, engine_id: EngineId) -> None:
        engine = self._roster.engines.get(engine_id)
        if engine is not None and not engine.is_draining:
            self._board.make_ready(task, f"submitted for {engine_id}")
            return
        text = self._roster.why_gone(engine_id)
        if engine is not None:
            text = f"engine {engine_id} is being drained: it takes nothing new"
        self._board.end(task, "engine-lost", error=ErrorInfo("EngineError", text))

    def note_ends(self, event: EndsKnown) -> None:
        """Take in which tasks of a client must not run again."""
        ended = self._board.ended.of(event.session_id)
        for number in event.numbers:
            ended.mark(number)

    def take_ends(self, event: EndsFound) -> None:
        """Take in what the history says; what it does not know, nobody does."""
        for task_id in event.task_ids:
            self._looked_up.pop(task_id, None)
            if task_id in self._tasks or task_id not in self._board.waits.by_task:
                continue  # its own client has said it meanwhile, or nobody waits any more
            end = event.ends.get(task_id)
            if end is None:
                doubt = f" ({event.trouble})" if event.trouble else ""
                news = _news(task_id, f"nobody knows{doubt}")
                self._board.settle(self._board.waits.settle(news, is_lost=True))
                continue
            engine = self._roster.by_session.get(end.engine_session)
            engine_id = GONE if end.engine_session else NOWHERE
            if engine is not None:
                engine_id = engine.id
            news = _news(task_id, end.how, ok=end.ok, engine_id=engine_id)
            self._board.settle(self._board.waits.settle(news))

    def take_value(self, event: ValueProvided) -> None:
        """Take in that a value is at hand now, or cannot be had."""
        how = "ended well" if event.is_held else "has no value any more"
        news = _news(event.task_id, how, ok=event.is_held)
        self._board.settle(self._board.fetches.settle(news))

    def forget(self, session_id: SessionId) -> None:
        """Take in that a client is gone: the values that it has must come from elsewhere."""
        self._board.ended.forget(session_id)
        self._roster.shares.forget(session_id)
        self.early_stops.forget(session_id)
        self.recovery.client_has_returned(session_id)
        self._warned = {warned for warned in self._warned if warned[0] != session_id}
        missing = [
            task_id
            for task_id, waits in self._board.fetches.by_task.items()
            if any(wait.task.session_id == session_id for wait in waits)
        ]
        if missing:
            self._board.actions.append(AskValues(session_id, missing))

    def _warn(self, session_id: SessionId, text: str) -> None:
        if (session_id, text) not in self._warned:
            self._warned.add((session_id, text))
            self._board.actions.append(Warn(session_id, text))


def _news(
    task_id: TaskId, how: str, *, ok: bool = False, engine_id: EngineId = NOWHERE
) -> News:
    return News(task_id, ok, engine_id, task_id, how, f"{task_id} {how}")
