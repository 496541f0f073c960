"""What replies to clients hold: `Reply.data` is one of these, as msgpack."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import Reply
from parallelz.protocol.shared import Buffer, view_of


class EngineQueue(msgspec.Struct, frozen=True):
    """One engine's part of `QueueStatus`: counts, or ids when verbose."""

    queue: list[TaskId] | int
    completed: int
    tasks: list[TaskId] | int


class QueueStatus(msgspec.Struct, frozen=True):
    """What `AskQueues` is answered with."""

    engines: dict[EngineId, EngineQueue]
    unassigned: list[TaskId] | int


class StoryLine(msgspec.Struct, frozen=True):
    """One thing that happened to a task."""

    ago_s: float
    start: str  # state before and after, such as "ready"
    finish: str
    cause: str
    engine_id: EngineId | None


def content_of(reply: Reply, buffers: Sequence[Buffer]) -> bytes | memoryview:
    """Return what an answer brings, which is a frame of its own if it is large."""
    return view_of(buffers[0]) if buffers else reply.data
