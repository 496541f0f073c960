"""What clients ask past the queues, and the answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Link, Session, Sessions
from parallelz.controller.tasks import Tasks
from parallelz.core.overview import overview
from parallelz.core.scheduler import Scheduler
from parallelz.core.story import dump, queue_status, story_lines, why
from parallelz.ids import EngineId, SessionId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    AbortTasks,
    AskHistory,
    AskQueues,
    AskState,
    CancelTasks,
    ClearEngines,
    ClearNamespace,
    DrainEngines,
    ErrorInfo,
    InterruptEngines,
    InterruptTask,
    LiveOutput,
    Message,
    NamespaceCleared,
    Reply,
    ShutdownEngines,
    StopEngine,
)

Request = (
    AbortTasks
    | CancelTasks
    | DrainEngines
    | InterruptEngines
    | ClearEngines
    | ShutdownEngines
    | AskQueues
    | AskState
    | AskHistory
)

RESTART_GRACE_S = 2.0
JOIN_GRACE_S = 10.0  # for a supervisor, which joins some milliseconds after its engines
LIVE_KEPT_MAX = 100  # envelopes that a client has not taken: it gets no more live output


class Requests:
    """Answers each request once, some of them after others have answered."""

    def __init__(
        self,
        scheduler: Scheduler,
        sessions: Sessions,
        tasks: Tasks,
        recording: Recording,
        touch: Callable[[Link], None],
    ) -> None:
        self._scheduler = scheduler
        self._sessions = sessions
        self._tasks = tasks
        self._recording = recording
        self._touch = touch
        self._clears: dict[str, tuple[Session, int, set[EngineId]]] = {}
        self.hub_is_to_stop = False
        # Until supervisors have joined, and until when.
        self._postponed: list[tuple[Session, ShutdownEngines, float]] = []

    @property
    def open_count(self) -> int:
        """How many requests wait for others to answer."""
        return len(self._clears) + len(self._postponed) + self._recording.question_count

    def handle(self, session: Session, message: Request, now_s: float) -> None:
        """Do what a client asks, or see to it that it is done."""
        match message:
            case AbortTasks() | CancelTasks() | DrainEngines():
                self._tasks.handle(message, session.id, now_s)
                self._reply(session, Reply(message.request_id))
            case InterruptEngines():
                self._tell(message.engine_ids, InterruptTask())
                self._reply(session, Reply(message.request_id))
            case ClearEngines():
                self._clear(session, message)
            case ShutdownEngines():
                self._shut_down(session, message, now_s, now_s + JOIN_GRACE_S)
            case AskQueues():
                status = queue_status(
                    self._scheduler, message.engine_ids, verbose=message.verbose
                )
                data = msgspec.msgpack.encode(status)
                self._reply(session, Reply(message.request_id, data))
            case AskState():
                data = msgspec.msgpack.encode(self._state(message, now_s))
                self._reply(session, Reply(message.request_id, data))
            case AskHistory():
                if not self._recording.ask(session, message):
                    text = "this cluster keeps no history: it was started with --store none"
                    self._reply(
                        session, Reply(message.request_id, error=ErrorInfo("NoStore", text))
                    )

    def see_to_postponed(self, now_s: float) -> None:
        """Try again what waits for supervisors that are about to join."""
        postponed, self._postponed = self._postponed, []
        for session, message, until_s in postponed:
            self._shut_down(session, message, now_s, until_s)

    def _shut_down(
        self, session: Session, message: ShutdownEngines, now_s: float, until_s: float
    ) -> None:
        reason = "a client asked for it"
        if not message.restart or message.hub:
            self._tell(message.engine_ids, StopEngine(reason))
            self._reply(session, Reply(message.request_id))
            self.hub_is_to_stop = self.hub_is_to_stop or message.hub
            return
        engine_ids = [e for e in message.engine_ids if e in self._sessions.by_engine]
        alone = [
            engine_id
            for engine_id in engine_ids
            if self._sessions.supervisor_of(self._sessions.by_engine[engine_id]) is None
        ]
        supervised = [e for e in alone if self._sessions.by_engine[e].is_supervised]
        if supervised and now_s < until_s:
            self._postponed.append((session, message, until_s))
            return
        if alone:
            text = f"engines {alone} have no supervisor that could start others in their place"
            error = ErrorInfo("EngineError", text)
            self._reply(session, Reply(message.request_id, error=error))
            return
        for engine_id in engine_ids:
            self._tasks.end_engine(engine_id, reason, grace_s=RESTART_GRACE_S)
        self._reply(session, Reply(message.request_id))

    def _state(self, message: AskState, now_s: float) -> object:
        match message.question:
            case "story":
                return [story_lines(self._scheduler, t, now_s) for t in message.task_ids]
            case "why":
                return [why(self._scheduler, t, now_s) for t in message.task_ids]
            case "dump":
                return {
                    "version": PROTOCOL_VERSION,
                    "sessions": [repr(s) for s in self._sessions.by_id.values()],
                    "recorder": self._recording.dump(),
                    **dump(self._scheduler, now_s),
                }
            case "overview":
                return overview(
                    self._scheduler,
                    now_s,
                    function_of=self._tasks.function_of,
                    client_of=self._client_of,
                    controller_pid=os.getpid(),
                    trouble=self._recording.trouble,
                )

    def _client_of(self, session_id: SessionId) -> str:
        """Return what to call a client, which may be gone."""
        session = self._sessions.by_id.get(session_id)
        if session is None:
            return ""
        return f"{session.peer.user or '?'}@{session.peer.host} pid {session.peer.pid}"

    def history_answered(self, reply: Reply, buffers: Sequence[Buffer], now_s: float) -> None:
        """Pass the recorder's answer on to whom it is for."""
        if self._recording.answered(reply, buffers, now_s):
            return
        asked = self._recording.asker(reply.request_id)
        if asked is not None:
            session, request_id = asked
            self._reply(session, msgspec.structs.replace(reply, request_id=request_id), buffers)

    def _clear(self, session: Session, message: ClearEngines) -> None:
        waiting = {e for e in message.engine_ids if e in self._sessions.by_engine}
        if not waiting:
            self._reply(session, Reply(message.request_id))
            return
        key = f"{session.id}/{message.request_id}"
        self._clears[key] = (session, message.request_id, waiting)
        self._tell(message.engine_ids, ClearNamespace(key))

    def show_live(self, engine: Session, message: LiveOutput) -> None:
        """Pass on what a task has shown to its client, unless that is away or slow."""
        client = self._sessions.by_id.get(SessionId(message.task_id.rpartition("-")[0]))
        if client is None or client.role != "client" or engine.engine is None:
            return
        link = client.control
        if link.routing_id is not None and link.sender.kept_count <= LIVE_KEPT_MAX:
            link.put(structs.replace(message, engine_id=engine.engine.engine_id))
            self._touch(link)

    def cleared(self, engine_id: EngineId, message: NamespaceCleared) -> None:
        """Take in that one engine has done it; the last one brings the answer."""
        self._settle_clear(message.request_key, engine_id)

    def engine_is_gone(self, engine_id: EngineId) -> None:
        """Wait for that engine no longer."""
        for key in list(self._clears):
            self._settle_clear(key, engine_id)

    def _settle_clear(self, key: str, engine_id: EngineId) -> None:
        if key not in self._clears:
            return
        session, request_id, waiting = self._clears[key]
        waiting.discard(engine_id)
        if not waiting:
            del self._clears[key]
            self._reply(session, Reply(request_id))

    def _tell(self, engine_ids: list[EngineId], message: Message) -> None:
        for engine_id in engine_ids:
            engine = self._sessions.by_engine.get(engine_id)
            if engine is not None:
                engine.control.put(message)
                self._touch(engine.control)

    def _reply(self, session: Session, reply: Reply, buffers: Sequence[Buffer] = ()) -> None:
        session.control.put(reply, buffers)
        self._touch(session.control)
