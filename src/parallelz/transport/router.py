"""The controller's end of all connections: one ROUTER socket, and who is on its lines.

Frames of strangers never reach a decoder over TCP: CURVE with a list of allowed keys stands
before it. What libzmq knows of a line (its file descriptor, its key) comes with each frame, and
a monitor tells when a line breaks, within milliseconds when a process died and after the
heartbeat time-out when it froze.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import zmq

from parallelz.errors import ClusterError
from parallelz.protocol.envelope import Frame, WireFrame, piece_count_of
from parallelz.transport.frames import MESSAGE_BYTES_MAX, receive_frames, send_frames
from parallelz.transport.security import ClusterSecrets
from parallelz.transport.sockets import (
    NO_WAIT,
    Waker,
    context,
    has_arrivals,
    read_monitor,
    send_heartbeats,
)

ZAP_DOMAIN = b"parallelz"
HANDSHAKE_TIMEOUT_MS = 10_000
BACKLOG_LENGTH = 1024


class Arrival(NamedTuple):
    """One multipart message."""

    routing_id: bytes  # of the line; a peer that reconnects has another
    first: Frame
    buffers: list[WireFrame]
    frame: zmq.Frame | None = None  # libzmq's, which knows the line; see `line_of`


class Line(NamedTuple):
    """What libzmq knows of where a message came from."""

    fd: int
    role: str  # whose key was used; "" on the host's own socket file, which needs none


class MessageRouter(Protocol):
    """What a controller needs of its connections: a `Router`, or a simulated one."""

    def receive(self, count_max: int) -> Iterable[Arrival]:
        """Yield what has arrived, at most `count_max`, without waiting."""

    def line_of(self, arrival: Arrival) -> Line:
        """Return where a message came from."""

    def send(self, routing_id: bytes, frames: Sequence[WireFrame]) -> bool:
        """Send without waiting; return whether the line still exists."""

    def has_arrivals(self) -> bool:
        """Whether more could be received at once."""

    def broken_fds(self) -> list[int]:
        """Return the lines that broke since the last call, in order."""

    def watch(self, waker: Waker) -> None:
        """Let `poll` also end when this is woken."""

    def poll(self, timeout_s: float) -> bool:
        """Wait until a message, a break or a wake-up has come, at most `timeout_s`.

        Returns
        -------
        bool
            Whether it is, or may be, a break.
        """

    def close(self, linger_s: float) -> None:
        """Close; what was sent gets at most `linger_s` to leave."""


class Router:
    """A bound ROUTER with its monitor and, for TCP, its list of keys.

    Parameters
    ----------
    secrets
        Where to bind, and which keys are let in.

    Raises
    ------
    ClusterError
        An address cannot be bound.
    """

    def __init__(self, secrets: ClusterSecrets) -> None:
        self._roles = {
            info.public_key: role for role, info in secrets.infos.items() if info.public_key
        }
        self.socket = context().socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0  # bounded by credit and by what is kept
        self.socket.router_mandatory = True
        self.socket.maxmsgsize = MESSAGE_BYTES_MAX
        self.socket.backlog = BACKLOG_LENGTH
        send_heartbeats(self.socket, secrets.heartbeat)
        self.socket.handshake_ivl = HANDSHAKE_TIMEOUT_MS
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._authenticator: _KeyList | None = None
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._waker: Waker | None = None
        self._has_arrived = False  # as is known already, and not received yet
        try:
            self._bind(secrets)
        except ClusterError:
            self.close(0)
            raise

    def _bind(self, secrets: ClusterSecrets) -> None:
        for url in secrets.bind_urls:
            if url.startswith("tcp://") and self._authenticator is None:
                # Options hold for what is bound later: socket files before this need no keys.
                self._authenticator = _KeyList(self._roles)
                self.socket.curve_server = True
                self.socket.curve_secretkey = secrets.server_secret_key.encode()
                self.socket.zap_domain = ZAP_DOMAIN
            try:
                self.socket.bind(url)
            except zmq.ZMQError as error:
                why = zmq.strerror(error.errno or 0)
                raise ClusterError(
                    f"cannot listen on {url}: {why}. Is another process there? End it, or"
                    " choose another port (--port)"
                ) from error

    def receive(self, count_max: int) -> Iterable[Arrival]:
        """Yield what has arrived, at most `count_max`, without waiting.

        A piece of a large buffer counts like a message: it takes as long.
        """
        receive = self.socket.recv
        while count_max > 0:
            if not (self._has_arrived or has_arrivals(self.socket)):
                return
            self._has_arrived = False
            routing_id = receive(NO_WAIT)
            frame = receive(NO_WAIT, copy=False)
            first, buffers = receive_frames(self.socket, frame)
            yield Arrival(routing_id, first, buffers, frame)
            count_max -= 1 + piece_count_of(buffers) if buffers else 1

    def line_of(self, arrival: Arrival) -> Line:
        """Return where a message came from."""
        assert arrival.frame is not None
        key = ""
        with contextlib.suppress(zmq.ZMQError):  # lines without keys have no such property
            key = str(arrival.frame.get("User-Id"))
        return Line(int(arrival.frame.get(zmq.SRCFD)), self._roles.get(key, ""))

    def send(self, routing_id: bytes, frames: Sequence[WireFrame]) -> bool:
        """Send without waiting; return whether the line still exists."""
        try:
            send_frames(self.socket, [routing_id, *frames], NO_WAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def has_arrivals(self) -> bool:
        """Whether more could be received at once."""
        self._has_arrived = self._has_arrived or has_arrivals(self.socket)
        return self._has_arrived

    def broken_fds(self) -> list[int]:
        """Return the lines that broke since the last call, in order."""
        return [
            value
            for event, value, _ in read_monitor(self._monitor)
            if event == zmq.EVENT_DISCONNECTED
        ]

    def watch(self, waker: Waker) -> None:
        """Let `poll` also end when this is woken."""
        self._waker = waker
        self._poller.register(waker.fileno(), zmq.POLLIN)

    def poll(self, timeout_s: float) -> bool:
        """Wait until a message, a break or a wake-up has come; see `MessageRouter`."""
        has_news = False
        for source, _ in self._poller.poll(max(0, -int(-timeout_s * 1000 // 1))):
            if source is self.socket:
                self._has_arrived = True
            elif source is self._monitor:
                has_news = True
            elif self._waker is not None:
                self._waker.drain()
        return has_news

    def close(self, linger_s: float) -> None:
        """Close; what was sent gets at most `linger_s` to leave."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(int(linger_s * 1000))
        if self._authenticator is not None:
            self._authenticator.stop()


class _KeyList:
    """Answers libzmq's question whether a key may enter, in a thread of its own."""

    def __init__(self, roles: dict[str, str]) -> None:
        from zmq.auth.thread import ThreadAuthenticator  # brings asyncio: only with TCP

        self._roles = roles
        self._authenticator = ThreadAuthenticator(context())
        self._authenticator.start()
        self._authenticator.configure_curve_callback(
            domain=ZAP_DOMAIN.decode(), credentials_provider=self
        )

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether the holder of `key` (in Z85) may connect."""
        return key.decode() in self._roles

    def stop(self) -> None:
        """End the thread."""
        self._authenticator.stop()
