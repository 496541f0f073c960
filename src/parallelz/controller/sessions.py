"""Who is connected, by which lines, and what was said on them.

A session is one life of a peer process. It has up to two links (bulk and control), which
outlive the lines (connections of libzmq) that carry them.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from parallelz.ids import EngineId, SessionId
from parallelz.protocol.envelope import Buffer, Receiver, Sender
from parallelz.protocol.functions import KnownDefinitions, SentDefinitions
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    EngineInfo,
    Hello,
    LinkName,
    Message,
    PeerInfo,
    Role,
)
from parallelz.transport.router import Line
from parallelz.transport.security import ClusterSecrets

GIVEN_UP_COUNT_MAX = 10_000
GIVEN_UP = "it was given up ({}); start afresh"


class Definition(NamedTuple):
    """A function as it is passed on."""

    name: str
    data: bytes
    buffers: Sequence[Buffer]


class Link:
    """The controller's end of one link of a session."""

    __slots__ = ("fd", "name", "receiver", "routing_id", "sender", "session")

    def __init__(self, session: Session, name: LinkName) -> None:
        self.session = session
        self.name = name
        self.sender = Sender()
        self.receiver = Receiver()
        self.routing_id: bytes | None = None  # None: the line is broken
        self.fd = -1

    def put(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Add to the next envelope."""
        self.sender.put(message, buffers)


class Session:
    """One life of a peer process."""

    def __init__(self, session_id: SessionId, role: Role, peer: PeerInfo) -> None:
        self.id = session_id
        self.role = role
        self.peer = peer
        self.bulk = Link(self, "bulk")
        self.control = Link(self, "control")
        self.engine: EngineInfo | None = None
        self.has_joined = False  # an engine that said hello on both links
        self.children: list[SessionId] = []  # of a supervisor
        self.known: KnownDefinitions[Definition] = KnownDefinitions()  # a client told us
        self.sent = SentDefinitions()  # we told an engine

    @property
    def links(self) -> tuple[Link, Link]:
        """Both links."""
        return self.bulk, self.control

    def __repr__(self) -> str:
        return f"<{self.role} {self.id} (pid {self.peer.pid} on {self.peer.host})>"


class Sessions:
    """All sessions, and which line belongs to which link."""

    def __init__(self, secrets: ClusterSecrets) -> None:
        self._secrets = secrets
        self.by_id: dict[SessionId, Session] = {}
        self.by_engine: dict[EngineId, Session] = {}
        self.routes: dict[bytes, Link] = {}
        self._by_fd: dict[int, Link] = {}
        self._given_up: OrderedDict[SessionId, str] = OrderedDict()
        self._next_engine_id = 0

    def objection_to(self, hello: Hello, line: Line) -> str | None:
        """Return why this peer may not join; None: it may."""
        if hello.version != PROTOCOL_VERSION:
            return (
                f"it speaks version {hello.version} of the protocol, the controller speaks"
                f" {PROTOCOL_VERSION}: install the same version of parallelz everywhere"
            )
        key_role = "engine" if hello.role == "supervisor" else hello.role
        token = self._secrets.infos[key_role].token
        if not hmac.compare_digest(token.encode(), hello.token.encode()):
            return "its token is not this cluster's: its connection file is of another cluster"
        if line.role and line.role != key_role:
            return f"it used the key of another role ({line.role})"
        known = self.by_id.get(hello.session_id)
        if known is not None and known.role != hello.role:
            return f"its session is that of a {known.role}"
        if hello.session_id in self._given_up:
            return GIVEN_UP.format(self._given_up[hello.session_id])
        return None

    def link_of(self, hello: Hello) -> Link:
        """Return which link of which session, a new one or a known one, a peer greets on."""
        session = self.by_id.get(hello.session_id)
        if session is None:
            session = Session(hello.session_id, hello.role, hello.peer)
            self.by_id[session.id] = session
            if session.role == "engine":
                engine_id = EngineId(self._next_engine_id)
                self._next_engine_id += 1
                session.engine = EngineInfo(
                    engine_id, session.id, hello.peer, hello.labels, hello.resources
                )
                self.by_engine[engine_id] = session
        return session.bulk if hello.link == "bulk" else session.control

    def attach(self, link: Link, routing_id: bytes, fd: int) -> None:
        """Let this line carry the link from now on."""
        self._cut(link)
        link.routing_id, link.fd = routing_id, fd
        self.routes[routing_id] = link
        self._by_fd[fd] = link

    def broken(self, fd: int) -> Link | None:
        """Take in that a line broke; return the link that lost it."""
        link = self._by_fd.get(fd)
        if link is not None:
            self._cut(link)
        return link

    def forget(self, session: Session, reason: str) -> None:
        """Drop a session for good; it is refused if it comes back."""
        for link in session.links:
            self._cut(link)
        self.by_id.pop(session.id, None)
        if session.engine is not None:
            self.by_engine.pop(session.engine.engine_id, None)
        self._given_up[session.id] = reason
        if len(self._given_up) > GIVEN_UP_COUNT_MAX:
            self._given_up.popitem(last=False)

    def _cut(self, link: Link) -> None:
        if link.routing_id is not None:
            self.routes.pop(link.routing_id, None)
            self._by_fd.pop(link.fd, None)
            link.routing_id, link.fd = None, -1

    def supervisor_of(self, engine: Session) -> Session | None:
        """Return whose child an engine is, if that is here."""
        for session in self.of_role("supervisor"):
            if engine.id in session.children:
                return session
        return None

    def of_role(self, role: Role) -> list[Session]:
        """Return the sessions of a role, in the order in which they joined."""
        return [session for session in self.by_id.values() if session.role == role]
