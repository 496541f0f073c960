"""A peer's connection to the controller.

A `PeerLink` is one DEALER socket below the reliable link (`transport.link`). It greets whenever
libzmq has connected anew, holds back what is to be sent until the controller has answered, and
then sends again what got lost. It is owned by one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import zmq

from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo, Heartbeat
from parallelz.protocol.envelope import Buffer, WireFrame
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    Hello,
    LinkName,
    Message,
    Refused,
    Role,
)
from parallelz.transport.attempts import Attempts
from parallelz.transport.frames import MESSAGE_BYTES_MAX, receive_frames, send_frames
from parallelz.transport.link import LinkEnd
from parallelz.transport.shared_memory import Leases
from parallelz.transport.sockets import (
    NO_WAIT,
    Waker,
    context,
    has_arrivals,
    host_id,
    new_session_id,
    peer_info,
    read_monitor,
    send_heartbeats,
)

__all__ = [
    "Endpoint",
    "PeerLink",
    "PeerPoller",
    "Waker",
    "Watch",
    "endpoint_for",
    "host_id",
    "new_session_id",
    "peer_info",
]

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
KEY_DENIED = 400  # what the ZeroMQ authentication protocol calls a key that is not on the list
RECONNECT_PERIOD_MS = 20
RECONNECT_PERIOD_MAX_MS = 1000
RECEIVE_COUNT_MAX = 256  # envelopes per `receive`, so that nothing else starves


class Endpoint(NamedTuple):
    """Where the controller may be listening, and the keys for it (None: none needed)."""

    urls: Sequence[str]
    heartbeat: Heartbeat = Heartbeat()
    server_key: bytes | None = None
    public_key: bytes | None = None
    secret_key: bytes | None = None


def endpoint_for(info: ConnectionInfo) -> Endpoint:
    """Return the nearest way to the controller: a socket file on its host, else TCP.

    Raises
    ------
    ValueError
        If the controller listens on its own host only, and this is another.
    """
    if info.ipc_url and (info.host_id in ("", host_id())):
        return Endpoint([info.ipc_url], info.heartbeat)
    if not info.tcp_urls:
        raise ValueError(
            f"the controller on {info.host} accepts connections from that host only;"
            f" start it with --ip to let other hosts connect"
        )
    keys = (info.server_key, info.public_key, info.secret_key)
    return Endpoint(info.tcp_urls, info.heartbeat, *(key.encode() for key in keys))


class PeerLink(LinkEnd[M]):
    """One connection of this process to the controller; survives breaks and restarts.

    Parameters
    ----------
    endpoint
        From `endpoint_for`.
    link
        ``"bulk"`` for tasks and results, ``"control"`` for what must pass them.
    session_id, role, token
        Who we are; the token is the connection file's.
    incoming
        The union of messages that the controller may send to this role.
    settle
        Whether what was received counts as dealt with at once. Otherwise the owner calls
        `settle` when it does.
    labels, resources
        What an engine says that it has.
    is_supervised
        Whether a supervisor watches over this engine, and tells the controller how it ended.
    leases
        What it can read in shared memory; None: nothing.

    Attributes
    ----------
    has_arrived, is_quiet
        What a poll has just seen, so that the next `receive` need not look again: whether a
        message is there, and whether there is no news of the connection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        link: LinkName,
        *,
        session_id: SessionId,
        role: Role,
        token: str,
        incoming: object,
        settle: bool = True,
        labels: Sequence[str] = (),
        resources: Mapping[str, float] | None = None,
        is_supervised: bool = False,
        leases: Leases | None = None,
    ) -> None:
        hello = Hello(
            PROTOCOL_VERSION,
            session_id,
            role,
            link,
            token,
            received=0,
            controller_id="",
            peer=peer_info(),
            labels=list(labels),
            resources=dict(resources or {}),
            shares_memory=leases is not None,
            is_supervised=is_supervised,
        )
        super().__init__(hello, incoming, settle=settle)
        if leases is not None:
            self.take_shared = leases.take
        self._has_keys = bool(endpoint.server_key)
        self._attempts = Attempts(endpoint.urls, self._clock())
        self.has_arrived = self.is_quiet = False
        self.socket = self._connect(endpoint)
        self._greet()

    def _connect(self, endpoint: Endpoint) -> zmq.Socket[bytes]:
        dealer = context().socket(zmq.DEALER)
        dealer.linger = 0
        dealer.sndhwm = dealer.rcvhwm = 0  # bounded by what is kept and by the task credit
        dealer.maxmsgsize = MESSAGE_BYTES_MAX
        dealer.reconnect_ivl = RECONNECT_PERIOD_MS
        dealer.reconnect_ivl_max = RECONNECT_PERIOD_MAX_MS
        send_heartbeats(dealer, endpoint.heartbeat)
        if endpoint.server_key:
            dealer.curve_serverkey = endpoint.server_key
            dealer.curve_publickey = endpoint.public_key
            dealer.curve_secretkey = endpoint.secret_key
        self._monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CLOSED
            | HANDSHAKE_FAILED
        )
        dealer.connect(self._attempts.url)
        return dealer

    def _send(self, frames: Sequence[WireFrame]) -> None:
        send_frames(self.socket, frames)

    # -- receiving -------------------------------------------------------------------------

    def receive(self) -> list[tuple[M, Sequence[Buffer]]]:
        """Take in what has arrived, without waiting.

        Greetings, acknowledgements and repetitions are dealt with here; `Welcome` and
        `Refused` are returned as well, and so is one of our own if the other side does not
        know the keys. What does not decode is dropped with a log line.
        """
        items: list[tuple[M, Sequence[Buffer]]] = []
        if not self.is_quiet:
            self._watch_connection(items)
        self.is_quiet = False
        for _ in range(RECEIVE_COUNT_MAX):
            if not (self.has_arrived or has_arrivals(self.socket)):
                break
            self.has_arrived = False
            frame = self.socket.recv(NO_WAIT, copy=False)
            first, buffers = receive_frames(self.socket, frame)
            self._take_in(first, buffers, items)
        self._took_all()
        return items

    def _watch_connection(self, items: list[tuple[M, Sequence[Buffer]]]) -> None:
        attempts = self._attempts
        for event, value, url in read_monitor(self._monitor):
            if attempts.is_of_another(url):
                continue
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                attempts.succeeded()
                self._connected()
            elif event == zmq.EVENT_DISCONNECTED:
                self._disconnected()
            elif event & HANDSHAKE_FAILED:
                if not self._has_keys:
                    continue  # a tunnel says so while there is no controller behind it
                is_denied = (event, value) == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, KEY_DENIED)
                refusal = attempts.failed_handshake(self._clock(), is_denied=is_denied)
                if refusal:
                    self._take_refusal(refusal, items)
            elif attempts.is_closed_for_good():
                self._try_next()

    def _take_refusal(self, reason: str, items: list[tuple[M, Sequence[Buffer]]]) -> None:
        refused = Refused(reason)
        self._take_greeting(refused)
        # Somebody who was let in waits for the controller that it knows to come back.
        if not self.controller_id:
            items.append((cast(M, refused), ()))

    def _try_next(self) -> None:
        before = self._attempts.url
        self.socket.disconnect(before)
        self.socket.connect(self._attempts.next(self._clock()))
        logger.info("= no answer at %s, tries %s", before, self._attempts.url)
        self._greet()

    def tick(self, now_s: float) -> float:
        """Do what is due by the clock; return when to be called again."""
        if self._attempts.is_over(now_s):
            self._try_next()
        return min(super().tick(now_s), self._attempts.over_s)

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """What to poll for reading."""
        return self.socket, self._monitor

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what was flushed gets at most `linger_s` to leave."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(int(linger_s * 1000))


class Watch(NamedTuple):
    """A file descriptor to be polled, such as a pipe that ends with its other end."""

    fd: int

    def fileno(self) -> int:
        """Return what to poll."""
        return self.fd


class PeerPoller:
    """Waits until any of several links, wakers and descriptors has something."""

    def __init__(self, *sources: PeerLink[Any] | Waker | Watch) -> None:
        self._poller = zmq.Poller()
        self._links: list[PeerLink[Any]] = []
        self._by_socket: dict[object, PeerLink[Any]] = {}
        self._by_monitor: dict[object, PeerLink[Any]] = {}
        self._by_fd: dict[object, Waker | Watch] = {}
        for source in sources:
            if isinstance(source, PeerLink):
                socket, monitor = source.sockets
                self._links.append(source)
                self._by_socket[socket] = source
                self._by_monitor[monitor] = source
            else:
                self._by_fd[source.fileno()] = source
        for pollable in (*self._by_socket, *self._by_monitor, *self._by_fd):
            self._poller.register(pollable, zmq.POLLIN)

    def poll(self, timeout_s: float | None) -> set[object]:
        """Return the ready ones; an empty set after `timeout_s` (None: never)."""
        timeout_ms = None if timeout_s is None else max(0, -int(-timeout_s * 1000 // 1))
        seen = self._poller.poll(timeout_ms)
        for link in self._links:
            link.has_arrived, link.is_quiet = False, True
        ready: set[object] = set()
        for pollable, _ in seen:
            if pollable in self._by_socket:
                link = self._by_socket[pollable]
                link.has_arrived = True
                ready.add(link)
            elif pollable in self._by_monitor:
                link = self._by_monitor[pollable]
                link.is_quiet = False
                ready.add(link)
            else:
                ready.add(self._by_fd[pollable])
        return ready
