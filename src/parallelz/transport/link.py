"""A peer's end of a link, without the connection below it.

`LinkEnd` decides when to greet, what to hold back until the controller has answered, and what
to send again after a break. `transport.peer.PeerLink` puts it on a socket of libzmq,
`testing.network` on a simulated one: both run the same code.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from parallelz.ids import EngineId
from parallelz.protocol.envelope import (
    Buffer,
    Envelope,
    Frame,
    Item,
    Receiver,
    Sender,
    WireFrame,
    pack,
    with_shared,
)
from parallelz.protocol.messages import Hello, Message, Refused, SayHello, Welcome
from parallelz.protocol.shared import Gone, SharedBuffer, SharedRef

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

GREETING_PERIOD_S = 2.0  # a greeting that has no answer by then is repeated
TELL_PERIOD_S = 0.1  # acknowledgements that found nothing to ride on wait at most so long
UNTOLD_COUNT_MAX = 32


class LinkEnd(ABC, Generic[M]):
    """Greets, numbers, keeps and resends. Owned by one thread at a time.

    Parameters
    ----------
    hello
        What to say first; which envelope came last is filled in.
    incoming
        The union of messages that the controller may send to this role.
    settle
        Whether what was received counts as dealt with at once. Otherwise the owner calls
        `settle` when it does.
    clock
        Seconds from any origin, never less than before.

    Attributes
    ----------
    controller_id
        Of the last controller that let us in.
    introduction
        Asked, with the number of envelopes that are sent again, for what a controller that
        knows nothing of us must be told before those. Nothing, unless the owner sets it.
    is_repeated
        Whether such a controller is sent again what the one before did not acknowledge.
    take_shared
        Called for each buffer that came by shared memory.
    """

    def __init__(
        self,
        hello: Hello,
        incoming: object,
        *,
        settle: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link = hello.link
        self.welcome: Welcome | None = None
        self._hello = hello
        self._settles = settle
        self._clock = clock
        self.controller_id = ""
        self.is_repeated = True
        self.introduction: Callable[[int], Sequence[Item]] = lambda count: ()
        self._engine_id = EngineId(-1)
        self.take_shared: Callable[[SharedRef], Buffer] = _not_taken
        self._sender = Sender(shares_memory=True)  # what its owner has put there
        self._receiver = Receiver()
        self._decode: Callable[[Frame], Envelope[M]] = msgspec.msgpack.Decoder(
            Envelope[incoming]  # type: ignore[valid-type]
        ).decode
        self._bytes_max = math.inf  # to be unacknowledged, as the controller says
        self._connections_count = 0
        self._is_greeting = True  # said hello, or is about to, and has no answer yet
        self._greeted_s = 0.0
        self._tell_by_s = 0.0

    @abstractmethod
    def _send(self, frames: Sequence[WireFrame]) -> None:
        """Hand frames to the connection, which sends them now or when it is there again."""

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

    @property
    def has_room(self) -> bool:
        """Whether the controller wants more, though it has not acknowledged what it has.

        Whoever puts something asks before; greetings and goodbyes need no room.
        """
        return self._sender.kept_bytes < self._bytes_max

    @property
    def put_count(self) -> int:
        """How many envelopes there have been with the one that has what was put last."""
        return self._sender.taken_count + bool(self._sender.waiting)

    @property
    def acknowledged_count(self) -> int:
        """How many of these the controller has taken over."""
        return self._sender.acknowledged_count

    def _greet(self) -> None:
        self.welcome = None
        self._is_greeting = True
        self._greeted_s = self._clock()
        hello = msgspec.structs.replace(
            self._hello,
            received=self._receiver.received,
            controller_id=self.controller_id,
            engine_id=self._engine_id,
        )
        self._send([pack(0, 0, [hello])])

    # -- receiving -------------------------------------------------------------------------

    def _take_in(
        self,
        first: Frame,
        frames: Sequence[WireFrame],
        items: list[tuple[M, Sequence[Buffer]]],
    ) -> None:
        try:
            envelope = self._decode(first)
            shared = envelope.shared
            buffers = with_shared(frames, shared, self.take_shared) if shared else frames
        except msgspec.MsgspecError as error:
            logger.warning("dropped a message from the controller: %s", error)
            return
        if not self._accepts(envelope.number):
            return
        self._sender.acknowledge(envelope.acknowledged)
        if envelope.number and self._settles:
            self._receiver.settle()
        if envelope.shared:
            self._tell_by_s = -math.inf  # its owner waits to write there again
        if not buffers:
            items += [(message, ()) for message in envelope.messages]
            if not envelope.number:
                for message in envelope.messages:
                    self._take_greeting(message)
            return
        start = 0
        for message in envelope.messages:
            end = start + getattr(message, "frame_count", 0)
            items.append((message, buffers[start:end]))
            start = end

    def _accepts(self, number: int) -> bool:
        """Whether the envelope of this number is the next; if one is missing, greet anew."""
        if number and self._is_greeting:
            return False  # whose number is it? It comes again behind the answer
        if self._receiver.accept(number):
            return True
        if number > self._receiver.received:
            self._greet()
        return False

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
        self._is_greeting = False
        self._engine_id = welcome.engine_id
        self._bytes_max = welcome.bytes_max
        if welcome.controller_id == self.controller_id:
            self._receiver.retell()
            again = self._sender.resend(welcome.received)
        else:
            is_first = not self.controller_id
            self.controller_id = welcome.controller_id
            self._receiver.restart()
            if not self.is_repeated:
                self._sender.forget()
            # Also the first: another link may have been let in by one before.
            is_needed = self.is_repeated or not is_first
            first = self.introduction(self._sender.kept_count) if is_needed else ()
            again = self._sender.restart(first, welcome.received)
        for frames in again:
            self._send(frames)

    def _took_all(self) -> None:
        """See to it that many acknowledgements do not wait for the clock."""
        if self._receiver.untold_count >= UNTOLD_COUNT_MAX:
            self._tell()

    def settle(self, number: int | None = None) -> None:
        """Take responsibility for what was received (up to an envelope's number)."""
        self._receiver.settle(number)

    # -- time and the connection -----------------------------------------------------------

    def tick(self, now_s: float) -> float:
        """Do what is due by the clock; return when to be called again."""
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

    def _connected(self) -> None:
        """Take in that there is a new connection; the first was greeted before it was there."""
        self._connections_count += 1
        if self._connections_count > 1:
            self._greet()

    def _disconnected(self) -> None:
        """Take in that the connection broke; what it brought before may be unread still."""
        self.welcome = None


def _not_taken(ref: SharedRef) -> Buffer:
    return SharedBuffer(ref, Gone("this process does not share memory with the cluster"))
