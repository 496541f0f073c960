"""What the controller tells the recorder.

A record is the message itself and what the controller adds to it: who sent it, when it came,
what the function is called. So a record costs the controller one small object and one encoding,
a map of a thousand tasks no more than that. Records are encoded where they are made and travel
as they are (`StoreRecords.records`); what they come to as rows of a table is the recorder's
work, see `store.rows`.

Payloads up to `PAYLOAD_BYTES_MAX` are part of the record (of several tasks together, up to
`RECORD_BYTES_MAX`); of larger ones only the size is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from parallelz.ids import Digest, SessionId
from parallelz.protocol.messages import (
    EngineInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
)
from parallelz.protocol.shared import Buffer, Frame, Pieces, size_of, view_of
from parallelz.settings import PAYLOAD_BYTES_MAX

RECORD_BYTES_MAX = 16 * 1024 * 1024

Submission = SubmitTask | SubmitMap | SubmitDirect


class BaseRecord(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of every record: immutable, tagged with its class name."""


class SubmissionRecord(BaseRecord, frozen=True):
    """These tasks exist."""

    client: SessionId
    message: Submission  # without its data, if that is left out
    name: str  # of the function
    arrived_s: float  # Unix time, by the controller's clock
    frames: bytes = b""  # msgpack: list of the frames behind the message; b"": none
    sizes: list[int] = []  # of each task's payload, if there are frames or it is left out


class EndRecord(BaseRecord, frozen=True):
    """This task has ended."""

    message: TaskEnded  # without its data, if that is left out
    engine_uuid: SessionId  # "": it never ran
    ended_s: float  # Unix time, by the controller's clock
    frames: bytes = b""  # as above
    size: int = 0  # of the result, if there are frames or it is left out


class EngineRecord(BaseRecord, frozen=True):
    """This engine came (no cause), or went for this cause."""

    engine: EngineInfo
    cause: str
    changed_s: float  # Unix time, by the controller's clock


class FunctionRecord(BaseRecord, frozen=True):
    """This is what a digest stands for."""

    digest: Digest
    name: str
    data: bytes
    frames: bytes = b""  # as above


Record = SubmissionRecord | EndRecord | EngineRecord | FunctionRecord

_encode = msgspec.msgpack.Encoder().encode
decode: Callable[[Frame | msgspec.Raw], Record] = msgspec.msgpack.Decoder(Record).decode


def encode(record: Record) -> msgspec.Raw:
    """Return a record as it travels."""
    return msgspec.Raw(_encode(record))


def keeps(size: int, count: int = 1) -> bool:
    """Whether a payload of this size, which so many tasks share, becomes part of a record."""
    return size <= PAYLOAD_BYTES_MAX and size * count <= RECORD_BYTES_MAX


def keeps_payload(message: Submission, buffers: Sequence[Buffer]) -> bool:
    """Whether all that is needed to run these tasks becomes part of their record."""
    if isinstance(message, SubmitMap):
        return sum(map(len, message.items)) <= RECORD_BYTES_MAX
    count = len(message.engine_ids) if isinstance(message, SubmitDirect) else 1
    return keeps(len(message.data) + (_size_of(buffers) if buffers else 0), count)


def keeps_result(message: TaskEnded, buffers: Sequence[Buffer]) -> bool:
    """Whether a result becomes part of its record."""
    return keeps(len(message.data) + _size_of(buffers))


def submitted(
    client: SessionId,
    message: Submission,
    name: str,
    buffers: Sequence[Buffer],
    arrived_s: float,
) -> msgspec.Raw:
    """Return the encoded record of a submission, with its payload or only the size of that.

    Parameters
    ----------
    buffers
        The frames behind the message, `message.frame_count` of them.
    """
    frames = b""
    sizes: list[int] = []
    if isinstance(message, SubmitMap):
        if sum(map(len, message.items)) > RECORD_BYTES_MAX:
            sizes = [len(item) for item in message.items]
            message = msgspec.structs.replace(message, items=[b""] * len(sizes))
    else:
        size = len(message.data)
        count = 1
        if buffers:
            size += _size_of(buffers)
            sizes = [size]
        if isinstance(message, SubmitDirect):
            count = len(message.engine_ids)
        if not keeps(size, count):
            sizes = [size]
            message = msgspec.structs.replace(message, data=b"")
        elif buffers:
            frames = _encode_frames(buffers)
    return msgspec.Raw(
        _encode(SubmissionRecord(client, message, name, arrived_s, frames, sizes))
    )


def ended(
    message: TaskEnded, engine_uuid: str, buffers: Sequence[Buffer], ended_s: float
) -> msgspec.Raw:
    """Return the encoded record of a task's end, with its result or only the size of that.

    Parameters
    ----------
    engine_uuid
        Session of the engine that ran it; "": none did.
    buffers
        The frames behind the message, `message.frame_count` of them.
    """
    frames = b""
    size = 0
    if buffers or len(message.data) > PAYLOAD_BYTES_MAX:
        size = len(message.data) + _size_of(buffers)
        if size > PAYLOAD_BYTES_MAX:
            message = msgspec.structs.replace(message, data=b"")
        else:
            frames = _encode_frames(buffers)
    return msgspec.Raw(
        _encode(EndRecord(message, SessionId(engine_uuid), ended_s, frames, size))
    )


def engine_changed(engine: EngineInfo, cause: str, changed_s: float) -> msgspec.Raw:
    """Return the encoded record of an engine that came (`cause` is "") or went."""
    return msgspec.Raw(_encode(EngineRecord(engine, cause, changed_s)))


def function_defined(
    digest: Digest, name: str, data: bytes, buffers: Sequence[Buffer]
) -> msgspec.Raw:
    """Return the encoded record of a function's definition, of any size."""
    frames = _encode_frames(buffers) if buffers else b""
    return msgspec.Raw(_encode(FunctionRecord(digest, name, data, frames)))


def _encode_frames(buffers: Sequence[Buffer]) -> bytes:
    return _encode([view_of(each) if isinstance(each, Pieces) else each for each in buffers])


def _size_of(buffers: Sequence[Buffer]) -> int:
    return sum(map(size_of, buffers))
