"""The controller's loop: the only place where deciding meets sockets and time.

Each turn takes in what has arrived, lets the core decide, and sends one envelope to each peer
that has something coming: batches come from draining, not from waiting.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence

import msgspec

from parallelz.controller.liveness import Verdict, judge
from parallelz.controller.memory import MemoryReturn
from parallelz.controller.recording import Recording
from parallelz.controller.requests import Requests
from parallelz.controller.sessions import GIVEN_UP, Definition, Link, Session, Sessions
from parallelz.controller.tasks import Tasks
from parallelz.core.ended import NOWHERE
from parallelz.core.events import ClientForgotten, EngineArrived, EngineLost, Tick
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId
from parallelz.protocol.envelope import Buffer, Envelope, pack
from parallelz.protocol.messages import (
    DefineFunction,
    EngineDied,
    FromClient,
    FromEngine,
    FromRecorder,
    FromSupervisor,
    Goodbye,
    Hello,
    Message,
    NamespaceCleared,
    PeerInfo,
    ProvideValue,
    Refused,
    Reply,
    Role,
    SayHello,
    StopEngine,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    Supervises,
    TaskFinished,
    TasksDropped,
    Welcome,
)
from parallelz.transport.router import Arrival, MessageRouter, Router
from parallelz.transport.security import ClusterSecrets
from parallelz.transport.sockets import Waker, host_id

logger = logging.getLogger(__name__)

ARRIVALS_MAX = 256  # per turn, so that timers and broken lines are seen to
UNTOLD_COUNT_MAX = 32
TELL_PERIOD_S = 0.1
FLUSH_PERIOD_S = 0.002
SUPERVISOR_GRACE_S = 0.025  # for the exact cause, when the process is known to be dead
AWAY_GRACE_S = 15.0  # a peer out of reach may come back within this
CLIENT_GRACE_S = 60.0
IDLE_S = 1.0

_decoders: dict[Role, msgspec.msgpack.Decoder[Envelope[Message]]] = {
    "client": msgspec.msgpack.Decoder(Envelope[FromClient | Hello]),
    "engine": msgspec.msgpack.Decoder(Envelope[FromEngine | Hello]),
    "supervisor": msgspec.msgpack.Decoder(Envelope[FromSupervisor | Hello]),
    "recorder": msgspec.msgpack.Decoder(Envelope[FromRecorder | Hello]),
}
_decode_greeting = msgspec.msgpack.Decoder(Envelope[Hello]).decode
_decode_numbers = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw]).decode


class Controller:
    """One cluster's live state, and the loop that serves it.

    Parameters
    ----------
    secrets
        Where to listen, and whom to let in.
    recording
        Remembers; may remember nothing.
    parent_pid
        When this process is gone, the controller ends. None: it ends only when told to.
    router, clock, judging, controller_id
        The world around it, to be simulated. None and "": the real one.
    scheduler
        Decides. None: one with the usual scheme.

    Raises
    ------
    zmq.ZMQError
        An address cannot be bound.
    """

    def __init__(
        self,
        secrets: ClusterSecrets,
        recording: Recording,
        parent_pid: int | None = None,
        *,
        router: MessageRouter | None = None,
        clock: Callable[[], float] = time.monotonic,
        judging: Callable[[PeerInfo, str], Verdict] = judge,
        controller_id: str = "",
        scheduler: Scheduler | None = None,
    ) -> None:
        self.id = controller_id or uuid.uuid4().hex
        self._clock = clock
        self._judge = judging
        self._router: MessageRouter = Router(secrets) if router is None else router
        self._waker = Waker()
        self._router.watch(self._waker)
        self._host_id = host_id()
        self._parent_pid = parent_pid
        self._dirty: dict[int, Link] = {}
        self._untold: dict[int, Link] = {}
        self._tell_by_s = 0.0
        self._flushed_s = 0.0
        self._suspects: dict[SessionId, tuple[float, str]] = {}
        self._broken_fds: set[int] = set()  # of lines that broke in this turn
        self._stop_reason = ""
        self._memory = MemoryReturn()
        self._scheduler = Scheduler() if scheduler is None else scheduler
        self._sessions = Sessions(secrets)
        self._recording = recording
        recording.connect(self._touch)
        self._tasks = Tasks(self._scheduler, self._sessions, recording, self._touch)
        self._requests = Requests(
            self._scheduler, self._sessions, self._tasks, recording, self._touch
        )

    def run(self) -> None:
        """Serve until `stop` is called, a client asks for the end, or the parent is gone."""
        while not self._stop_reason:
            self.turn()
        logger.info("= ends: %s", self._stop_reason)
        self._say_goodbye()

    def stop(self, reason: str) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._stop_reason = reason
        self._waker.wake()

    def close(self) -> None:
        """Free all sockets."""
        self._router.close(0)
        self._waker.close()

    def turn(self) -> None:
        """Wait for something to come, or to be due, and see to it."""
        self._router.poll(self._timeout_s())
        self._broken_fds.clear()
        now_s = self._clock()
        for arrival in self._router.receive(ARRIVALS_MAX):
            self._take_in(arrival, now_s)
        self._see_broken_lines(now_s)
        self._see_to_timers(now_s)
        self._flush()
        if self._requests.hub_is_to_stop and not self._stop_reason:
            self._stop_reason = "a client asked for it"

    def _timeout_s(self) -> float:
        deadlines = [
            self._scheduler.next_deadline_s(),
            self._recording.next_deadline_s(),
            self._memory.next_deadline_s(),
        ]
        if self._untold:
            deadlines.append(self._tell_by_s)
        deadlines.extend(deadline_s for deadline_s, _ in self._suspects.values())
        until_s = min((d for d in deadlines if d is not None), default=None)
        if until_s is None:
            return IDLE_S
        return min(max(until_s - self._clock(), 0.0), IDLE_S)

    def remains(self) -> dict[str, int]:
        """Return how much there is of what must not last: all 0 when nothing is going on."""
        links = [link for session in self._sessions.by_id.values() for link in session.links]
        return {
            "live tasks": len(self._scheduler.tasks),
            "payloads": self._tasks.payload_count,
            "messages to send": sum(len(link.sender.waiting) for link in links),
            "envelopes kept": sum(link.sender.kept_count for link in links),
            "envelopes not acknowledged": self._recording.holding_count,
            "requests": self._requests.open_count,
            "suspects": len(self._suspects),
        }

    def validate(self) -> None:
        """Check every invariant of the core; costs time linear in the number of tasks."""
        self._scheduler.validate()

    # -- taking in -------------------------------------------------------------------------

    def _take_in(self, arrival: Arrival, now_s: float) -> None:
        link = self._sessions.routes.get(arrival.routing_id)
        if link is None:
            self._greet_stranger(arrival, now_s)
            return
        try:
            envelope = _decoders[link.session.role].decode(arrival.first)
            frame_count = sum(getattr(m, "frame_count", 0) for m in envelope.messages)
            if frame_count != len(arrival.buffers):
                raise msgspec.ValidationError(
                    f"{len(arrival.buffers)} frames came where {frame_count} were announced"
                )
        except msgspec.MsgspecError as error:
            logger.warning("! dropped a message of %r: %s", link.session, error)
            self._skip(link, arrival)
            return
        if not link.receiver.accept(envelope.number):
            if envelope.number > link.receiver.received:
                self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        link.sender.acknowledge(envelope.acknowledged)
        if link is self._recording.link:
            self._recording.acknowledged(envelope.acknowledged)
        start = 0
        for message in envelope.messages:
            end = start + getattr(message, "frame_count", 0)
            self._handle(link, message, arrival, arrival.buffers[start:end], now_s)
            start = end
            if self._dirty and self._clock() - self._flushed_s > FLUSH_PERIOD_S:
                self._flush()  # engines need not idle until a long envelope is through
        if envelope.number:
            self._recording.when_safe(link, envelope.number)
            self._untold[id(link)] = link

    def _skip(self, link: Link, arrival: Arrival) -> None:
        """Count an envelope that cannot be read as received, or its link would hang on it."""
        try:
            number, _, _ = _decode_numbers(arrival.first)
        except msgspec.MsgspecError:
            return
        link.receiver.accept(number)

    def _handle(  # noqa: C901, PLR0912 - one arm for each kind of message, and nothing else
        self,
        link: Link,
        message: Message,
        arrival: Arrival,
        buffers: Sequence[Buffer],
        now_s: float,
    ) -> None:
        session = link.session
        match message:
            case TaskFinished() | TasksDropped():
                self._tasks.handle(message, session.id, now_s, buffers)
            case SubmitTask() | SubmitMap() | SubmitDirect():
                self._tasks.submit(session, message, buffers, now_s)
            case DefineFunction():
                session.known.put(
                    message.digest, Definition(message.name, message.data, buffers)
                )
            case Hello():
                self._greet(message, arrival, now_s)
            case Goodbye():
                self._part(session, message.reason, now_s)
            case EngineDied():
                died = self._sessions.by_id.get(message.session_id)
                if died is not None and died.role == "engine":
                    self._lose(died, message.cause, now_s, message.started_count)
            case Supervises():
                session.children = message.session_ids
            case NamespaceCleared():
                if session.engine is not None:
                    self._requests.cleared(session.engine.engine_id, message)
            case Reply():
                self._requests.history_answered(message, buffers, now_s)
            case ProvideValue():
                self._tasks.provide(session, message, buffers, now_s)
            case _:
                self._requests.handle(session, message, now_s)  # type: ignore[arg-type]

    # -- coming and going ------------------------------------------------------------------

    def _greet_stranger(self, arrival: Arrival, now_s: float) -> None:
        try:
            envelope = _decode_greeting(arrival.first)
        except msgspec.MsgspecError as error:
            try:
                _decode_numbers(arrival.first)
            except msgspec.MsgspecError:
                logger.warning("! dropped a message of a stranger: %s", error)
                return
            self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        for hello in envelope.messages[:1]:
            self._greet(hello, arrival, now_s)

    def _greet(self, hello: Hello, arrival: Arrival, now_s: float) -> None:
        # A line's number may be that of one which broke: first take in what broke.
        self._see_broken_lines(now_s)
        line = self._router.line_of(arrival)
        objection = self._sessions.objection_to(hello, line)
        if objection is not None:
            logger.warning("! refused a %s (pid %d): %s", hello.role, hello.peer.pid, objection)
            self._router.send(arrival.routing_id, [pack(0, 0, [Refused(objection)])])
            return
        if line.fd in self._broken_fds:
            # It broke, or is a new one with the number of one that did: who is alive answers.
            self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        link = self._sessions.link_of(hello)
        session = link.session
        is_going_on = hello.controller_id == self.id
        engines = [
            other.engine
            for other in self._sessions.by_engine.values()
            if other.has_joined and other.engine is not None
        ]
        welcome = Welcome(
            self.id,
            link.receiver.received if is_going_on else 0,
            NOWHERE if session.engine is None else session.engine.engine_id,
            engines if hello.role == "client" else [],
        )
        if not self._router.send(arrival.routing_id, [pack(0, 0, [welcome])]):
            if link.routing_id is None:  # it broke meanwhile, and nobody will say so again
                self._suspect(session, now_s)
            return
        self._sessions.attach(link, arrival.routing_id, line.fd)
        self._suspects.pop(session.id, None)
        if hello.role == "recorder":
            self._recording.attach(link)
        if is_going_on:
            link.receiver.retell()
            self._untold[id(link)] = link
            again = link.sender.resend(hello.received)
        else:
            link.receiver.restart()
            again = link.sender.restart()
        for frames in again:
            self._router.send(arrival.routing_id, frames)
        self._touch(link)
        logger.info("= %s link of %r", hello.link, session)
        joined = all(other.routing_id is not None for other in session.links)
        if session.engine is not None and joined and not session.has_joined:
            session.has_joined = True
            self._tasks.handle(EngineArrived(session.engine), session.id, now_s)

    def _see_broken_lines(self, now_s: float) -> None:
        for fd in self._router.broken_fds():
            self._broken_fds.add(fd)
            link = self._sessions.broken(fd)
            if link is not None and link.session.id in self._sessions.by_id:
                self._suspect(link.session, now_s)

    def _suspect(self, session: Session, now_s: float) -> None:
        """A line broke: find out why, and how long to wait for its peer."""
        verdict = self._judge(session.peer, self._host_id)
        logger.info("= a line to %r broke: it is %s", session, verdict.value)
        if session.role == "engine" and verdict is Verdict.FROZEN:
            self._give_up(session, "it is frozen (stopped by a signal)", now_s)
            return
        grace_s, cause = AWAY_GRACE_S, f"no sign of life for {AWAY_GRACE_S:g} s"
        if verdict is Verdict.DEAD:
            supervised = session.role == "engine" and any(
                s.peer.host_id == session.peer.host_id
                for s in self._sessions.of_role("supervisor")
            )
            grace_s, cause = SUPERVISOR_GRACE_S if supervised else 0.0, "its process has ended"
        elif session.role == "client":
            grace_s = CLIENT_GRACE_S
        self._suspects.setdefault(session.id, (now_s + grace_s, cause))

    def _give_up(self, session: Session, cause: str, now_s: float) -> None:
        """Do without a peer that may live; one that still has a line must not wait on it."""
        for link in session.links:
            if link.routing_id is not None:
                refused = Refused(GIVEN_UP.format(cause))
                self._router.send(link.routing_id, [pack(0, 0, [refused])])
        if session.role == "engine":
            self._lose(session, cause, now_s)
        else:
            self._forget(session, cause, now_s)

    def _part(self, session: Session, reason: str, now_s: float) -> None:
        if session.role == "engine":
            self._lose(session, reason, now_s)
        elif session.role != "recorder":
            self._forget(session, reason, now_s)

    def _lose(
        self, session: Session, cause: str, now_s: float, started_count: int = -1
    ) -> None:
        logger.warning("! lost %r: %s", session, cause)
        self._suspects.pop(session.id, None)
        if session.engine is not None:
            self._recording.engine_changed(session.engine, cause)
            lost = EngineLost(session.id, cause, started_count)
            self._tasks.handle(lost, session.id, now_s)
            self._requests.engine_is_gone(session.engine.engine_id)
        self._sessions.forget(session, cause)

    def _forget(self, session: Session, reason: str, now_s: float) -> None:
        logger.info("= %r is gone: %s", session, reason)
        self._suspects.pop(session.id, None)
        self._sessions.forget(session, reason)
        if session.role == "client":
            self._tasks.handle(ClientForgotten(session.id), session.id, now_s)

    # -- time and sending ------------------------------------------------------------------

    def _see_to_timers(self, now_s: float) -> None:
        deadline_s = self._scheduler.next_deadline_s()
        if deadline_s is not None and deadline_s <= now_s:
            self._tasks.handle(Tick(), SessionId(""), now_s)
        for session_id, (give_up_s, cause) in list(self._suspects.items()):
            if give_up_s <= now_s:
                self._give_up(self._sessions.by_id[session_id], cause, now_s)
        self._recording.see_to_timers(now_s)
        self._memory.see(len(self._scheduler.tasks), now_s)
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            self._stop_reason = "the process that started it is gone"

    def _touch(self, link: Link) -> None:
        self._dirty[id(link)] = link

    def _flush(self) -> None:
        self._flushed_s = self._clock()
        dirty, self._dirty = self._dirty, {}
        for link in dirty.values():
            if link.routing_id is not None and link.sender.waiting:
                self._router.send(link.routing_id, link.sender.take(link.receiver.tell()))
        if not self._untold:
            return
        now_s = self._clock()
        if not self._tell_by_s:
            self._tell_by_s = now_s + TELL_PERIOD_S
        is_due = now_s >= self._tell_by_s
        for key, link in list(self._untold.items()):
            count = link.receiver.untold_count
            if count and (is_due or count >= UNTOLD_COUNT_MAX) and link.routing_id is not None:
                self._router.send(link.routing_id, [pack(0, link.receiver.tell(), [])])
            if is_due and not self._recording.is_holding(link):
                del self._untold[key]
        if is_due:
            self._tell_by_s = now_s + TELL_PERIOD_S if self._untold else 0.0

    def _say_goodbye(self) -> None:
        reason = f"the controller ends: {self._stop_reason}"
        for session in list(self._sessions.by_id.values()):
            if session.role in ("engine", "supervisor"):
                session.control.put(StopEngine(reason))
                self._touch(session.control)
            elif session.role == "client":
                session.control.put(Goodbye(reason))
                self._touch(session.control)
        self._flush()
        self._recording.finish(self.turn)
