"""A task and the states of its life.

    WAITING ─► READY ─► PLACED ─► ENDED
     │  ▲       │ ▲      │ │ │      ▲
     │  │       │ └──────┘ │ │      │   back to READY: its engine was lost, gave it back
     │  └───────│──────────┘ └──────┤   unstarted or refused it, or it failed and is retried
     └──────────┴───────────────────┘   back to WAITING: it is retried, but not at once

A task waits for its dependencies, is ready for any engine that may have it (or for the one it
is bound to), is placed on an engine, where it runs as soon as those placed there before it
have ended, and ends once.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from parallelz.errors import ParallelzError
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import TaskOptions


class TaskState(enum.Enum):
    """Where a task is in its life.

    Attributes
    ----------
    bit, successors
        The state as a bit, and what may follow as bits: `TRANSITIONS`, made fast to look up.
    """

    WAITING = "waiting"
    READY = "ready"
    PLACED = "placed"
    ENDED = "ended"

    def __init__(self, _: str) -> None:
        self.bit = 1 << len(type(self).__members__)
        self.successors = 0


TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.WAITING: frozenset({TaskState.READY, TaskState.ENDED}),
    TaskState.READY: frozenset({TaskState.PLACED, TaskState.ENDED}),
    TaskState.PLACED: frozenset({TaskState.WAITING, TaskState.READY, TaskState.ENDED}),
    TaskState.ENDED: frozenset(),
}


# As plain names: to look up a member of an enum takes several times as long (Python 3.11).
WAITING = TaskState.WAITING
READY = TaskState.READY
PLACED = TaskState.PLACED
ENDED = TaskState.ENDED

for _state, _successors in TRANSITIONS.items():
    _state.successors = sum(successor.bit for successor in _successors)


class InvalidTransition(ParallelzError):
    """A bug in parallelz: a task was moved between states that are not connected."""


class Transition(NamedTuple):
    """One line of a task's story."""

    now_s: float
    task_id: TaskId
    start: TaskState
    finish: TaskState
    cause: str
    engine_id: EngineId | None


class Stop(enum.Enum):
    """Why a task is to end before it ends by itself."""

    NO = "it may go on"
    ABORT = "aborted"  # unless it has started
    CANCEL = "cancelled"  # also if it has started
    OVERRUN = "ran for too long"


_GOES_ON = Stop.NO


class Task:
    """What the core knows of a task. Its code and data are elsewhere."""

    __slots__ = (
        "digest",
        "engine_id",
        "engine_ids",
        "expected_s",
        "id",
        "number",
        "options",
        "placed_count",
        "refused",
        "retries_left",
        "run_count",
        "session_id",
        "state",
        "stop",
        "unresolved",
    )

    def __init__(
        self,
        task_id: TaskId,
        session_id: SessionId,
        number: int,
        digest: Digest,
        options: TaskOptions | None = None,
        engine_ids: tuple[EngineId, ...] | None = None,
    ) -> None:
        self.id = task_id
        self.session_id = session_id
        self.number = number
        self.digest = digest
        self.options = options  # None for most
        self.engine_ids = engine_ids  # where it may run; None: anywhere
        self.refused: tuple[EngineId, ...] = ()  # by these engines (`UnmetDependency`)
        self.state = WAITING
        self.engine_id: EngineId | None = None  # not None if and only if PLACED
        self.expected_s = 0.0  # its part of its engine's load, while PLACED
        self.retries_left = max(options.retries, 0) if options is not None else 0
        self.placed_count = 0  # also counts what an engine gave back unstarted
        self.run_count = 0
        self.stop = _GOES_ON
        self.unresolved = 0  # what it waits for: dependencies, values, the end of a delay

    @property
    def is_direct(self) -> bool:
        """Whether it was sent to one engine by name."""
        return self.options is None and self.engine_ids is not None

    @property
    def priority(self) -> int:
        """Higher ones go first."""
        return 0 if self.options is None else self.options.priority

    @property
    def name(self) -> str:
        """What to call it in a sentence: its label, if it has one, and its id."""
        if self.options is None or not self.options.label:
            return self.id
        return f"{self.options.label!r} ({self.id})"

    def ask_to_stop(self, why: Stop) -> None:
        """Note why it is to end; for two reasons, it is cancelled."""
        if self.stop is Stop.NO:
            self.stop = why
        elif self.stop is not why:
            self.stop = Stop.CANCEL

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.value} engine={self.engine_id}>"
