"""What simulated tasks are, and a witness of what became of them.

A payload says how long its task takes and how it is to end; an engine does as it says. The
witness sees what no process of a real cluster does: every start and every end, on all engines.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import TaskOptions

Outcome = Literal["ok", "error", "flaky", "unmet", "busy"]
Kind = Literal["balanced", "direct"]

BUSY_S = 0.1  # after which an engine that refused a busy task may have it


class SimWork(msgspec.Struct, array_like=True, frozen=True):
    """The payload of a simulated task."""

    value: int
    duration_s: float
    # flaky: the first run fails; unmet: every second engine refuses; busy: the first run is
    # refused for `BUSY_S`
    outcome: Outcome = "ok"
    is_stubborn: bool = False  # an interrupt does not end it


def result_of(value: int, inputs: list[int]) -> int:
    """Return what a task makes of its value and of the results of others."""
    return (3 * value + 1 + sum(inputs)) % 1_000_003


class Plan(NamedTuple):
    """What a client has submitted, as it remembers it."""

    task_id: TaskId
    kind: Kind
    work: SimWork
    options: TaskOptions | None
    engine_id: EngineId  # of a direct task
    frame: bytes  # b"": it has none

    @property
    def retries(self) -> int:
        """How many runs may follow the first."""
        return 0 if self.options is None else self.options.retries


class Run(NamedTuple):
    """One start of a task."""

    started_s: float  # Unix time
    run: int
    session_id: SessionId
    engine_id: EngineId


class Finish(NamedTuple):
    """One end of a run, as its engine saw it."""

    ended_s: float  # Unix time
    run: int
    engine_id: EngineId
    status: str


class Witness:
    """Every start of a task, and every end that an engine saw."""

    def __init__(self) -> None:
        self.starts: dict[TaskId, list[Run]] = {}
        self.finished: dict[TaskId, list[Finish]] = {}
        self.order: list[tuple[TaskId, Run]] = []

    def started(self, task_id: TaskId, run: Run) -> None:
        """Take in that a task has begun to run."""
        self.starts.setdefault(task_id, []).append(run)
        self.order.append((task_id, run))

    def ended(self, task_id: TaskId, finish: Finish) -> None:
        """Take in how a run ended."""
        self.finished.setdefault(task_id, []).append(finish)
