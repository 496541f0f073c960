"""Which task runs where, and how each one ends.

Theory of operation
-------------------
`Scheduler.handle(event, source, now)` updates the state and returns what must be done about it,
in order. The same events give the same actions, always; a bug can be replayed.

What an event means stands here, what a task can do on the `Board`, and which engine has room in
the `Roster`. After each event, or after several that came at once, all that can be placed is
placed: first the direct tasks of an engine, then by priority and by whose turn it is.
"""

from __future__ import annotations

from typing import assert_never

from parallelz.core.alarms import Alarm
from parallelz.core.board import Board
from parallelz.core.events import (
    Action,
    AnnounceEngine,
    AnnounceLoss,
    ClientForgotten,
    ClientReturned,
    ClientReturns,
    EndsFound,
    EndsKnown,
    EngineArrived,
    EngineInTouch,
    EngineLost,
    Event,
    KillEngine,
    RecoveryBegan,
    RecoveryLoaded,
    RecoveryMayEnd,
    StopTask,
    Tick,
    ValueProvided,
)
from parallelz.core.intake import Intake
from parallelz.core.placement import Draw, LeastLoad, Room
from parallelz.core.roster import PREFETCH_S, Engine, Lane, Roster
from parallelz.core.task import ENDED, READY, WAITING, Stop, Task, Transition
from parallelz.ids import EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    AbortTasks,
    CancelTasks,
    DrainEngines,
    EngineReturned,
    ErrorInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskFinished,
    TasksDropped,
)

RecoveryEvent = (
    EngineReturned
    | RecoveryBegan
    | RecoveryLoaded
    | RecoveryMayEnd
    | ClientReturns
    | ClientReturned
    | EndsKnown
)

STUCK_PERIOD_S = 2 * PREFETCH_S
STOP_GRACE_S = 2.0  # for a task that ran too long, from the interrupt to the kill
CANCEL_GRACE_MAX_S = 3600.0
DELAY_MAX_S = 3600.0


class Scheduler:
    """Assigns tasks to engines and sees each to its end. Holds no socket, reads no clock.

    Parameters
    ----------
    scheme, hwm, draw
        How an engine is chosen and how much is placed ahead; see `Roster`.
    first_run
        Runs of tasks are numbered from here on: after a restart, more than any before.
    """

    def __init__(
        self,
        scheme: type[Room] = LeastLoad,
        hwm: int | None = None,
        draw: Draw = lambda count: 0,
        first_run: int = 0,
    ) -> None:
        self.roster = Roster(scheme, hwm, draw)
        self.board = Board(self.roster, first_run)
        self.tasks = self.board.tasks
        self._intake = Intake(self.board)
        self.recovery = self._intake.recovery
        self._stuck_check_s = 0.0

    def handle(  # noqa: C901, PLR0912 - one arm for each event, and nothing else
        self, event: Event, source: SessionId, now_s: float, *, places: bool = True
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
        places
            Whether to place what can be placed now. Where several events come at once it costs
            less to `place` after all of them.
        """
        board = self.board
        board.now_s = now_s
        actions: list[Action] = []
        board.actions = actions
        match event:
            case TaskFinished():
                self._finish(event, source)
            case SubmitTask():
                number = int(event.task_id.rpartition("-")[2])
                self._intake.submit(event.task_id, source, number, event)
            case SubmitMap():
                for number in range(event.first_number, event.first_number + len(event.items)):
                    self._intake.submit(task_id_of(source, number), source, number, event)
            case SubmitDirect():
                self._intake.submit_direct(event, source)
            case TasksDropped():
                self._take_back(event, source)
            case AbortTasks():
                self._abort(event, source)
            case CancelTasks():
                self._cancel(event, source)
            case DrainEngines():
                self._drain(event)
            case EngineArrived():
                self._join(event)
            case EngineInTouch():
                self._note_touch(event)
            case EngineLost():
                self._lose(event)
            case EndsFound():
                self._intake.take_ends(event)
            case ValueProvided():
                self._intake.take_value(event)
            case ClientForgotten():
                self._intake.forget(event.session_id)
            case Tick():
                self._tick()
            case _:
                self._recover(event, source)
        board.tell()
        if places:
            board.fill()
        return actions

    def place(self, now_s: float) -> list[Action]:
        """Place what can be placed since `handle` was told not to; return what to do."""
        actions: list[Action] = []
        self.board.now_s = now_s
        self.board.actions = actions
        self.board.fill()
        return actions

    def next_deadline_s(self) -> float | None:
        """Return when `Tick` is due, if nothing happens before."""
        stuck_s = self._stuck_check_s + STUCK_PERIOD_S if self.roster.prefetches else None
        alarm_s = self.board.alarms.next_s()
        return min((t for t in (stuck_s, alarm_s) if t is not None), default=None)

    def story(self, task_id: TaskId) -> list[Transition]:
        """Return what happened to a task, oldest first, as far back as is remembered."""
        return self.board.story(task_id)

    def validate(self) -> None:
        """Check every invariant; costs time linear in the number of tasks."""
        self.board.validate()

    def _recover(self, event: RecoveryEvent, source: SessionId) -> None:
        recovery = self.recovery
        match event:
            case RecoveryBegan():
                recovery.begin(event.engines)
            case RecoveryLoaded():
                recovery.loaded()
            case RecoveryMayEnd():
                recovery.be_impatient()
            case EngineReturned():
                recovery.take_back(event, source)
            case ClientReturns():
                recovery.client_returns(event.session_id, event.awaited)
            case ClientReturned():
                recovery.client_has_returned(event.session_id)
            case EndsKnown():
                self._intake.note_ends(event)
            case _:
                assert_never(event)

    # -- ends ------------------------------------------------------------------------------

    def _finish(self, event: TaskFinished, source: SessionId) -> None:
        engine = self.roster.by_session.get(source)
        task = self.tasks.get(event.task_id)
        if engine is None or task is None or task.engine_id != engine.id:
            return  # an engine believed lost still answers for a task that moved on
        if event.run and event.run != task.placed_count:
            return  # it says again what it has said of an earlier run
        engine.is_late = False
        engine.ended_count += 1
        ran_s = event.completed_s - event.started_s
        if event.status != "unmet":
            self.roster.learn(task.digest, ran_s)
            if ran_s > task.expected_s:
                self.roster.shares.charge(task.session_id, ran_s - task.expected_s)
        self.board.release(task, engine)
        task.run_count += 1
        if event.status == "ok":
            self.board.end(task, "ok", engine_id=engine.id, by_result=True)
        elif task.stop is Stop.CANCEL:
            self.board.fail_stopped(task, engine)
        elif event.status == "unmet" and not task.is_direct:
            self._reroute(task, engine, event)
        elif task.retries_left and task.stop is not Stop.ABORT:
            self._retry(task, f"failed on {engine.id}", avoid=engine.id)
        elif task.stop is Stop.OVERRUN:
            self.board.fail_stopped(task, engine)
        else:
            self.board.end(
                task, "error", engine_id=engine.id, by_result=True, raised=event.error
            )

    def _reroute(self, task: Task, engine: Engine, event: TaskFinished) -> None:
        """Let another engine have a task that refused this one, or later any."""
        task.run_count -= 1
        if task.stop is Stop.ABORT:
            self.board.end(task, "aborted")
            return
        task.stop = Stop.NO
        if event.retry_after_s > 0:
            self._delay(task, event.retry_after_s, f"refused by {engine.id} for now")
            return
        task.refused = (*task.refused, engine.id)
        self.board.make_ready(task, f"refused by {engine.id}", first=True)

    def _retry(self, task: Task, cause: str, *, avoid: EngineId | None) -> None:
        """Let a failed task run again: at another engine if one has room, else at any."""
        task.stop = Stop.NO
        task.retries_left -= 1
        options = task.options
        if options is not None and options.retry_delay_s > 0:
            done_count = max(options.retries, 0) - task.retries_left - 1
            delay_s = options.retry_delay_s * 2.0 ** min(done_count, 32)
            self._delay(task, min(delay_s, DELAY_MAX_S), f"{cause}, to be retried later")
            return
        self.board.make_ready(task, f"{cause}, to be retried", first=True)
        lane = self.roster.lane_of(task)
        if task.state is READY and lane.queue.head() is task:
            other = self.roster.room_for(lane, task.digest, avoid)
            if other is not None:
                lane.queue.pop()
                self.board.place(task, other)

    def _delay(self, task: Task, delay_s: float, cause: str) -> None:
        task.unresolved += 1
        self.board.move(task, WAITING, cause)
        self.board.alarms.set(task.id, Alarm.DELAY, self.board.now_s + delay_s)

    def _take_back(self, event: TasksDropped, source: SessionId) -> None:
        engine = self.roster.by_session.get(source)
        if engine is None:
            return
        engine.recall_count = max(engine.recall_count - 1, 0)
        returned = [
            task
            for task_id in event.task_ids
            if (task := self.tasks.get(task_id)) is not None and task.engine_id == engine.id
        ]
        for task in reversed(returned):
            self.board.release(task, engine)
            if task.stop in (Stop.ABORT, Stop.CANCEL):
                self.board.end(task, "aborted")
            else:
                task.stop = Stop.NO
                self.board.make_ready(task, f"given back by {engine.id}", first=True)
        if event.kept:
            engine.kept_id = event.kept[-1]
        self.roster.sort(engine)
        self.board.look_at(engine)

    # -- control ---------------------------------------------------------------------------

    def _abort(self, event: AbortTasks, source: SessionId) -> None:
        early_stops = self._intake.early_stops
        if event.task_ids is None:
            end = event.number_end or float("inf")  # what it submitted later may be here first
            own = (task for task in self.tasks.values() if task.session_id == source)
            tasks = [task for task in own if task.number < end]
            early_stops.add_below(event.number_end, source, event.engine_ids)
        else:
            tasks = [t for task_id in event.task_ids if (t := self.tasks.get(task_id))]
            absent = [task_id for task_id in event.task_ids if task_id not in self.tasks]
            early_stops.add(absent, source, event.engine_ids, self.board.ended)
        recalls: dict[EngineId, list[Task]] = {}
        unplaced: list[Task] = []
        for task in tasks:
            if event.engine_ids is not None and not _bound_for(task, event.engine_ids):
                continue
            task.ask_to_stop(Stop.ABORT)
            if task.engine_id is not None:
                recalls.setdefault(task.engine_id, []).append(task)
            else:
                unplaced.append(task)
        self._give_up(unplaced)
        for engine_id, placed in recalls.items():
            self.board.recall(self.roster.engines[engine_id], placed)

    def _cancel(self, event: CancelTasks, source: SessionId) -> None:
        grace_s = min(max(event.grace_s, 0.0), CANCEL_GRACE_MAX_S)
        absent = [task_id for task_id in event.task_ids if task_id not in self.tasks]
        self._intake.early_stops.add(absent, source, None, self.board.ended)
        tasks = [t for task_id in event.task_ids if (t := self.tasks.get(task_id))]
        for task in tasks:
            task.ask_to_stop(Stop.CANCEL)
        self._give_up([task for task in tasks if task.engine_id is None])
        for task in tasks:
            if task.engine_id is not None:
                self._stop(task, self.roster.engines[task.engine_id], grace_s)

    def _give_up(self, unplaced: list[Task]) -> None:
        """Abort tasks that were asked to stop, also those that depend on others of them."""
        for task in unplaced:
            if task.state is not ENDED:
                self.board.end(task, "aborted")

    def _stop(self, task: Task, engine: Engine, grace_s: float) -> None:
        """Interrupt a task if it runs, and what would die with it get back before a kill."""
        is_current = engine.current is task
        engine.is_late = engine.is_late or is_current
        self.board.recall(engine, engine.placed.values() if is_current else [task])
        self.board.actions.append(StopTask(engine.id, task.id, task.placed_count))
        self.board.alarms.set(task.id, Alarm.KILL, self.board.now_s + grace_s)

    def _drain(self, event: DrainEngines) -> None:
        for engine_id in event.engine_ids:
            engine = self.roster.engines.get(engine_id)
            if engine is None or engine.is_draining:
                continue
            engine.is_draining = True
            waiting = [task for task in list(engine.placed.values())[1:] if not task.is_direct]
            self.roster.sort(engine)
            self.board.recall(engine, waiting)
            self.board.look_at(engine)

    def _join(self, event: EngineArrived) -> None:
        self.roster.add(event.engine)
        self._intake.engine_joined()
        self.board.actions.append(AnnounceEngine(event.engine))

    def _note_touch(self, event: EngineInTouch) -> None:
        """Give an engine nothing new while it is out of reach: others may be idle."""
        engine = self.roster.by_session.get(event.session_id)
        if engine is not None:
            engine.is_away = not event.is_in_touch
            self.roster.sort(engine)
            self.board.look_at(engine)

    def _lose(self, event: EngineLost) -> None:
        engine = self.roster.by_session.get(event.session_id)
        if engine is None:
            self.recovery.lose(event)
            return
        self.board.actions.append(AnnounceLoss(engine.id, event.cause))
        peer = engine.info.peer
        text = f"engine {engine.id} (pid {peer.pid} on {peer.host}) is gone: {event.cause}"
        lanes = list(engine.lanes)
        self.roster.remove(engine, text)
        error = ErrorInfo("EngineError", text)
        again: list[tuple[Task, bool]] = []
        for task, has_started in _starts_on(engine, event.started_count):
            if not self._ends_with(task, engine, error, has_started=has_started):
                again.append((task, has_started))
        for task, has_started in reversed(again):
            self._place_again(task, engine, has_started=has_started)
        for task in engine.direct.tasks():
            self.board.end(task, "engine-lost", error=error)
        for lane in lanes:
            if not lane.engines:
                self._give_up_on(lane, error)

    def _give_up_on(self, lane: Lane, error: ErrorInfo) -> None:
        """End what no engine can have any more, now that the last one is gone."""
        refused = lane.needs.refused
        if refused:
            text = f"engines {list(refused)} refused it, and {error.evalue}"
            impossible = ErrorInfo("ImpossibleDependency", text)
            for task in lane.queue.tasks():
                self.board.end(task, "impossible", error=impossible)
        elif lane.needs.engine_ids is not None:
            for task in lane.queue.tasks():
                self.board.end(task, "engine-lost", error=error)

    def _ends_with(
        self, task: Task, engine: Engine, error: ErrorInfo, *, has_started: bool
    ) -> bool:
        """End a task that was placed on an engine which is gone, unless it can run elsewhere.

        Where nobody knows better it counts as started: without retries it starts at most once.
        """
        board = self.board
        board.alarms.clear(task.id)
        if task.stop is Stop.CANCEL or (task.stop is Stop.OVERRUN and not task.retries_left):
            board.fail_stopped(task, engine)
        elif task.stop is Stop.ABORT:
            board.end(task, "aborted")
        elif task.is_direct or (has_started and not task.retries_left):
            board.end(task, "engine-lost", engine_id=engine.id, error=error)
        else:
            return False
        return True

    def _place_again(self, task: Task, engine: Engine, *, has_started: bool) -> None:
        if has_started:
            task.run_count += 1
            self._retry(task, f"lost {engine.id}", avoid=None)
        else:
            task.stop = Stop.NO
            cause = f"not started on {engine.id}, which is lost"
            self.board.make_ready(task, cause, first=True)

    # -- time ------------------------------------------------------------------------------

    def _tick(self) -> None:
        board = self.board
        while (due := board.alarms.pop_due(board.now_s)) is not None:
            self._ring(self.tasks[due[0]], due[1])
        if board.now_s < self._stuck_check_s + STUCK_PERIOD_S:
            return
        self._stuck_check_s = board.now_s
        for engine in self.roster.stuck():
            engine.is_late = True
            board.recall(engine, list(engine.placed.values())[1:])

    def _ring(self, task: Task, alarm: Alarm) -> None:
        board = self.board
        match alarm:
            case Alarm.UNPLACED:
                if task.state is WAITING:
                    error = ErrorInfo("DependencyTimeout", "what it depends on took too long")
                else:
                    error = ErrorInfo("TaskTimeout", "no engine had room for it in time")
                board.end(task, "timeout", error=error)
            case Alarm.DELAY:
                task.unresolved -= 1
                if not task.unresolved:
                    board.make_ready(task, "to be tried again", first=True)
            case Alarm.OVERRUN:
                assert task.engine_id is not None
                task.ask_to_stop(Stop.OVERRUN)
                self._stop(task, self.roster.engines[task.engine_id], STOP_GRACE_S)
            case Alarm.KILL:
                self._kill(task)
            case _:
                assert_never(alarm)

    def _kill(self, task: Task) -> None:
        assert task.engine_id is not None
        engine = self.roster.engines[task.engine_id]
        self.board.alarms.set(task.id, Alarm.KILL, self.board.now_s + STOP_GRACE_S)
        # Results of what ran before it may be on their way on a line that broke.
        if engine.current is task or engine.kept_id == task.id:
            what = "ran too long" if task.stop is Stop.OVERRUN else "was cancelled"
            reason = f"killed, as its task {task.name} {what} and did not stop"
            self.board.actions.append(KillEngine(engine.id, reason))


def _starts_on(engine: Engine, started_count: int) -> list[tuple[Task, bool]]:
    """Tell for each task placed on an engine that is gone whether it may have started.

    Tasks start in their order, but for those that were given up: until the engine has answered,
    these may have been left out, and others have started instead.
    """
    left = len(engine.placed)
    if started_count >= 0:
        left = max(started_count - engine.ended_count, 0)
    starts: list[tuple[Task, bool]] = []
    for task in engine.placed.values():
        starts.append((task, left > 0))
        if not (engine.recall_count and task.stop in (Stop.ABORT, Stop.CANCEL)):
            left -= 1
    return starts


def _bound_for(task: Task, engine_ids: list[EngineId]) -> bool:
    if task.engine_id is not None:
        return task.engine_id in engine_ids
    return task.engine_ids is not None and any(e in engine_ids for e in task.engine_ids)
