"""Who is connected, by which lines, and what was said on them.

A session is one life of a peer process. It has up to two links (bulk and control), which
outlive the lines (connections of libzmq) that carry them.

A peer that was given up and is there again begins a new session with its old id. It is told
another id of the controller than before, and so does what it does after a restart of that.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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

PAST_COUNT_MAX = 10_000
DEPARTED = "it has ended ({}); start afresh"


UNKNOWN_PEER = PeerInfo("?", "", 0)


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
    """One life of a peer process.

    Attributes
    ----------
    is_returning
        It was here before, under another controller or in a session of before, and has not
        said yet what it brings along. Until then what it says is put into `backlog`.
    """

    def __init__(
        self, session_id: SessionId, role: Role, peer: PeerInfo, controller_id: str
    ) -> None:
        self.id = session_id
        self.controller_id = controller_id  # what the controller is called to it
        self.role = role
        self.peer = peer
        self.bulk = Link(self, "bulk")
        self.control = Link(self, "control")
        self.engine: EngineInfo | None = None
        self.has_joined = False  # an engine that is there for the core
        self.is_expected = False  # one that the core waits for
        self.is_returning = False
        self.is_introduced = False  # an engine that has said what it brings along
        self.is_supervised = False  # an engine whose supervisor is here, or comes
        self.backlog: list[tuple[Link, int, Message | None, Sequence[Buffer]]] = []
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

    def __init__(self, secrets: ClusterSecrets, controller_id: str) -> None:
        self._secrets = secrets
        self._controller_id = controller_id
        self.by_id: dict[SessionId, Session] = {}
        self.by_engine: dict[EngineId, Session] = {}
        self.routes: dict[bytes, Link] = {}
        self._by_fd: dict[int, Link] = {}
        self._departed: OrderedDict[SessionId, str] = OrderedDict()
        self._lives: OrderedDict[SessionId, int] = OrderedDict()  # that were given up
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
            for role, info in self._secrets.infos.items():
                if hmac.compare_digest(info.token.encode(), hello.token.encode()):
                    return f"its token is for {role}s: it needs the connection file of its role"
            return (
                "its token is not this cluster's: its connection file is of another cluster, or"
                " of an earlier start of this one; copy the file again"
            )
        if line.role and line.role != key_role:
            return f"it used the key of another role ({line.role})"
        known = self.by_id.get(hello.session_id)
        if known is not None and known.role != hello.role:
            return f"its session is that of a {known.role}"
        if hello.session_id in self._departed:
            return DEPARTED.format(self._departed[hello.session_id])
        return None

    def link_of(self, hello: Hello) -> Link:
        """Return which link of which session, a new one or a known one, a peer greets on."""
        session = self.by_id.get(hello.session_id)
        if session is None:
            session = self._new(hello.session_id, hello.role, hello.peer)
            session.is_returning = bool(hello.controller_id) and hello.role in (
                "client",
                "engine",
            )
            if session.role == "engine":
                self._name_engine(session, hello)
        if session.role == "engine" and not (session.has_joined or session.is_introduced):
            # One link may never have been let in where the other was: it tells what it had.
            is_other = hello.controller_id not in ("", session.controller_id)
            session.is_returning = session.is_returning or is_other
        session.peer = hello.peer
        session.is_supervised = hello.is_supervised
        for link in session.links:
            link.sender.shares_memory = hello.shares_memory
        return session.bulk if hello.link == "bulk" else session.control

    def _new(self, session_id: SessionId, role: Role, peer: PeerInfo) -> Session:
        lives = self._lives.get(session_id)
        controller_id = (
            self._controller_id if lives is None else f"{self._controller_id}/{lives}"
        )
        session = Session(session_id, role, peer, controller_id)
        self.by_id[session_id] = session
        return session

    def _name_engine(self, session: Session, hello: Hello) -> None:
        engine_id = hello.engine_id
        if engine_id < 0 or engine_id in self.by_engine:
            engine_id = EngineId(self._next_engine_id)
        self._next_engine_id = max(self._next_engine_id, engine_id + 1)
        session.engine = EngineInfo(
            engine_id, session.id, hello.peer, hello.labels, hello.resources
        )
        self.by_engine[engine_id] = session

    def expect_engine(self, engine: EngineInfo) -> Session:
        """Keep the place of an engine that was there before the controller was restarted."""
        session = self._new(engine.session_id, "engine", engine.peer)
        session.engine = engine
        session.is_returning = session.is_expected = True
        self.by_engine[engine.engine_id] = session
        return session

    def expect_client(self, session_id: SessionId) -> Session:
        """Keep what is for a client that was there before the controller was restarted."""
        session = self._new(session_id, "client", UNKNOWN_PEER)
        session.is_returning = True
        return session

    def skip_engine_ids(self, count: int) -> None:
        """Give no new engine an id below this."""
        self._next_engine_id = max(self._next_engine_id, count)

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

    def forget(self, session: Session, reason: str, *, may_return: bool) -> None:
        """Drop a session; unless it may return, its peer is refused if it comes back."""
        for link in session.links:
            self._cut(link)
        self.by_id.pop(session.id, None)
        if session.engine is not None:
            self.by_engine.pop(session.engine.engine_id, None)
        if may_return:
            self._lives[session.id] = self._lives.pop(session.id, 0) + 1
        else:
            self._departed[session.id] = reason
        for past in (self._lives, self._departed):
            if len(past) > PAST_COUNT_MAX:
                past.popitem(last=False)

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

    def engine_ids(self, session_ids: Iterable[SessionId]) -> list[EngineId]:
        """Return the ids of those of these sessions that are engines."""
        found = (self.by_id.get(session_id) for session_id in session_ids)
        return [each.engine.engine_id for each in found if each and each.engine is not None]

    def of_role(self, role: Role) -> list[Session]:
        """Return the sessions of a role, in the order in which they joined."""
        return [session for session in self.by_id.values() if session.role == role]
