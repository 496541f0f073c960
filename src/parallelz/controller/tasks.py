"""Tasks in the controller: payloads in and out, and the core's actions performed.

The core decides by headers; here the payloads wait beside it, unread, until their task ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import assert_never

import msgspec

from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Definition, Link, Session, Sessions
from parallelz.core.ended import NOWHERE
from parallelz.core.events import (
    Action,
    AnnounceEngine,
    AnnounceLoss,
    EndTask,
    Event,
    PlaceTask,
    RecallTasks,
    Warn,
)
from parallelz.core.scheduler import Scheduler
from parallelz.errors import UnknownFunction
from parallelz.ids import Digest, EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    DefineFunction,
    DropTasks,
    EngineJoined,
    EngineLeft,
    ErrorInfo,
    Message,
    Notice,
    RunTask,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskFinished,
)

logger = logging.getLogger(__name__)


class Work(msgspec.Struct, frozen=True, gc=False):
    """What an engine needs to run a task."""

    digest: Digest
    definition: Definition
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
    ) -> None:
        self._scheduler = scheduler
        self._sessions = sessions
        self._recording = recording
        self._touch = touch
        self._work: dict[TaskId, Work] = {}

    @property
    def payload_count(self) -> int:
        """How many tasks it keeps the payload of."""
        return len(self._work)

    def submit(
        self,
        session: Session,
        message: SubmitTask | SubmitMap | SubmitDirect,
        buffers: Sequence[Buffer],
        now_s: float,
    ) -> None:
        """Take in new tasks of a client; those that are known are left as they are."""
        if not _is_own(session.id, message):
            logger.warning(
                "! dropped a submission of %r: the id is not one of its own", session
            )
            return
        ids = _ids_of(session.id, message)
        try:
            definition = session.known.get(message.digest)
        except UnknownFunction as error:
            self._refuse(session, ids, error)
            return
        match message:
            case SubmitTask():
                if message.task_id in self._work:
                    return
                self._work[message.task_id] = Work(
                    message.digest, definition, message.data, buffers
                )
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
        self.handle(message, session.id, now_s)
        if len(ids) == 1 and ids[0] not in self._scheduler.tasks:
            self._work.pop(ids[0], None)  # it had ended before: the client only says it again

    def _refuse(self, session: Session, ids: list[TaskId], error: UnknownFunction) -> None:
        logger.warning("! %r: %s", session, error)
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
    ) -> None:
        """Let the core decide about an event, and do what it says."""
        for action in self._scheduler.handle(event, source, now_s):
            self._perform(action, event, buffers)

    def _perform(self, action: Action, event: Event, buffers: Sequence[Buffer]) -> None:
        match action:
            case PlaceTask():
                self._place(action)
            case EndTask():
                self._end(action, event, buffers)
            case RecallTasks():
                self._put_control(action.engine_id, DropTasks(action.task_ids, action.runs))
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

    def _place(self, action: PlaceTask) -> None:
        session = self._sessions.by_engine[action.engine_id]
        link = session.bulk
        sender = link.sender
        work = self._work[action.task_id]
        if session.sent.need(work.digest):
            name, data, buffers = work.definition
            sender.put(DefineFunction(work.digest, name, data, len(buffers)), buffers)
        run = RunTask(action.task_id, action.run, work.digest, work.data, len(work.buffers))
        sender.put(run, work.buffers)
        if len(sender.waiting) <= 2:
            self._touch(link)

    def _end(self, action: EndTask, event: Event, buffers: Sequence[Buffer]) -> None:
        self._work.pop(action.task_id, None)
        retries = max(action.run_count - 1, 0)
        if action.by_result and isinstance(event, TaskFinished):
            ended = TaskEnded(
                action.task_id,
                action.status,
                action.engine_id,
                event.started_s,
                event.completed_s,
                event.data,
                event.frame_count,
                event.error,
                event.outputs,
                retries,
            )
        else:
            buffers = ()
            ended = TaskEnded(
                action.task_id,
                action.status,
                action.engine_id,
                error=action.error,
                retries=retries,
            )
        session = self._sessions.by_id.get(action.session_id)
        if session is not None:
            sender = session.bulk.sender
            sender.put(ended, buffers)
            if len(sender.waiting) == 1:
                self._touch(session.bulk)
        engine = self._sessions.by_engine.get(action.engine_id)
        self._recording.ended(ended, "" if engine is None else engine.id, buffers)

    def _put_control(self, engine_id: EngineId, message: Message) -> None:
        session = self._sessions.by_engine[engine_id]
        session.control.put(message)
        self._touch(session.control)

    def _tell_clients(self, message: Message) -> None:
        for session in self._sessions.of_role("client"):
            session.control.put(message)
            self._touch(session.control)


def _is_own(source: SessionId, message: SubmitTask | SubmitMap | SubmitDirect) -> bool:
    """Whether a client names its tasks as it must: by its session and a number."""
    if not isinstance(message, SubmitTask):
        return message.first_number >= 0
    session_id, _, number = message.task_id.rpartition("-")
    return session_id == source and number.isascii() and number.isdecimal()


def _ids_of(source: SessionId, message: SubmitTask | SubmitMap | SubmitDirect) -> list[TaskId]:
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
