"""What is due when: at most one alarm for each task."""

from __future__ import annotations

import enum
import heapq

from parallelz.ids import TaskId

SLACK = 64  # alarms that were cleared stay in the heap until they are the most of it


class Alarm(enum.Enum):
    """What to do when the time has come."""

    UNPLACED = "it has waited long enough to be placed"
    DELAY = "it may be tried again"
    OVERRUN = "it has run long enough"
    KILL = "it was asked to stop long enough ago"


class Alarms:
    """A heap in which clearing costs nothing; its size follows the alarms that are set.

    Attributes
    ----------
    by_task
        When each is due, and which it is; not to be changed from outside.
    """

    def __init__(self) -> None:
        self.by_task: dict[TaskId, tuple[float, Alarm]] = {}
        self._heap: list[tuple[float, TaskId]] = []

    def set(self, task_id: TaskId, alarm: Alarm, due_s: float) -> None:
        """Set a task's alarm, in place of the one it has."""
        self.by_task[task_id] = (due_s, alarm)
        heapq.heappush(self._heap, (due_s, task_id))
        if len(self._heap) > 2 * len(self.by_task) + SLACK:
            self._heap = [(due_s, task_id) for task_id, (due_s, _) in self.by_task.items()]
            heapq.heapify(self._heap)

    def clear(self, task_id: TaskId) -> None:
        """Remove a task's alarm, if it has one."""
        self.by_task.pop(task_id, None)

    def next_s(self) -> float | None:
        """Return when the next one is due."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> tuple[TaskId, Alarm] | None:
        """Take one that is due, the earliest first."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now_s:
            return None
        _, task_id = heapq.heappop(self._heap)
        return task_id, self.by_task.pop(task_id)[1]

    def _drop_stale(self) -> None:
        while self._heap:
            due_s, task_id = self._heap[0]
            current = self.by_task.get(task_id)
            if current is not None and current[0] == due_s:
                return
            heapq.heappop(self._heap)
