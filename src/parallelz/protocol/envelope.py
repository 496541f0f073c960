"""A batch of messages <-> frames, and what makes a link between two processes reliable.

One envelope carries as many messages as were waiting. Its first frame is msgpack; the frames
after it are the large buffers of its messages, in order. Buffers that lie in memory which both
sides share are not among the frames: the envelope says which they are, and where they lie.

Theory of operation
-------------------
A *link* is one direction-pair between two processes that outlives its connections. Envelopes
that matter are numbered from 1 and kept by the `Sender` until they are acknowledged; the
`Receiver` takes each number once and in order. After a break both sides say which number they
received last (`Hello`, `Welcome`), and the rest is sent again. *Received* and *acknowledged*
are two things: the controller acknowledges a submission only when the recorder has it, so that
what the recorder lacks is still held by somebody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from parallelz.errors import SerializationError
from parallelz.protocol.messages import Message
from parallelz.protocol.shared import (
    Buffer,
    Frame,
    Pieces,
    SharedBuffer,
    SharedRef,
    WireFrame,
    size_of,
    view_of,
)
from parallelz.protocol.texts import plain, sendable_text

__all__ = [
    "Buffer",
    "Envelope",
    "Frame",
    "Item",
    "Receiver",
    "Sender",
    "WireFrame",
    "check_counts",
    "decode_raw",
    "pack",
    "piece_count_of",
    "with_shared",
]

Item = tuple[Message, Sequence[Buffer]]
M = TypeVar("M", bound=Message)


class Envelope(msgspec.Struct, Generic[M], frozen=True, array_like=True):
    """The first frame."""

    number: int  # from 1 up; 0: not numbered, not resent (greetings, acknowledgements)
    acknowledged: int  # the other direction's envelopes up to this one need not be kept
    messages: list[M]
    shared: list[tuple[int, SharedRef]] = []  # buffers that are not frames, and their places


class RawEnvelope(msgspec.Struct, frozen=True, array_like=True):
    """The first frame, with its messages unread."""

    number: int
    acknowledged: int
    messages: msgspec.Raw
    shared: msgspec.Raw = msgspec.Raw(b"\x90")


# A message that cannot be encoded would hold up all behind it, so what nearly can be is.
_encoder = msgspec.msgpack.Encoder(enc_hook=plain)
_BINARY = (bytes, bytearray, memoryview)
decode_raw = msgspec.msgpack.Decoder(RawEnvelope).decode


def pack(
    number: int,
    acknowledged: int,
    messages: Sequence[Message],
    shared: Sequence[tuple[int, SharedRef]] = (),
) -> bytes:
    """Return the first frame of an envelope."""
    whole = (
        (number, acknowledged, messages, shared) if shared else (number, acknowledged, messages)
    )
    try:
        return _encoder.encode(whole)
    except UnicodeEncodeError:
        built = msgspec.to_builtins(whole, builtin_types=_BINARY, enc_hook=plain)
        return _encoder.encode(_sendable(built))


def _sendable(part: object) -> object:
    """Return the same without lone surrogates, which file names may bring into any text."""
    match part:
        case str():
            return sendable_text(part)
        case list() | tuple():
            return [_sendable(each) for each in part]
        case dict():
            return {_sendable(key): _sendable(value) for key, value in part.items()}
        case _:
            return part


def with_shared(
    frames: Sequence[WireFrame],
    shared: Sequence[tuple[int, SharedRef]],
    take: Callable[[SharedRef], Buffer],
) -> Sequence[Buffer]:
    """Return all buffers of an envelope in order: its frames, and what lies in shared memory.

    Raises
    ------
    msgspec.ValidationError
        If the places are not places among so many.
    """
    if not shared:
        return frames
    count = len(frames) + len(shared)
    refs = dict(shared)
    if len(refs) < len(shared) or not all(0 <= place < count for place in refs):
        raise msgspec.ValidationError("the places of shared buffers are impossible")
    rest = iter(frames)
    return [take(refs[place]) if place in refs else next(rest) for place in range(count)]


def check_counts(messages: Sequence[Message], count: int) -> None:
    """Raise `msgspec.ValidationError` unless so many frames belong to these messages."""
    announced = 0
    for message in messages:
        frame_count = getattr(message, "frame_count", 0)
        if frame_count:
            if frame_count < 0:
                raise msgspec.ValidationError(f"{frame_count} frames were announced")
            announced += frame_count
    if announced != count:
        raise msgspec.ValidationError(f"{count} frames came where {announced} were announced")


def piece_count_of(buffers: Sequence[Buffer]) -> int:
    """Return in how many pieces those lie that lie in pieces."""
    return sum(len(each.pieces) for each in buffers if isinstance(each, Pieces))


# Number, count, size, frames, and what must stay in shared memory.
_Kept = tuple[int, int, int, list[WireFrame], Sequence[SharedBuffer]]


class Sender:
    """One direction of a link, where it starts: numbers, keeps and resends.

    `put` collects; `take` makes the next envelope of all that was collected.

    Attributes
    ----------
    taken_count, acknowledged_count
        How many envelopes were ever made, and of which the other side has relieved us: unlike
        their numbers these go on when another process comes to be the other side.
    shares_memory
        Whether the other side can read what lies in shared memory; else it becomes frames.
    """

    def __init__(self, *, shares_memory: bool = False) -> None:
        self.waiting: list[Message] = []
        self.shares_memory = shares_memory
        self._buffers: list[Buffer] = []
        self._number = 0
        self._kept: deque[_Kept] = deque()
        self.kept_bytes = 0
        self.taken_count = 0
        self.acknowledged_count = 0

    def put(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Add a message, with exactly `message.frame_count` buffers, to the next envelope."""
        self.waiting.append(message)
        if buffers:
            self._buffers.extend(buffers)

    @property
    def waiting_piece_count(self) -> int:
        """How many pieces of large buffers are in the next envelope."""
        return piece_count_of(self._buffers) if self._buffers else 0

    def take(self, acknowledged: int) -> list[WireFrame]:
        """Return the frames of the next envelope; it is kept until acknowledged."""
        messages, self.waiting = self.waiting, []
        buffers, self._buffers = self._buffers, []
        self._number += 1
        self.taken_count += 1
        return self._make(self.taken_count, acknowledged, messages, buffers)

    def _make(
        self,
        count: int,
        acknowledged: int,
        messages: Sequence[Message],
        buffers: Sequence[Buffer],
    ) -> list[WireFrame]:
        frames: list[WireFrame]
        if not buffers:
            frames = [pack(self._number, acknowledged, messages)]
            self._keep(count, frames, ())
            return frames
        frames = [b""]
        shared: list[SharedBuffer] = []
        refs: list[tuple[int, SharedRef]] = []
        for place, buffer in enumerate(buffers):
            if not isinstance(buffer, SharedBuffer):
                frames.append(buffer)
            elif (view := self._view_for_strangers(buffer)) is not None:
                frames.append(view)
            else:
                shared.append(buffer)
                refs.append((place, buffer.ref))
        frames[0] = pack(self._number, acknowledged, messages, refs)
        self._keep(count, frames, shared)
        return frames

    def _view_for_strangers(self, buffer: SharedBuffer) -> memoryview | None:
        """Return the bytes if the other side cannot read them; what is gone it is told."""
        if self.shares_memory:
            return None
        try:
            return buffer.view()
        except SerializationError:
            return None

    def _keep(
        self, count: int, frames: list[WireFrame], shared: Sequence[SharedBuffer]
    ) -> None:
        nbytes = sum(map(size_of, frames))
        self._kept.append((self._number, count, nbytes, frames, shared))
        self.kept_bytes += nbytes

    def acknowledge(self, number: int) -> None:
        """Forget the envelopes up to `number`."""
        while self._kept and self._kept[0][0] <= number:
            _, count, nbytes, _, _ = self._kept.popleft()
            self.kept_bytes -= nbytes
            self.acknowledged_count = max(self.acknowledged_count, count)

    def forget(self) -> None:
        """Forget all envelopes, acknowledged or not."""
        self.acknowledge(self._number)

    def resend(self, received: int) -> list[list[WireFrame]]:
        """Return the kept envelopes that the same process on the other side lacks."""
        return [frames for number, _, _, frames, _ in self._kept if number > received]

    def restart(self, first: Sequence[Item] = (), start: int = 0) -> list[list[WireFrame]]:
        """Number anew what is kept, for a new process on the other side, and return it.

        Parameters
        ----------
        first
            What that process must be told before; becomes an envelope of its own.
        start
            See `Receiver.restart`.
        """
        kept = list(self._kept)
        self._kept.clear()
        self._number, self.kept_bytes = start, 0
        if first:
            self._number += 1
            messages = [message for message, _ in first]
            self._make(0, 0, messages, [each for _, buffers in first for each in buffers])
        for _, count, _, frames, shared in kept:
            self._number += 1
            raw = decode_raw(view_of(frames[0]))
            frames[0] = _encoder.encode((self._number, 0, raw.messages, raw.shared))
            self._keep(count, frames, shared)
        return [frames for _, _, _, frames, _ in self._kept]

    @property
    def number(self) -> int:
        """Number of the last envelope made."""
        return self._number

    @property
    def kept_count(self) -> int:
        """How many envelopes are not acknowledged."""
        return len(self._kept)


class Receiver:
    """One direction of a link, where it ends: takes each envelope once, in order."""

    def __init__(self) -> None:
        self.start = 0  # what came before the first envelope is numbered up to this
        self.received = 0  # number of the last envelope taken in
        self.settled = 0  # up to here the other side need not keep them
        self.told = 0  # up to here it knows that

    def accept(self, number: int) -> bool:
        """Whether the envelope is the next one; numberless ones (0) are always welcome."""
        if number == 0:
            return True
        if number != self.received + 1:
            return False
        self.received = number
        return True

    def settle(self, number: int | None = None) -> None:
        """Take responsibility for all up to `number` (None: all received)."""
        self.settled = max(self.settled, self.received if number is None else number)

    def tell(self) -> int:
        """Return what to put into `Envelope.acknowledged` now."""
        self.told = self.settled
        return self.told

    def retell(self) -> None:
        """Tell once more what is settled: what was said of it may have been lost in a break."""
        self.told = 0

    @property
    def untold_count(self) -> int:
        """How many settled envelopes the other side still keeps."""
        return self.settled - self.told

    def restart(self, start: int = 0) -> None:
        """Expect a new process on the other side, which counts from `start` + 1.

        That differs from one process to the next, so that what was meant for one that is gone,
        and still comes by the next connection, is not taken in.
        """
        self.start = self.received = self.settled = self.told = start
