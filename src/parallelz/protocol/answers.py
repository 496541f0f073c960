"""What replies to clients hold: `Reply.data` is one of these, as msgpack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from parallelz.ids import EngineId, SessionId, TaskId
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


class EngineLoad(msgspec.Struct, frozen=True):
    """What one engine has to do."""

    engine_id: EngineId
    host: str
    host_id: str
    pid: int
    state: Literal["idle", "busy", "draining", "away"]
    task: str  # what runs: its label, if it has one, and its id; "" if nothing does
    function: str  # the name of what it calls
    for_s: float  # since it came to be the one that runs
    placed_count: int  # also what runs
    direct_count: int  # waits for this engine alone
    ended_count: int


class Queue(msgspec.Struct, frozen=True):
    """How much of one client waits for engines that meet the same needs."""

    needs: str  # as words that follow "an engine that"; "" for any engine
    session_id: SessionId
    client: str  # who that is, as far as is known
    count: int


class Failure(msgspec.Struct, frozen=True):
    """A task that has not ended well."""

    ago_s: float
    task: str
    engine_id: EngineId | None
    cause: str


class Overview(msgspec.Struct, frozen=True):
    """How busy a cluster is at this moment."""

    controller_pid: int
    engines: list[EngineLoad]
    queues: list[Queue]  # the longest ones
    ready_count: int
    waiting_count: int  # for other tasks, values or the end of a delay
    ended_counts: dict[str, int]  # by status, since the controller was started
    failures: list[Failure]  # the latest ones, newest first
    trouble: str  # why the history is not written; "": it is, or there is none


def content_of(reply: Reply, buffers: Sequence[Buffer]) -> bytes | memoryview:
    """Return what an answer brings, which is a frame of its own if it is large."""
    return view_of(buffers[0]) if buffers else reply.data
