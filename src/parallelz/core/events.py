"""What the core takes in besides messages of peers, and what it orders.

Events of the controller itself say what it saw of its peers. Actions are performed in order.
"""

from __future__ import annotations

import msgspec

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    AbortTasks,
    EngineInfo,
    ErrorInfo,
    Status,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskFinished,
    TasksDropped,
)


class Item(msgspec.Struct, frozen=True, gc=False):
    """Base of events and actions: immutable."""


class EngineArrived(Item, frozen=True):
    """A new engine has said hello on both of its links."""

    engine: EngineInfo


class EngineLost(Item, frozen=True):
    """An engine is gone for good, for a cause that is known."""

    session_id: SessionId
    cause: str


class ClientForgotten(Item, frozen=True):
    """A client will not come back: nothing needs to be kept for it."""

    session_id: SessionId


class Tick(Item, frozen=True):
    """The deadline that the core asked for has passed."""


Event = (
    SubmitTask
    | SubmitMap
    | SubmitDirect
    | TaskFinished
    | TasksDropped
    | AbortTasks
    | EngineArrived
    | EngineLost
    | ClientForgotten
    | Tick
)


class PlaceTask(Item, frozen=True):
    """Send the task to the engine."""

    task_id: TaskId
    engine_id: EngineId
    run: int  # how often the task was placed, this time included


class EndTask(Item, frozen=True):
    """Give the client its answer and forget the task.

    `by_result`: with what the engine has just said; else `error` is all there is to say.
    """

    task_id: TaskId
    session_id: SessionId
    status: Status
    engine_id: EngineId  # -1: it never was on one
    run_count: int
    by_result: bool
    error: ErrorInfo | None = None


class RecallTasks(Item, frozen=True):
    """Ask the engine to give back what it has not started."""

    engine_id: EngineId
    task_ids: list[TaskId]
    runs: list[int]  # of each: what came later is not meant


class AnnounceEngine(Item, frozen=True):
    """Tell every client who is there now."""

    engine: EngineInfo


class AnnounceLoss(Item, frozen=True):
    """Tell every client who is gone, and why."""

    engine_id: EngineId
    cause: str


class Warn(Item, frozen=True):
    """Tell the user of one client something, once."""

    session_id: SessionId
    text: str


Action = PlaceTask | EndTask | RecallTasks | AnnounceEngine | AnnounceLoss | Warn
