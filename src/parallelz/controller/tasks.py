"""Tasks in the controller: payloads in and out, and the core's actions performed.

The core decides by headers; here the payloads wait beside it, unread, until their task ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, assert_never

import msgspec

from parallelz.controller.complaints import Complaints
from parallelz.controller.lookups import LookUps
from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Definition, Link, Session, Sessions
from parallelz.core.ended import NOWHERE
from parallelz.core.events import (
    Action,
    AnnounceEngine,
    AnnounceLoss,
    AskValues,
    EndsFound,
    EndTask,
    Event,
    KillEngine,
    LookUpTasks,
    PlaceTask,
    RecallTasks,
    ReleaseEngine,
    StopTask,
    ValueProvided,
    Warn,
)
from parallelz.core.scheduler import Scheduler
from parallelz.core.task import Task
from parallelz.errors import UnknownFunction
from parallelz.ids import Digest, EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.answers import content_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    DefineFunction,
    DropTasks,
    EndEngine,
    EngineJoined,
    EngineLeft,
    ErrorInfo,
    FetchValues,
    Input,
    InterruptTask,
    Message,
    Notice,
    ProvideValue,
    Reply,
    RunTask,
    StopEngine,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskFinished,
)
from parallelz.store import record
from parallelz.store.ended_record import ended_from
from parallelz.store.restored import Ends, FindEnds, RestoredTask


class Work(msgspec.Struct, frozen=True, gc=False):
    """What an engine needs to run a task."""

    digest: Digest
    definition: Definition
    data: bytes
    buffers: Sequence[Buffer]
    inputs: Sequence[TaskId] = ()


Submission = SubmitTask | SubmitMap | SubmitDirect


class Value(NamedTuple):
    """The result of a task, kept for those that want it as an input."""

    data: bytes
    buffers: Sequence[Buffer]


class Tasks:
    """The payloads of live tasks, and the way of each to its engine and back.

    Parameters
    ----------
    scheduler
        Decides.
    sessions
        Know the way to a peer.
    recording
        Is told of every submission and every end.
    touch
        Called with each link that has something to send.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        sessions: Sessions,
        recording: Recording,
        touch: Callable[[Link], None],
        complaints: Complaints,
    ) -> None:
        self._scheduler = scheduler
        self._sessions = sessions
        self._recording = recording
        self._touch = touch
        self._complaints = complaints
        self._work: dict[TaskId, Work] = {}
        self._wanted: dict[TaskId, dict[TaskId, None]] = {}  # an input, and by which tasks
        self._values: dict[TaskId, Value] = {}
        self._later: deque[tuple[Event, SessionId]] = deque()  # what actions bring about
        self._is_to_place = False
        self.lookups = LookUps(scheduler, sessions, recording, self._take_ends)

    def function_of(self, task: Task) -> str:
        """Return the name of the function that a live task calls."""
        work = self._work.get(task.id)
        return "" if work is None else work.definition.name

    @property
    def payload_count(self) -> int:
        """How many tasks it keeps the payload or the result of."""
        return len(self._work) + len(self._values) + len(self._wanted)

    def submit(
        self,
        session: Session,
        message: Submission,
        buffers: Sequence[Buffer],
        now_s: float,
    ) -> None:
        """Take in new tasks of a client; those that are known are left as they are.

        `place` is to be called after that.
        """
        if not _is_own(session.id, message):
            text = "dropped a submission of %r: the id is not one of its own"
            self._complaints.log(now_s, text, session)
            return
        ids = ids_of(session.id, message)
        try:
            definition = session.known.get(message.digest)
        except UnknownFunction as error:
            self._refuse(session, ids, error, now_s)
            return
        match message:
            case SubmitTask():
                if message.task_id in self._work:
                    return
                self._keep(message, definition, buffers)
            case SubmitMap():
                for task_id, data in zip(ids, message.items, strict=True):
                    self._work.setdefault(
                        task_id, Work(message.digest, definition, data, buffers)
                    )
            case SubmitDirect():
                work = Work(message.digest, definition, message.data, buffers)
                for task_id in ids:
                    self._work.setdefault(task_id, work)
            case _:
                assert_never(message)
        self._recording.submitted(session.id, message, definition.name, buffers)
        self.handle(message, session.id, now_s, places=False)
        self._forget_ended(ids)
        self._hold_payloads(session, message, ids, buffers)

    def _forget_ended(self, ids: list[TaskId]) -> None:
        """Drop what had ended before: the client only says it again."""
        for task_id in ids:
            if task_id not in self._scheduler.tasks:
                self._forget(task_id)

    def _hold_payloads(
        self,
        session: Session,
        message: Submission,
        ids: list[TaskId],
        buffers: Sequence[Buffer],
    ) -> None:
        """Have the client keep what is large: it counts what it has sent and not got back."""
        if buffers or not record.keeps_payload(message, buffers):
            live = [task_id for task_id in ids if task_id in self._scheduler.tasks]
            self._recording.hold_until_ended(session.bulk, live)

    def restore(self, task: RestoredTask, definition: Definition, now_s: float) -> None:
        """Take in a task of before a restart, which is recorded already."""
        options = task.options
        inputs = () if options is None else options.inputs
        self._work[task.task_id] = Work(task.digest, definition, task.data, task.frames, inputs)
        for task_id in inputs:
            self._wanted.setdefault(task_id, {})[task.task_id] = None
        event: Event
        if task.engine_id is None:
            event = SubmitTask(task.task_id, task.digest, task.submitted_s, options=options)
        else:
            number = int(task.task_id.rpartition("-")[2])
            event = SubmitDirect(number, [task.engine_id], task.digest, task.submitted_s)
        self.handle(event, task.client, now_s)

    def _keep(
        self, message: SubmitTask, definition: Definition, buffers: Sequence[Buffer]
    ) -> None:
        inputs = () if message.options is None else message.options.inputs
        self._work[message.task_id] = Work(
            message.digest, definition, message.data, buffers, inputs
        )
        for task_id in inputs:
            self._wanted.setdefault(task_id, {})[message.task_id] = None

    def _refuse(
        self, session: Session, ids: list[TaskId], error: UnknownFunction, now_s: float
    ) -> None:
        self._complaints.log(now_s, "%r: %s", session, error)
        info = ErrorInfo("UnknownFunction", str(error))
        for task_id in ids:
            session.bulk.put(TaskEnded(task_id, "error", NOWHERE, error=info))
        self._touch(session.bulk)

    def handle(
        self,
        event: Event,
        source: SessionId,
        now_s: float,
        buffers: Sequence[Buffer] = (),
        *,
        places: bool = True,
    ) -> None:
        """Let the core decide about an event, and do what it says.

        Parameters
        ----------
        places
            False: what can be placed now waits until `place` is called.
        """
        self._is_to_place = not places
        for action in self._scheduler.handle(event, source, now_s, places=places):
            self._perform(action, event, buffers)
        while self._later:
            late_event, late_source = self._later.popleft()
            for action in self._scheduler.handle(late_event, late_source, now_s):
                self._perform(action, late_event, ())

    def place(self, now_s: float) -> None:
        """Place what has waited for that."""
        if self._is_to_place:
            self._is_to_place = False
            for action in self._scheduler.place(now_s):
                self._perform(action, None, ())

    def _perform(  # noqa: C901 - one arm for each action, and nothing else
        self, action: Action, event: Event | None, buffers: Sequence[Buffer]
    ) -> None:
        match action:
            case PlaceTask():
                self._place(action)
            case EndTask():
                self._end(action, event, buffers)
            case RecallTasks():
                self._put_control(action.engine_id, DropTasks(action.task_ids, action.runs))
            case StopTask():
                self._put_control(action.engine_id, InterruptTask(action.task_id, action.run))
            case KillEngine():
                self.end_engine(action.engine_id, action.reason, grace_s=0.0)
            case ReleaseEngine():
                self._put_control(action.engine_id, StopEngine("it was drained"))
            case LookUpTasks() | AskValues():
                self._inquire(action)
            case AnnounceEngine():
                self._tell_clients(EngineJoined(action.engine))
                self._recording.engine_changed(action.engine, "")
            case AnnounceLoss():
                self._tell_clients(EngineLeft(action.engine_id, action.cause))
            case Warn():
                session = self._sessions.by_id.get(action.session_id)
                if session is not None:
                    session.control.put(Notice(action.text))
                    self._touch(session.control)
            case _:
                assert_never(action)

    # -- what is asked for tasks that are not here -----------------------------------------

    def _inquire(self, action: LookUpTasks | AskValues) -> None:
        if isinstance(action, LookUpTasks):
            found = self.lookups.ask(action.task_ids, self._scheduler.board.now_s)
            if found is not None:
                self._later.append((found, SessionId("")))
            return
        session = self._sessions.by_id.get(action.session_id)
        if session is not None and not session.is_returning:
            session.control.put(FetchValues(action.task_ids))
            self._touch(session.control)
        else:
            self._look_up_values(action.task_ids, action.session_id)

    def _look_up_values(self, task_ids: list[TaskId], client: SessionId) -> None:
        """Get the values of inputs from the history, as their client is not there."""

        def take(reply: Reply, buffers: Sequence[Buffer], now_s: float) -> None:
            looked_up = task_ids
            if reply.error is None:
                ends = msgspec.msgpack.decode(content_of(reply, buffers), type=Ends)
                looked_up = task_ids[: ends.looked_up_count]
                for each in ends.ended:
                    ended, frames = ended_from(each)
                    if ended.status == "ok" and ended.task_id in self._wanted:
                        value = Value(ended.data, frames)
                        self._values.setdefault(ended.task_id, value)
            for task_id in looked_up:
                event = ValueProvided(task_id, is_held=task_id in self._values)
                self.handle(event, client, now_s)
            if rest := task_ids[len(looked_up) :]:
                self._look_up_values(rest, client)

        if not self._recording.inquire("ends", FindEnds(task_ids), take):
            for task_id in task_ids:
                self._later.append((ValueProvided(task_id, is_held=False), client))

    def _take_ends(self, found: EndsFound, now_s: float) -> None:
        self.handle(found, SessionId(""), now_s)

    def provide(
        self, session: Session, message: ProvideValue, buffers: Sequence[Buffer], now_s: float
    ) -> None:
        """Take in a value that a client was asked for."""
        if message.is_held and message.task_id in self._wanted:
            self._values.setdefault(message.task_id, Value(message.data, buffers))
        self.handle(ValueProvided(message.task_id, message.is_held), session.id, now_s)

    def end_engine(self, engine_id: EngineId, reason: str, *, grace_s: float) -> bool:
        """Have an engine's process ended and another started; return whether that can be.

        Without a supervisor to do it, the engine is asked to end by itself, and none follows.
        """
        session = self._sessions.by_engine[engine_id]
        supervisor = self._sessions.supervisor_of(session)
        if supervisor is None:
            self._put_control(engine_id, StopEngine(reason))
            return False
        supervisor.control.put(EndEngine(session.id, reason, grace_s, restart=True))
        self._touch(supervisor.control)
        return True

    # -- the way to the engine and back ----------------------------------------------------

    def _place(self, action: PlaceTask) -> None:
        session = self._sessions.by_engine[action.engine_id]
        link = session.bulk
        sender = link.sender
        work = self._work[action.task_id]
        if session.sent.need(work.digest):
            name, data, frames = work.definition
            sender.put(DefineFunction(work.digest, name, data, len(frames)), frames)
        buffers = work.buffers
        inputs: Sequence[Input] = ()
        if work.inputs:
            values = [self._values[task_id] for task_id in work.inputs]
            inputs = [Input(value.data, len(value.buffers)) for value in values]
            buffers = [*buffers, *(buffer for value in values for buffer in value.buffers)]
        run = RunTask(action.task_id, action.run, work.digest, work.data, len(buffers), inputs)
        sender.put(run, buffers)
        if len(sender.waiting) <= 2:
            self._touch(link)

    def _end(self, action: EndTask, event: Event | None, buffers: Sequence[Buffer]) -> None:
        self._forget(action.task_id)
        retries = max(action.run_count - 1, 0)
        said: TaskFinished | None = None
        if isinstance(event, TaskFinished) and event.task_id == action.task_id:
            said = event
        if said is not None and action.by_result:
            ended = TaskEnded(
                action.task_id,
                action.status,
                action.engine_id,
                said.started_s,
                said.completed_s,
                said.data,
                said.frame_count,
                said.error,
                said.outputs,
                retries,
            )
            if ended.status == "ok" and action.task_id in self._wanted:
                self._values.setdefault(action.task_id, Value(said.data, buffers))
        else:
            buffers = ()
            ended = TaskEnded(
                action.task_id,
                action.status,
                action.engine_id,
                # One that was stopped ran, and has shown something.
                0.0 if said is None else said.started_s,
                0.0 if said is None else said.completed_s,
                error=action.error,
                outputs=None if said is None else said.outputs,
                retries=retries,
            )
        session = self._sessions.by_id.get(action.session_id)
        if session is not None:
            sender = session.bulk.sender
            sender.put(ended, buffers)
            if len(sender.waiting) == 1:
                self._touch(session.bulk)
        engine = self._sessions.by_engine.get(action.engine_id)
        self._recording.ended(ended, buffers, engine, session)

    def _forget(self, task_id: TaskId) -> None:
        """Drop what a task was made of, and its inputs if no other task wants them."""
        work = self._work.pop(task_id, None)
        if not self._work:
            self._work.clear()  # a dict keeps the room of all that it ever held
        if work is None or not work.inputs:
            return
        for input_id in work.inputs:
            wanted = self._wanted.get(input_id, {})
            wanted.pop(task_id, None)
            if not wanted:
                self._wanted.pop(input_id, None)
                self._values.pop(input_id, None)

    def _put_control(self, engine_id: EngineId, message: Message) -> None:
        session = self._sessions.by_engine[engine_id]
        session.control.put(message)
        self._touch(session.control)

    def _tell_clients(self, message: Message) -> None:
        for session in self._sessions.of_role("client"):
            session.control.put(message)
            self._touch(session.control)


def _is_own(source: SessionId, message: Submission) -> bool:
    """Whether a client names its tasks as it must: by its session and a number."""
    if not isinstance(message, SubmitTask):
        return message.first_number >= 0
    session_id, _, number = message.task_id.rpartition("-")
    return session_id == source and number.isascii() and number.isdecimal()


def ids_of(source: SessionId, message: Submission) -> list[TaskId]:
    """Return the ids of the tasks that a message submits."""
    match message:
        case SubmitTask():
            return [message.task_id]
        case SubmitMap():
            count = len(message.items)
        case SubmitDirect():
            count = len(message.engine_ids)
        case _:
            assert_never(message)
    return [task_id_of(source, message.first_number + index) for index in range(count)]
