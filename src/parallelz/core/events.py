"""What the core takes in besides messages of peers, and what it orders.

Events of the controller itself say what it saw of its peers. Actions are performed in order.
"""

from __future__ import annotations

import msgspec

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    AbortTasks,
    CancelTasks,
    DrainEngines,
    EngineInfo,
    EngineReturned,
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


class EngineInTouch(Item, frozen=True):
    """The lines to an engine broke, or are there again. What it has it may go on with."""

    session_id: SessionId
    is_in_touch: bool


class EngineLost(Item, frozen=True):
    """An engine is gone for good, for a cause that is known."""

    session_id: SessionId
    cause: str
    started_count: int = -1  # how many tasks it ever started; -1: nobody knows
    started: list[TaskId] = []  # the latest of these


class RecoveryBegan(Item, frozen=True):
    """This controller takes the place of a dead one. Tasks of before follow, as submissions."""

    engines: list[EngineInfo]  # which were there


class RecoveryLoaded(Item, frozen=True):
    """All tasks that the history knows have come."""


class RecoveryMayEnd(Item, frozen=True):
    """The clients of before have come back, or are not waited for any longer."""


class ClientReturns(Item, frozen=True):
    """A client is there again and sends what may have come before."""

    session_id: SessionId
    awaited: list[tuple[int, int]]  # numbers of what it has no answer for, first and last ones


class ClientReturned(Item, frozen=True):
    """From here on all that this client sends is new."""

    session_id: SessionId


class EndsKnown(Item, frozen=True):
    """These tasks of a client have ended, as the history says: they must not run again."""

    session_id: SessionId
    numbers: list[int]


class ClientForgotten(Item, frozen=True):
    """A client will not come back: nothing needs to be kept for it."""

    session_id: SessionId


class PastEnd(Item, frozen=True):
    """How a task ended that the core knew no more."""

    ok: bool
    how: str  # such as "failed"
    engine_session: SessionId  # "": it never ran


class EndsFound(Item, frozen=True):
    """The answer to `LookUpTasks`; what is missing in `ends`, nobody knows."""

    task_ids: list[TaskId]
    ends: dict[TaskId, PastEnd]
    trouble: str = ""  # why the history could not be asked


class ValueProvided(Item, frozen=True):
    """The answer to `AskValues` for one task."""

    task_id: TaskId
    is_held: bool


class Tick(Item, frozen=True):
    """The deadline that the core asked for has passed."""


Event = (
    SubmitTask
    | SubmitMap
    | SubmitDirect
    | TaskFinished
    | TasksDropped
    | AbortTasks
    | CancelTasks
    | DrainEngines
    | EndsFound
    | ValueProvided
    | EngineArrived
    | EngineInTouch
    | EngineLost
    | EngineReturned
    | RecoveryBegan
    | RecoveryLoaded
    | RecoveryMayEnd
    | ClientReturns
    | ClientReturned
    | EndsKnown
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


class StopTask(Item, frozen=True):
    """Interrupt this run of the task, if it is what the engine runs."""

    engine_id: EngineId
    task_id: TaskId
    run: int


class KillEngine(Item, frozen=True):
    """End the engine's process by force, and have another started in its place."""

    engine_id: EngineId
    reason: str


class ReleaseEngine(Item, frozen=True):
    """The engine was drained and has nothing left: let it end."""

    engine_id: EngineId


class LookUpTasks(Item, frozen=True):
    """Find out in the history how these ended."""

    task_ids: list[TaskId]


class AskValues(Item, frozen=True):
    """Get the results of these from the client, which had them already, or the history."""

    session_id: SessionId
    task_ids: list[TaskId]


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


Action = (
    PlaceTask
    | EndTask
    | RecallTasks
    | StopTask
    | KillEngine
    | ReleaseEngine
    | LookUpTasks
    | AskValues
    | AnnounceEngine
    | AnnounceLoss
    | Warn
)
