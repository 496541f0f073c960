"""What an engine has to run, and what it must not run any more.

Two threads meet here: the main thread adds and starts tasks, the I/O thread revokes them. A
task is started or revoked, never both, so that a task which was given back never runs.

A new controller begins with an empty queue: what had not started of what the one before sent
is forgotten, and what the main thread still finds of that is not taken in. What had started is
*open* until the controller has its result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
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
        self._open: dict[TaskId, tuple[int, int]] = {}  # which run, and which start of all
        self._start_count = 0
        self._controller_id = ""
        self._sender_id = ""  # the controller that has sent what waits

    def add(self, job: Job, controller_id: str = "") -> None:
        """Append a task that this controller has sent, if it is the one that counts."""
        self.extend([job], controller_id)

    def extend(self, jobs: Sequence[Job], controller_id: str = "") -> None:
        """Append several tasks, or none; see `add`."""
        if not jobs:
            return
        with self._lock:
            if self._controller_id in ("", controller_id):
                self._waiting.extend(jobs)
                self._sender_id = controller_id

    def begin(self, controller_id: str) -> tuple[list[TaskId], list[int]]:
        """Forget what has not started of another controller: only this one counts now.

        Returns
        -------
        tuple of two lists
            What has started and is open, in that order, and which run of it.
        """
        with self._lock:
            self._controller_id = controller_id
            if self._sender_id != controller_id:
                self._waiting.clear()
                self._revoked.clear()
            return list(self._open), [run for run, _ in self._open.values()]

    def close(self, runs: Iterable[tuple[TaskId, int]]) -> None:
        """Take in that the controller has the results of these runs of tasks."""
        with self._lock:
            for task_id, run in runs:
                if self._open.get(task_id, (0, 0))[0] == run:  # else it has started again
                    del self._open[task_id]

    @property
    def open_count(self) -> int:
        """How many have started whose results the controller does not have."""
        return len(self._open)

    def open_ids(self) -> list[TaskId]:
        """Return which these are, in the order in which they started."""
        with self._lock:
            return list(self._open)

    @property
    def settled_count(self) -> int:
        """How many starts there were before the first that is open."""
        with self._lock:
            for _, number in self._open.values():
                return number - 1
            return self._start_count

    def start_next(self) -> Job | None:
        """Take the next task that was not revoked; from now on it cannot be."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if self._revoked and self._revoked.get(job.task_id, 0) >= job.run:
                    continue
                self._start_count += 1
                self._open.pop(job.task_id, None)  # in the order of the latest starts
                self._open[job.task_id] = (job.run, self._start_count)
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
