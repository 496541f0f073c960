"""What an engine has to run, and what it must not run any more.

Two threads meet here: the main thread adds and starts tasks, the I/O thread revokes them. A
task is started or revoked, never both, so that a task which was given back never runs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from parallelz.ids import TaskId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.functions import DefinedFunction
from parallelz.protocol.inputs import PickledInput

REMEMBERED_COUNT_MAX = 20_000  # many times what is placed on an engine at once


class Job(NamedTuple):
    """A task as it arrived. `function` is None if the engine was never told what it is."""

    task_id: TaskId
    run: int
    function: DefinedFunction | None
    data: bytes
    buffers: Sequence[Buffer]
    inputs: Sequence[PickledInput] = ()  # results of other tasks that it has as arguments


class WorkQueue:
    """Tasks in the order in which they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._revoked: OrderedDict[TaskId, int] = OrderedDict()  # up to which run
        self._started: OrderedDict[TaskId, int] = OrderedDict()

    def add(self, job: Job) -> None:
        """Append a task."""
        self._waiting.append(job)

    def start_next(self) -> Job | None:
        """Take the next task that was not revoked; from now on it cannot be."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if self._revoked and self._revoked.get(job.task_id, 0) >= job.run:
                    continue
                self._started[job.task_id] = job.run
                if len(self._started) > REMEMBERED_COUNT_MAX:
                    self._started.popitem(last=False)
                return job
            return None

    def revoke(
        self, task_ids: Sequence[TaskId], runs: Sequence[int]
    ) -> tuple[list[TaskId], list[TaskId]]:
        """Keep these runs of tasks from starting, also if they have not arrived yet.

        Returns
        -------
        tuple of two lists
            Those that will not run, and those that have started (or ended).
        """
        dropped: list[TaskId] = []
        kept: list[TaskId] = []
        with self._lock:
            for task_id, run in zip(task_ids, runs, strict=False):
                if self._started.get(task_id, 0) >= run:
                    kept.append(task_id)
                    continue
                dropped.append(task_id)
                self._revoked[task_id] = run
                self._revoked.move_to_end(task_id)
                if len(self._revoked) > REMEMBERED_COUNT_MAX:
                    self._revoked.popitem(last=False)
        return dropped, kept

    def __len__(self) -> int:
        return len(self._waiting)
