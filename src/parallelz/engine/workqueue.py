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

REMEMBERED_COUNT_MAX = 20_000  # many times what is placed on an engine at once


class Job(NamedTuple):
    """A task as it arrived. `function` is None if the engine was never told what it is."""

    task_id: TaskId
    function: DefinedFunction | None
    data: bytes
    buffers: Sequence[Buffer]


class WorkQueue:
    """Tasks in the order in which they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._revoked: OrderedDict[TaskId, None] = OrderedDict()
        self._started: OrderedDict[TaskId, None] = OrderedDict()

    def add(self, job: Job) -> None:
        """Append a task."""
        self._waiting.append(job)

    def start_next(self) -> Job | None:
        """Take the next task that was not revoked; from now on it cannot be."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if self._revoked and job.task_id in self._revoked:
                    del self._revoked[job.task_id]
                    continue
                self._started[job.task_id] = None
                if len(self._started) > REMEMBERED_COUNT_MAX:
                    self._started.popitem(last=False)
                return job
            return None

    def revoke(self, task_ids: Sequence[TaskId]) -> tuple[list[TaskId], list[TaskId]]:
        """Keep tasks from starting, also those that have not arrived yet.

        Returns
        -------
        tuple of two lists
            Those that will not run, and those that have started (or ended).
        """
        with self._lock:
            kept = [task_id for task_id in task_ids if task_id in self._started]
            dropped = [task_id for task_id in task_ids if task_id not in self._started]
            for task_id in dropped:
                self._revoked[task_id] = None
                if len(self._revoked) > REMEMBERED_COUNT_MAX:
                    self._revoked.popitem(last=False)
        return dropped, kept

    def expect(self, task_id: TaskId) -> None:
        """Take in that a task was sent (again), whatever was said of it before."""
        if self._revoked:
            with self._lock:
                self._revoked.pop(task_id, None)
                waiting = [job for job in self._waiting if job.task_id != task_id]
                if len(waiting) < len(self._waiting):
                    self._waiting = deque(waiting)

    def __len__(self) -> int:
        return len(self._waiting)
