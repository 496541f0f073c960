"""Who comes and who goes: greetings, broken lines, and how long to wait for whom."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence

import msgspec

from parallelz.controller.complaints import Complaints
from parallelz.controller.liveness import Verdict
from parallelz.controller.recording import Recording
from parallelz.controller.requests import Requests
from parallelz.controller.sessions import Link, Session, Sessions
from parallelz.controller.tasks import Tasks
from parallelz.controller_limits import USUAL_LIMITS, ControllerLimits
from parallelz.core.ended import NOWHERE
from parallelz.core.events import ClientForgotten, EngineArrived, EngineInTouch, EngineLost
from parallelz.ids import TaskId
from parallelz.protocol.envelope import Envelope, decode_raw, pack
from parallelz.protocol.messages import (
    EngineDied,
    EngineInfo,
    Hello,
    PeerInfo,
    Refused,
    SayHello,
    Welcome,
)
from parallelz.transport.router import Arrival, Line, MessageRouter
from parallelz.transport.sockets import host_id

logger = logging.getLogger(__name__)

SUPERVISOR_GRACE_S = 5.0
"""For the cause of a death and what had started there, which only the supervisor knows.

It says so within milliseconds, on a host that is overloaded after seconds. Without it all that
was placed on the engine counts as started.
"""

ENDED = "its process has ended"
RETURN_GRACE_S = 2.0  # the same for an engine that died while the controller was restarted
HELD_COUNT_MAX = 100_000

_decode_greeting = msgspec.msgpack.Decoder(Envelope[Hello]).decode


class Attendance:
    """Lets peers in, finds out why a line broke, and gives up those who do not come back.

    Parameters
    ----------
    router, sessions, tasks, requests, recording
        The parts of the controller that it works with.
    judging
        Says of a peer whose line broke how it is.
    touch
        Called with each link that has something to send.
    complaints
        Logs what is wrong with peers.
    limits
        How long to wait for those who are out of reach.

    Attributes
    ----------
    is_closed
        Greetings of all but the recorder wait, until the time before is restored.
    holds_newcomers
        Greetings of engines that were not here before wait, until those that were have had
        time to come back: the history may not know that some id was given to one of these.
    untold
        Links that may have something to acknowledge.
    """

    def __init__(
        self,
        router: MessageRouter,
        sessions: Sessions,
        tasks: Tasks,
        requests: Requests,
        recording: Recording,
        judging: Callable[[PeerInfo, str], Verdict],
        touch: Callable[[Link], None],
        complaints: Complaints,
        limits: ControllerLimits = USUAL_LIMITS,
    ) -> None:
        self.limits = limits
        self.is_closed = False
        self.holds_newcomers = False
        self.untold: dict[int, Link] = {}
        self._router = router
        self._sessions = sessions
        self._tasks = tasks
        self._requests = requests
        self._recording = recording
        self._judge = judging
        self._touch = touch
        self._complaints = complaints
        self._host_id = host_id()
        self._suspects: dict[str, tuple[float, str, Session]] = {}
        self._broken_fds: set[int] = set()  # of lines that broke in this turn
        self._breaking_fds: list[int] = []  # the same, without consequences yet
        self._held: dict[bytes, Arrival] = {}  # greetings, while closed

    # -- coming ----------------------------------------------------------------------------

    def greet_stranger(self, arrival: Arrival, now_s: float) -> None:
        """Answer what came on a line of which nothing is known."""
        try:
            envelope = _decode_greeting(arrival.first)
        except msgspec.MsgspecError as error:
            try:
                decode_raw(arrival.first)
            except msgspec.MsgspecError:
                self._complaints.log(now_s, "dropped a message of a stranger: %s", error)
                return
            self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        for hello in envelope.messages[:1]:
            self.greet(hello, arrival, now_s)

    def open(self, now_s: float) -> None:
        """Answer the greetings that had to wait."""
        self.is_closed = False
        held, self._held = self._held, {}
        for arrival in held.values():
            self.greet_stranger(arrival, now_s)

    def greet(self, hello: Hello, arrival: Arrival, now_s: float) -> None:
        """Let a peer in, or say why not."""
        # A line's number may be that of one which broke: first take in what broke.
        self._breaking_fds += self._router.broken_fds()
        self.part_with_broken_lines(now_s)
        line = self._router.line_of(arrival)
        objection = self._objection_to(hello, line)
        if objection:
            who = hello.role, hello.peer.pid, hello.peer.host, objection
            self._complaints.log(now_s, "refused a %s (pid %d on %s): %s", *who)
            self._router.send(arrival.routing_id, [pack(0, 0, [Refused(objection)])])
            return
        if line.fd in self._broken_fds:
            # It broke, or is a new one with the number of one that did: who is alive answers.
            self._router.send(arrival.routing_id, [pack(0, 0, [SayHello()])])
            return
        if self._must_wait(hello):
            if len(self._held) < HELD_COUNT_MAX:
                self._held[arrival.routing_id] = arrival
            return
        link = self._sessions.link_of(hello)
        session = link.session
        # A greeting that was repeated may come late: who has spoken on this line is known.
        is_known = (
            link.routing_id == arrival.routing_id
            and link.receiver.received > link.receiver.start
        )
        is_going_on = is_known or hello.controller_id == session.controller_id
        start = _start_of(session.controller_id)
        welcome = Welcome(
            session.controller_id,
            link.receiver.received if is_going_on else start,
            NOWHERE if session.engine is None else session.engine.engine_id,
            self._engines() if hello.role == "client" else [],
            self.limits.peer_bytes_max,
        )
        if not self._router.send(arrival.routing_id, [pack(0, 0, [welcome])]):
            if link.routing_id is None:  # it broke meanwhile, and nobody will say so again
                self._suspect(session, now_s)
            return
        self._sessions.attach(link, arrival.routing_id, line.fd)
        if not (session.is_returning and session.role == "engine"):
            self._suspects.pop(session.id, None)  # else it has to say what it had started
        if hello.role == "recorder":
            self._recording.attach(link)
        self._go_on(link, hello, arrival, is_going_on=is_going_on)
        joined = all(other.routing_id is not None for other in session.links)
        if session.engine is not None and joined and not session.is_returning:
            self.join(session, now_s)

    def _must_wait(self, hello: Hello) -> bool:
        if self.holds_newcomers and hello.role == "engine":
            is_new = hello.session_id not in self._sessions.by_id and not hello.controller_id
            return self.is_closed or is_new
        return self.is_closed and hello.role != "recorder"

    def _objection_to(self, hello: Hello, line: Line) -> str:
        objection = self._sessions.objection_to(hello, line)
        is_recorder = objection is None and hello.role == "recorder"
        if is_recorder and not self._recording.is_ours(hello.peer.pid):
            return "it is the recorder of a controller that is gone"
        return objection or ""

    def _engines(self) -> list[EngineInfo]:
        """Return who is there, or is expected back."""
        return [
            session.engine
            for session in self._sessions.by_engine.values()
            if session.engine is not None and (session.has_joined or session.is_expected)
        ]

    def _go_on(self, link: Link, hello: Hello, arrival: Arrival, *, is_going_on: bool) -> None:
        if is_going_on:
            link.receiver.retell()
            self.untold[id(link)] = link
            again = link.sender.resend(hello.received)
        else:
            link.receiver.restart(_start_of(link.session.controller_id))
            again = link.sender.restart()
        for frames in again:
            self._router.send(arrival.routing_id, frames)
        self._touch(link)
        logger.info("= %s link of %r", hello.link, link.session)

    def join(self, session: Session, now_s: float) -> None:
        """Tell the core that an engine is there, for the first time or again."""
        self._suspects.pop(session.id, None)
        if session.engine is not None and not session.has_joined:
            session.has_joined = True
            self._tasks.handle(EngineArrived(session.engine), session.id, now_s)
        elif session.engine is not None:
            self._tasks.handle(EngineInTouch(session.id, is_in_touch=True), session.id, now_s)

    # -- going -----------------------------------------------------------------------------

    def begin_turn(self, *, has_breaks: bool) -> None:
        """See which lines broke before this turn, if any, without consequences.

        What came by them before, such as a goodbye, can be received then: take it in first.
        """
        self._broken_fds.clear()
        if has_breaks:
            self._breaking_fds += self._router.broken_fds()

    def part_with_broken_lines(self, now_s: float) -> None:
        """Take in which lines had broken when the turn began."""
        if not self._breaking_fds:
            return
        breaking_fds, self._breaking_fds = self._breaking_fds, []
        for fd in breaking_fds:
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
        if session.has_joined:
            self._tasks.handle(EngineInTouch(session.id, is_in_touch=False), session.id, now_s)
        host = session.peer.host
        grace_s = self.limits.away_grace_s
        cause = f"{host} has been unreachable for {grace_s:g} s: no sign of life from it"
        if verdict is Verdict.DEAD:
            grace_s, cause = SUPERVISOR_GRACE_S if session.is_supervised else 0.0, ENDED
        elif session.role == "client":
            grace_s = self.limits.client_grace_s
        self._suspects.setdefault(session.id, (now_s + grace_s, cause, session))

    def expect(self, session: Session, now_s: float) -> None:
        """Wait for a peer of before the restart for as long as for one whose line broke."""
        cause = "it did not come back after the restart"
        if session.role == "client":
            grace_s = self.limits.client_grace_s
        elif self._judge(session.peer, self._host_id) is Verdict.DEAD:
            grace_s, cause = RETURN_GRACE_S, ENDED
        else:
            grace_s = self.limits.away_grace_s
        self._suspects[session.id] = (now_s + grace_s, cause, session)

    def _give_up(self, session: Session, cause: str, now_s: float) -> None:
        """Do without a peer that may live; one that still has a line is to greet again."""
        routes = [link.routing_id for link in session.links if link.routing_id is not None]
        if session.role == "recorder":
            self._recording.give_up()
        if session.role == "engine":
            self.lose(session, EngineDied(session.id, cause), now_s, may_return=True)
        else:
            self._forget(session, cause, now_s, may_return=session.role != "recorder")
        for routing_id in routes:
            self._router.send(routing_id, [pack(0, 0, [SayHello()])])

    def part(self, session: Session, reason: str, now_s: float) -> None:
        """Take in that a peer said goodbye."""
        if session.role == "engine":
            self.lose(session, EngineDied(session.id, reason), now_s)
        elif session.role != "recorder":
            self._forget(session, reason, now_s)

    def lose(
        self,
        session: Session,
        death: EngineDied,
        now_s: float,
        *,
        may_return: bool = False,
        record: bool = True,
    ) -> None:
        """Take in that an engine is gone; unless that is recorded elsewhere, record it."""
        logger.warning("! lost %r: %s", session, death.cause)
        self._suspects.pop(session.id, None)
        if session.engine is not None:
            if record:
                self._recording.engine_changed(session.engine, death.cause)
            started: list[TaskId] = death.started
            lost = EngineLost(session.id, death.cause, death.started_count, started)
            self._tasks.handle(lost, session.id, now_s)
            self._requests.engine_is_gone(session.engine.engine_id)
        self._sessions.forget(session, death.cause, may_return=may_return)

    def _forget(
        self, session: Session, reason: str, now_s: float, *, may_return: bool = False
    ) -> None:
        logger.info("= %r is gone: %s", session, reason)
        self._suspects.pop(session.id, None)
        self._sessions.forget(session, reason, may_return=may_return)
        if session.role == "client":
            self._recording.delivered(session.bulk, all_of_them=True)
            self._tasks.handle(ClientForgotten(session.id), session.id, now_s)
        if session.role == "supervisor":
            self._stop_waiting_for(session, now_s)

    def _stop_waiting_for(self, supervisor: Session, now_s: float) -> None:
        """Do not wait for what this supervisor would have said of its dead engines."""
        for session_id in supervisor.children:
            child = self._sessions.by_id.get(session_id)
            if child is not None:
                child.is_supervised = False
            suspect = self._suspects.get(session_id)
            if suspect is not None and suspect[1] == ENDED:
                self._suspects[session_id] = (min(suspect[0], now_s), ENDED, suspect[2])

    # -- time ------------------------------------------------------------------------------

    @property
    def suspect_count(self) -> int:
        """How many peers are waited for."""
        return len(self._suspects)

    def deadlines_s(self) -> Sequence[float]:
        """Return when peers are to be given up."""
        return [deadline_s for deadline_s, _, _ in self._suspects.values()]

    def see_to_timers(self, now_s: float) -> None:
        """Give up those for whom it is time."""
        for give_up_s, cause, session in list(self._suspects.values()):
            if give_up_s <= now_s and session.id in self._suspects:
                self._give_up(session, cause, now_s)


def _start_of(controller_id: str) -> int:
    """Return up to where nothing is numbered for this controller; see `Receiver.restart`."""
    return zlib.crc32(controller_id.encode())
