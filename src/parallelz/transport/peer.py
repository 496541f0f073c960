"""A peer's connection to the controller.

A `PeerLink` is one DEALER socket and the reliable link on top of it (`protocol.envelope`). It
greets whenever libzmq has connected anew, holds back what is to be sent until the controller
has answered, and then sends again what got lost. It is owned by one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import zmq

from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.envelope import Buffer, Envelope, Receiver, Sender, pack
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    Hello,
    LinkName,
    Message,
    Refused,
    Role,
    SayHello,
    Welcome,
)
from parallelz.transport.sockets import (
    HEARTBEAT_PERIOD_MS,
    HEARTBEAT_TIMEOUT_MS,
    Waker,
    context,
    host_id,
    new_session_id,
    peer_info,
    read_monitor,
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

RECONNECT_PERIOD_MS = 20
RECONNECT_PERIOD_MAX_MS = 1000
GREETING_PERIOD_S = 2.0  # a greeting that has no answer by then is repeated
TELL_PERIOD_S = 0.1  # acknowledgements that found nothing to ride on wait at most so long
UNTOLD_COUNT_MAX = 32
RECEIVE_COUNT_MAX = 256  # envelopes per `receive`, so that nothing else starves


class Endpoint(NamedTuple):
    """Where the controller listens, and the keys for it (None: none needed)."""

    url: str
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
        return Endpoint(info.ipc_url)
    if not info.tcp_urls:
        raise ValueError(
            f"the controller on {info.host} accepts connections from that host only;"
            f" start it with --ip to let other hosts connect"
        )
    keys = (info.server_key, info.public_key, info.secret_key)
    return Endpoint(info.tcp_urls[0], *(key.encode() for key in keys))


class PeerLink(Generic[M]):
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
    ) -> None:
        self.link = link
        self.welcome: Welcome | None = None
        self._hello = Hello(
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
        )
        self._settles = settle
        self._controller_id = ""
        self._sender = Sender()
        self._receiver = Receiver()
        self._decode: Callable[[Buffer], Envelope[M]] = msgspec.msgpack.Decoder(
            Envelope[incoming]  # type: ignore[valid-type]
        ).decode
        self.socket = self._connect(endpoint)
        self._connections_count = 0
        self._greeted_s = 0.0
        self._tell_by_s = 0.0
        self._greet()

    def _connect(self, endpoint: Endpoint) -> zmq.Socket[bytes]:
        dealer = context().socket(zmq.DEALER)
        dealer.linger = 0
        dealer.sndhwm = dealer.rcvhwm = 0  # bounded by what is kept and by the task credit
        dealer.reconnect_ivl = RECONNECT_PERIOD_MS
        dealer.reconnect_ivl_max = RECONNECT_PERIOD_MAX_MS
        dealer.heartbeat_ivl = HEARTBEAT_PERIOD_MS
        dealer.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        if endpoint.server_key:
            dealer.curve_serverkey = endpoint.server_key
            dealer.curve_publickey = endpoint.public_key
            dealer.curve_secretkey = endpoint.secret_key
        self._monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        dealer.connect(endpoint.url)
        return dealer

    # -- sending ---------------------------------------------------------------------------

    def put(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Add to the next envelope; no I/O."""
        self._sender.put(message, buffers)

    def flush(self) -> None:
        """Send all that was put as one envelope; it waits until the controller has answered."""
        if self.welcome is not None and self._sender.waiting:
            self._send(self._sender.take(self._receiver.tell()))

    @property
    def kept_bytes(self) -> int:
        """Size of what was sent and is not acknowledged."""
        return self._sender.kept_bytes

    @property
    def kept_count(self) -> int:
        """How many envelopes were sent and are not acknowledged."""
        return self._sender.kept_count

    def _send(self, frames: Sequence[Buffer]) -> None:
        self.socket.send_multipart(frames, copy=False)

    def _greet(self) -> None:
        self.welcome = None
        self._greeted_s = time.monotonic()
        hello = msgspec.structs.replace(
            self._hello,
            received=self._receiver.received,
            controller_id=self._controller_id,
        )
        self._send([pack(0, 0, [hello])])

    # -- receiving -------------------------------------------------------------------------

    def receive(self) -> list[tuple[M, Sequence[Buffer]]]:
        """Take in what has arrived, without waiting.

        Greetings, acknowledgements and repetitions are dealt with here; `Welcome` and
        `Refused` are returned as well. What does not decode is dropped with a log line.
        """
        self._watch_connection()
        items: list[tuple[M, Sequence[Buffer]]] = []
        for _ in range(RECEIVE_COUNT_MAX):
            # Asking costs less than the exception of a receive in vain.
            if not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                break
            frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            buffers: list[Buffer] = []
            while frame.more if not buffers else self.socket.rcvmore:
                buffers.append(self.socket.recv(zmq.NOBLOCK, copy=False).buffer)
            self._take_in(frame.buffer, buffers, items)
        if self._receiver.untold_count >= UNTOLD_COUNT_MAX:
            self._tell()
        return items

    def _take_in(
        self, first: Buffer, buffers: list[Buffer], items: list[tuple[M, Sequence[Buffer]]]
    ) -> None:
        try:
            envelope = self._decode(first)
        except msgspec.MsgspecError as error:
            logger.warning("dropped a message from the controller: %s", error)
            return
        receiver = self._receiver
        if not receiver.accept(envelope.number):
            if envelope.number > receiver.received:
                self._greet()  # something is missing between; the controller will resend it
            return
        self._sender.acknowledge(envelope.acknowledged)
        if envelope.number and self._settles:
            receiver.settle()
        if not buffers:
            for message in envelope.messages:
                items.append((message, ()))
                if envelope.number == 0:
                    self._take_greeting(message)
            return
        start = 0
        for message in envelope.messages:
            end = start + getattr(message, "frame_count", 0)
            items.append((message, buffers[start:end]))
            start = end

    def _take_greeting(self, message: Message) -> None:
        match message:
            case Welcome():
                self._take_welcome(message)
            case SayHello():
                self._greet()
            case Refused():
                logger.error(
                    "the controller refused the %s link: %s", self.link, message.reason
                )
            case _:
                pass

    def _take_welcome(self, welcome: Welcome) -> None:
        if self.welcome is not None:
            return  # the answer to a greeting that was repeated
        self.welcome = welcome
        if welcome.controller_id == self._controller_id:
            again = self._sender.resend(welcome.received)
        else:
            self._receiver.restart()
            again = self._sender.restart()
            self._controller_id = welcome.controller_id
        for frames in again:
            self._send(frames)

    def settle(self, number: int | None = None) -> None:
        """Take responsibility for what was received (up to an envelope's number)."""
        self._receiver.settle(number)

    def tick(self, now_s: float) -> float:
        """Do what is due by the clock; return when to be called again (`time.monotonic`)."""
        if self.welcome is None:
            if now_s - self._greeted_s >= GREETING_PERIOD_S:
                self._greet()
            return self._greeted_s + GREETING_PERIOD_S
        if not self._receiver.untold_count:
            self._tell_by_s = 0.0
            return now_s + 3600.0
        if not self._tell_by_s:
            self._tell_by_s = now_s + TELL_PERIOD_S
        elif now_s >= self._tell_by_s:
            self._tell()
            return now_s + 3600.0
        return self._tell_by_s

    def _tell(self) -> None:
        self._tell_by_s = 0.0
        if self.welcome is not None:
            self._send([pack(0, self._receiver.tell(), [])])

    def _watch_connection(self) -> None:
        for event, _ in read_monitor(self._monitor):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connections_count += 1
                if self._connections_count > 1:
                    self._greet()
            else:
                self.welcome = None

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
        self._owners: dict[object, object] = {}
        for source in sources:
            pollables: tuple[Any, ...] = (
                source.sockets if isinstance(source, PeerLink) else (source.fileno(),)
            )
            for pollable in pollables:
                self._poller.register(pollable, zmq.POLLIN)
                self._owners[pollable] = source

    def poll(self, timeout_s: float | None) -> set[object]:
        """Return the ready ones; an empty set after `timeout_s` (None: never)."""
        timeout_ms = None if timeout_s is None else max(0, -int(-timeout_s * 1000 // 1))
        return {self._owners[pollable] for pollable, _ in self._poller.poll(timeout_ms)}
