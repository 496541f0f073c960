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
from pathlib import Path

import msgspec

from parallelz.controller.attendance import Attendance
from parallelz.controller.complaints import Complaints
from parallelz.controller.liveness import Verdict, judge
from parallelz.controller.memory import MemoryReturn
from parallelz.controller.recording import Recording
from parallelz.controller.requests import Requests
from parallelz.controller.restoring import Restoring
from parallelz.controller.returning import Returning
from parallelz.controller.sessions import Definition, Link, Session, Sessions
from parallelz.controller.shared_memory import SharedMemory
from parallelz.controller.tasks import Tasks
from parallelz.controller_limits import USUAL_LIMITS, ControllerLimits
from parallelz.core.events import Tick
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId
from parallelz.protocol.envelope import Buffer, Envelope, check_counts, decode_raw, pack
from parallelz.protocol.messages import (
    DefineFunction,
    DrainChildren,
    DrainEngines,
    EngineDied,
    EngineReturned,
    Goodbye,
    Hello,
    LiveOutput,
    Message,
    NamespaceCleared,
    Notice,
    PeerInfo,
    ProvideValue,
    Reply,
    ResumeTasks,
    Role,
    SayHello,
    StopEngine,
    StoreTrouble,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    Supervises,
    TaskFinished,
    TasksDropped,
)
from parallelz.protocol.roles import FromClient, FromEngine, FromRecorder, FromSupervisor
from parallelz.transport.router import Arrival, MessageRouter, Router
from parallelz.transport.security import ClusterSecrets
from parallelz.transport.sockets import Waker

logger = logging.getLogger(__name__)

# Per turn, so that timers and broken lines are seen to.
ARRIVALS_MAX = 256
PIECES_MAX = 256  # of large buffers that are sent, if not one envelope has more
TURN_S = 0.05
UNTOLD_COUNT_MAX = 32
TELL_PERIOD_S = 0.1
TELL_CHECK_PERIOD_S = 0.005  # rarely enough to cost a task nothing
FLUSH_PERIOD_S = 0.002
IDLE_S = 1.0

INTRODUCTIONS = (DefineFunction, EngineReturned, ResumeTasks)
"""What a peer that comes back says before all else."""

_decoders: dict[Role, msgspec.msgpack.Decoder[Envelope[Message]]] = {
    "client": msgspec.msgpack.Decoder(Envelope[FromClient | Hello]),
    "engine": msgspec.msgpack.Decoder(Envelope[FromEngine | Hello]),
    "supervisor": msgspec.msgpack.Decoder(Envelope[FromSupervisor | Hello]),
    "recorder": msgspec.msgpack.Decoder(Envelope[FromRecorder | Hello]),
}


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
    resume
        Whether it takes the place of one that died, and whose peers come back.
    shared_memory
        The directory in which processes of this host share memory. None: they do not.
    limits
        How long it waits for peers that are out of reach.

    Raises
    ------
    ClusterError
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
        resume: bool = False,
        shared_memory: Path | None = None,
        limits: ControllerLimits = USUAL_LIMITS,
    ) -> None:
        self.id = controller_id or uuid.uuid4().hex
        self._clock = clock
        self._router: MessageRouter = Router(secrets) if router is None else router
        self._waker = Waker()
        self._router.watch(self._waker)
        self._parent_pid = parent_pid
        self._dirty: dict[int, Link] = {}
        self._tell_by_s = 0.0
        self._tell_check_s = 0.0
        self._flushed_s = 0.0
        self._timers_seen_s = 0.0
        self._piece_count = 0  # of large buffers, sent in this turn
        self._stop_reason = ""
        self._memory = MemoryReturn()
        self._shared = SharedMemory(shared_memory)
        self._scheduler = Scheduler() if scheduler is None else scheduler
        self._sessions = Sessions(secrets, self.id)
        self._recording = recording
        recording.connect(self._touch)
        self._complaints = Complaints()
        self._tasks = Tasks(
            self._scheduler, self._sessions, recording, self._touch, self._complaints
        )
        sessions, tasks = self._sessions, self._tasks
        self._requests = Requests(self._scheduler, sessions, tasks, recording, self._touch)
        self._attendance = Attendance(
            self._router,
            sessions,
            tasks,
            self._requests,
            recording,
            judging,
            self._touch,
            self._complaints,
            limits,
        )
        self._returning = Returning(
            self._scheduler,
            tasks,
            recording,
            self._attendance,
            sessions,
            self._touch,
            self._catch_up,
        )
        self._restoring = Restoring(tasks, sessions, self._attendance, recording)
        if resume:
            self._returning.begin(clock())
            self._restoring.begin(clock())

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
        self._shared.close()

    def turn(self) -> None:
        """Wait for something to come, or to be due, and see to it."""
        due_s = self._due_s()
        has_breaks = self._router.poll(max(due_s - self._clock(), 0.0))
        self._attendance.begin_turn(has_breaks=has_breaks)
        self._piece_count = 0
        now_s = self._clock()
        for arrival in self._router.receive(ARRIVALS_MAX):
            self._take_in(arrival, now_s)
            if self._clock() - now_s > TURN_S:
                break
        self._attendance.part_with_broken_lines(now_s)
        if now_s >= due_s or self._returning.is_open or not self._restoring.is_over:
            self._see_to_timers(now_s)
        self._memory.see(len(self._scheduler.tasks), now_s)
        if self._recording.notices:
            self._pass_on_notices()
        self._flush()
        if self._piece_count:
            self._memory.see_pieces(self._piece_count, now_s)
        if self._requests.hub_is_to_stop and not self._stop_reason:
            self._stop_reason = "a client asked for it"

    def _due_s(self) -> float:
        """Return when there is something to do even if nothing comes."""
        if self._dirty:
            return self._clock()
        due_s = self._timers_seen_s + IDLE_S
        for deadline_s in (
            self._scheduler.next_deadline_s(),
            self._recording.next_deadline_s(),
            self._memory.next_deadline_s(),
            self._returning.next_deadline_s(),
            self._restoring.next_deadline_s(),
            self._tasks.lookups.next_deadline_s(),
            *self._attendance.deadlines_s(),
        ):
            if deadline_s is not None and deadline_s < due_s:
                due_s = deadline_s
        if self._attendance.untold and self._tell_by_s < due_s:
            due_s = self._tell_by_s
        return due_s

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
            "suspects": self._attendance.suspect_count,
            "returns": self._returning.open_count,
        }

    def validate(self) -> None:
        """Check every invariant of the core; costs time linear in the number of tasks."""
        self._scheduler.validate()

    # -- taking in -------------------------------------------------------------------------

    def _take_in(self, arrival: Arrival, now_s: float) -> None:
        link = self._sessions.routes.get(arrival.routing_id)
        if link is None:
            self._attendance.greet_stranger(arrival, now_s)
            return
        decoded = self._decoded(link, arrival)
        if decoded is None:
            return
        envelope, buffers = decoded
        if not link.receiver.accept(envelope.number):
            if envelope.number > link.receiver.received:
                self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        link.sender.acknowledge(envelope.acknowledged)
        self._recording.take_acknowledgement(link, envelope.acknowledged)
        start = 0
        for message in envelope.messages:
            end = start + getattr(message, "frame_count", 0)
            if isinstance(message, Hello):
                self._attendance.greet(message, arrival, now_s)
            else:
                self._handle(link, message, buffers[start:end], now_s)
            start = end
            if self._clock() - self._flushed_s > FLUSH_PERIOD_S:
                self._flush()  # engines need not idle until a long envelope is through
        if not self._router.has_arrivals():
            self._flush()  # what comes of it can begin while it is written down
        if envelope.number:
            self._handled(link, envelope.number, now_s)

    def _decoded(
        self, link: Link, arrival: Arrival
    ) -> tuple[Envelope[Message], Sequence[Buffer]] | None:
        try:
            envelope = _decoders[link.session.role].decode(arrival.first)
            buffers = self._shared.buffers_of(envelope, arrival.buffers, link.session.id)
            check_counts(envelope.messages, len(buffers))
        except msgspec.MsgspecError as error:
            text = "dropped a message of %r: %s"
            self._complaints.log(self._clock(), text, link.session, error)
            self._skip(link, arrival)
            return None
        return envelope, buffers

    def _skip(self, link: Link, arrival: Arrival) -> None:
        """Count an envelope that cannot be read as received, or its link would hang on it."""
        try:
            number = decode_raw(arrival.first).number
        except msgspec.MsgspecError:
            return
        link.receiver.accept(number)

    def _handle(  # noqa: C901, PLR0912 - one arm for each kind of message, and nothing else
        self, link: Link, message: Message, buffers: Sequence[Buffer], now_s: float
    ) -> None:
        session = link.session
        if session.is_returning and not isinstance(message, INTRODUCTIONS):
            session.backlog.append((link, 0, message, buffers))
            return
        match message:
            case TaskFinished() | TasksDropped():
                returning = self._returning
                if not (returning.is_open and returning.keeps(link, message, buffers)):
                    self._tasks.handle(message, session.id, now_s, buffers, places=False)
            case SubmitTask() | SubmitMap() | SubmitDirect():
                self._tasks.submit(session, message, buffers, now_s)
                if self._returning.is_open:
                    self._returning.submitted(session.id, message, now_s)
            case DefineFunction():
                name, data = message.name, message.data
                session.known.put(message.digest, Definition(name, data, buffers))
                self._recording.function_defined(message.digest, name, data, buffers)
            case EngineReturned():
                self._returning.engine_returned(session, message, now_s)
            case ResumeTasks():
                self._returning.resume(session, message, now_s)
            case Goodbye():
                self._attendance.part(session, message.reason, now_s)
            case EngineDied():
                self._returning.engine_died(link, message, now_s)
            case StoreTrouble():
                self._recording.take_trouble(message)
            case Supervises():
                session.children = message.session_ids
                self._requests.see_to_postponed(now_s)
            case DrainChildren():
                drained = DrainEngines(0, self._sessions.engine_ids(session.children))
                self._tasks.handle(drained, session.id, now_s)
            case LiveOutput():
                self._requests.show_live(session, message)
            case NamespaceCleared():
                if session.engine is not None:
                    self._requests.cleared(session.engine.engine_id, message)
            case Reply():
                self._requests.history_answered(message, buffers, now_s)
            case ProvideValue():
                self._tasks.provide(session, message, buffers, now_s)
            case _:
                self._requests.handle(session, message, now_s)  # type: ignore[arg-type]

    def _handled(self, link: Link, number: int, now_s: float) -> None:
        """Take in that all of an envelope was dealt with, or waits to be."""
        session = link.session
        if session.is_returning:
            session.backlog.append((link, number, None, ()))
            self._returning.received(link, number, now_s)
            return
        self._recording.when_safe(link, number)
        self._attendance.untold[id(link)] = link
        self._returning.handled(link, number, now_s)

    def _catch_up(self, session: Session, now_s: float) -> None:
        """Deal with what a peer said before it could be understood."""
        backlog, session.backlog = session.backlog, []
        for link, number, message, buffers in backlog:
            if message is None:
                self._handled(link, number, now_s)
            else:
                self._handle(link, message, buffers, now_s)

    # -- time and sending ------------------------------------------------------------------

    def _see_to_timers(self, now_s: float) -> None:
        self._timers_seen_s = now_s
        deadline_s = self._scheduler.next_deadline_s()
        if deadline_s is not None and deadline_s <= now_s:
            self._tasks.handle(Tick(), SessionId(""), now_s)
        self._attendance.see_to_timers(now_s)
        self._requests.see_to_postponed(now_s)
        self._returning.see_to_timers(now_s)
        self._restoring.see_to_timers(now_s)
        self._tasks.lookups.see_to_timers(now_s)
        self._recording.see_to_timers(now_s)
        self._shared.see_to_timers(now_s)
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            self._stop_reason = "the process that started it is gone"

    def _pass_on_notices(self) -> None:
        while self._recording.notices:
            notice = Notice(self._recording.notices.popleft())
            for session in self._sessions.of_role("client"):
                session.control.put(notice)
                self._touch(session.control)

    def _touch(self, link: Link) -> None:
        self._dirty[id(link)] = link

    def _flush(self) -> None:
        self._flushed_s = self._clock()
        self._tasks.place(self._flushed_s)
        dirty, self._dirty = self._dirty, {}
        for key, link in dirty.items():
            if link.routing_id is not None and link.sender.waiting:
                count = link.sender.waiting_piece_count
                if count and self._piece_count > PIECES_MAX:
                    self._dirty[key] = link  # its turn comes: what is small goes first
                    continue
                self._piece_count += count
                self._router.send(link.routing_id, link.sender.take(link.receiver.tell()))
        if not self._attendance.untold:
            return
        if not self._tell_by_s:
            self._tell_by_s = self._flushed_s + TELL_PERIOD_S
        if self._flushed_s >= min(self._tell_check_s, self._tell_by_s):
            self._tell_check_s = self._flushed_s + TELL_CHECK_PERIOD_S
            self._tell(self._flushed_s)

    def _tell(self, now_s: float) -> None:
        """Acknowledge what found nothing to ride on, if it is much or has waited for long."""
        is_due = now_s >= self._tell_by_s
        for key, link in list(self._attendance.untold.items()):
            count = link.receiver.untold_count
            if count and (is_due or count >= UNTOLD_COUNT_MAX) and link.routing_id is not None:
                self._router.send(link.routing_id, [pack(0, link.receiver.tell(), [])])
            if is_due and not self._recording.is_holding(link):
                del self._attendance.untold[key]
        if is_due:
            self._tell_by_s = now_s + TELL_PERIOD_S if self._attendance.untold else 0.0

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
