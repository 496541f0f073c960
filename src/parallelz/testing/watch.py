"""What the core was told and what it decided, seen from outside.

`WatchedScheduler` is the real one, between two looks at what passes: events in, actions out. So
promises can be checked of what no client hears of, and where no history is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from parallelz.core.events import (
    Action,
    AnnounceLoss,
    ClientForgotten,
    EndTask,
    EngineArrived,
    EngineLost,
    Event,
    PlaceTask,
)
from parallelz.core.placement import Draw, Room
from parallelz.core.scheduler import Scheduler
from parallelz.core.task import TaskState
from parallelz.ids import EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    AbortTasks,
    CancelTasks,
    EngineInfo,
    Status,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
)


class Placement(NamedTuple):
    """A task was sent to an engine."""

    now_s: float
    engine_id: EngineId
    run: int


class Decision(NamedTuple):
    """How a task ended."""

    now_s: float
    status: Status
    engine_id: EngineId  # or NOWHERE
    run_count: int  # as the core counts them


class Loss(NamedTuple):
    """An engine was lost."""

    now_s: float
    is_counted: bool  # somebody knew how many tasks it had started


class Watch:
    """All that has passed.

    Attributes
    ----------
    submitted
        When each task came, in the order in which they did.
    placements, ends
        What became of each; more than one end is a bug.
    engines, infos, losses, forgotten
        Engines that came, by id and by session, and that were lost; and when clients were
        forgotten.
    joined_s, joined_as
        When each engine joined first, and what it was called, by all controllers.
    given_up
        Engines of which clients were told that they are gone.
    stopped_early, stopped_waiting
        Tasks that were to be stopped before they had come; and those that were when they had
        not been placed, with the time of the last such order.
    """

    def __init__(self) -> None:
        self.submitted: dict[TaskId, float] = {}
        self.placements: dict[TaskId, list[Placement]] = {}
        self.ends: dict[TaskId, list[Decision]] = {}
        self.engines: dict[EngineId, EngineInfo] = {}
        self.infos: dict[SessionId, EngineInfo] = {}
        self.losses: dict[EngineId, Loss] = {}
        self.joined_s: dict[SessionId, float] = {}
        self.joined_as: dict[SessionId, dict[EngineId, None]] = {}
        self.given_up: dict[EngineId, None] = {}
        self.forgotten: dict[SessionId, float] = {}
        self.stopped_early: dict[TaskId, None] = {}
        self.stopped_waiting: dict[TaskId, float] = {}
        self._orders: dict[SessionId, list[tuple[int, list[EngineId] | None]]] = {}
        self._named: dict[TaskId, list[list[EngineId] | None]] = {}

    def end_of(self, task_id: TaskId) -> Decision | None:
        """Return how a task ended, None: it has not."""
        ends = self.ends.get(task_id)
        return ends[0] if ends else None

    # -- what comes in ---------------------------------------------------------------------

    def see_event(
        self, scheduler: Scheduler, event: Event, source: SessionId, now_s: float
    ) -> None:
        """Look at an event before the core does."""
        match event:
            case SubmitTask() | SubmitMap() | SubmitDirect():
                self._see_submission(event, source, now_s)
            case AbortTasks():
                self._see_abort(scheduler, event, source, now_s)
            case CancelTasks():
                self._see_order(scheduler, event.task_ids, None, source, now_s)
            case EngineArrived():
                engine = event.engine
                self.engines[engine.engine_id] = self.infos[engine.session_id] = engine
                self.joined_s.setdefault(engine.session_id, now_s)
                self.joined_as.setdefault(engine.session_id, {})[engine.engine_id] = None
            case EngineLost():
                lost = scheduler.roster.by_session.get(event.session_id)
                if lost is not None:
                    before = self.losses.get(lost.id)  # it was given up, and came back
                    is_counted = event.started_count >= 0
                    is_counted = is_counted and (before is None or before.is_counted)
                    self.losses[lost.id] = Loss(now_s, is_counted)
            case ClientForgotten():
                self.forgotten[event.session_id] = now_s
            case _:
                pass

    def _see_submission(
        self, event: SubmitTask | SubmitMap | SubmitDirect, source: SessionId, now_s: float
    ) -> None:
        if isinstance(event, SubmitTask):
            self._see_task(event.task_id, source, now_s, None)
            return
        engine_ids: Sequence[EngineId | None]
        if isinstance(event, SubmitMap):
            engine_ids = [None] * len(event.items)
        else:
            engine_ids = event.engine_ids
        for index, engine_id in enumerate(engine_ids):
            task_id = task_id_of(source, event.first_number + index)
            self._see_task(task_id, source, now_s, engine_id)

    def _see_task(
        self, task_id: TaskId, source: SessionId, now_s: float, engine_id: EngineId | None
    ) -> None:
        if task_id in self.submitted:
            return
        self.submitted[task_id] = now_s
        number = int(task_id.rpartition("-")[2])
        orders = self._named.pop(task_id, [])
        orders += [only for end, only in self._orders.get(source, ()) if number < end]
        if any(only is None or engine_id in only for only in orders):
            self.stopped_early[task_id] = None

    def _see_abort(
        self, scheduler: Scheduler, event: AbortTasks, source: SessionId, now_s: float
    ) -> None:
        task_ids: Iterable[TaskId] | None = event.task_ids
        if task_ids is None:
            self._orders.setdefault(source, []).append((event.number_end, event.engine_ids))
            own = [task for task in scheduler.tasks.values() if task.session_id == source]
            task_ids = [task.id for task in own if task.number < event.number_end]
        self._see_order(scheduler, task_ids, event.engine_ids, source, now_s)

    def _see_order(
        self,
        scheduler: Scheduler,
        task_ids: Iterable[TaskId],
        engine_ids: list[EngineId] | None,
        source: SessionId,
        now_s: float,
    ) -> None:
        for task_id in task_ids:
            task = scheduler.tasks.get(task_id)
            if task is not None:
                targets = task.engine_ids or ()
                is_meant = engine_ids is None or any(e in engine_ids for e in targets)
                if is_meant and task.state is not TaskState.PLACED:
                    self.stopped_waiting[task_id] = now_s
            elif task_id not in self.submitted and task_id.rpartition("-")[0] == source:
                self._named.setdefault(task_id, []).append(engine_ids)

    # -- what comes out --------------------------------------------------------------------

    def see_actions(self, actions: list[Action], now_s: float) -> None:
        """Look at what the core has decided."""
        for action in actions:
            match action:
                case PlaceTask():
                    placement = Placement(now_s, action.engine_id, action.run)
                    self.placements.setdefault(action.task_id, []).append(placement)
                case EndTask():
                    decision = Decision(
                        now_s, action.status, action.engine_id, action.run_count
                    )
                    self.ends.setdefault(action.task_id, []).append(decision)
                case AnnounceLoss():
                    self.given_up[action.engine_id] = None
                case _:
                    pass


class WatchedScheduler(Scheduler):
    """The scheduler, and a `Watch` that sees all that passes."""

    def __init__(
        self,
        watch: Watch,
        scheme: type[Room],
        hwm: int | None,
        draw: Draw,
        first_run: int = 0,
    ) -> None:
        super().__init__(scheme, hwm, draw, first_run)
        self._watch = watch

    def handle(
        self, event: Event, source: SessionId, now_s: float, *, places: bool = True
    ) -> list[Action]:
        """See `Scheduler.handle`."""
        self._watch.see_event(self, event, source, now_s)
        actions = super().handle(event, source, now_s, places=places)
        self._watch.see_actions(actions, now_s)
        return actions

    def place(self, now_s: float) -> list[Action]:
        """See `Scheduler.place`."""
        actions = super().place(now_s)
        self._watch.see_actions(actions, now_s)
        return actions
