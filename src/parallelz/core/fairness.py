"""Whose turn it is: priorities first, then equal shares of time between clients.

Each client has a clock of its own that goes on by the time that its tasks are expected to take
(start-time fair queueing; P. Goyal, H. Vin, H. Cheng, 1996). Whose clock is behind is served
first, so a client with a million tasks does not keep one with ten waiting, nor one with hours
one with milliseconds. A client that comes back after a while starts at the present: what it
did not use is not saved up.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque

from parallelz.core.task import Task, TaskState
from parallelz.ids import SessionId

STALE_COUNT_MAX = 1000


class Shares:
    """The clocks of all clients."""

    def __init__(self) -> None:
        self._used_s: dict[SessionId, float] = {}
        self._present_s = 0.0  # the clock of whoever was served last

    def of(self, session_id: SessionId) -> float:
        """Return a client's clock."""
        return self._used_s.get(session_id, self._present_s)

    def enter(self, session_id: SessionId) -> float:
        """Take in that a client has something waiting (again); return its clock."""
        used_s = max(self._used_s.get(session_id, 0.0), self._present_s)
        self._used_s[session_id] = used_s
        return used_s

    def serve(self, session_id: SessionId, expected_s: float) -> None:
        """Charge a client for a task that is placed."""
        used_s = self._used_s.get(session_id, self._present_s)
        self._present_s = max(self._present_s, used_s)
        self._used_s[session_id] = used_s + expected_s

    def charge(self, session_id: SessionId, more_s: float) -> None:
        """Charge a client for what a task took longer than expected."""
        if session_id in self._used_s:
            self._used_s[session_id] += more_s

    def forget(self, session_id: SessionId) -> None:
        """Drop a client's clock; what it still has waiting starts at the present."""
        self._used_s.pop(session_id, None)


class _Level:
    """What waits with one priority: a queue for each client, the one served next on top."""

    __slots__ = ("entered_count", "queues", "turns")

    def __init__(self) -> None:
        self.queues: dict[SessionId, deque[Task]] = {}
        self.turns: list[tuple[float, int, SessionId]] = []  # a heap; a clock may have gone on
        self.entered_count = 0


class FairQueue:
    """Ready tasks, in the order in which they should be placed.

    Tasks that ended while they stood here (aborted, timed out) are skipped where they are met.
    """

    __slots__ = ("_levels", "_priorities", "_shares", "_stale_count", "count")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []  # ascending
        self._stale_count = 0
        self.count = 0  # with those that are to be skipped

    def push(self, task: Task, *, first: bool = False) -> None:
        """Add a task behind those of its client and priority, or before them."""
        options = task.options
        priority = 0 if options is None else options.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            insort(self._priorities, priority)
        queue = level.queues.get(task.session_id)
        if queue is None:
            queue = level.queues[task.session_id] = deque()
            level.entered_count += 1
            used_s = self._shares.enter(task.session_id)
            heapq.heappush(level.turns, (used_s, level.entered_count, task.session_id))
        if first:
            queue.appendleft(task)
        else:
            queue.append(task)
        self.count += 1

    def head(self) -> Task | None:
        """Return the task whose turn it is; it stays."""
        while self._priorities:
            level = self._levels[self._priorities[-1]]
            turns = level.turns
            while turns:
                used_s, entered, session_id = turns[0]
                queue = level.queues[session_id]
                while queue and queue[0].state is not TaskState.READY:
                    queue.popleft()
                    self.count -= 1
                    self._stale_count -= 1
                if not queue:
                    heapq.heappop(turns)
                    del level.queues[session_id]
                    continue
                if len(turns) > 1 and (now_s := self._shares.of(session_id)) > used_s:
                    heapq.heapreplace(turns, (now_s, entered, session_id))
                    continue
                return queue[0]
            del self._levels[self._priorities.pop()]
        return None

    def pop(self) -> None:
        """Take away what `head` has just returned."""
        level = self._levels[self._priorities[-1]]
        level.queues[level.turns[0][2]].popleft()
        self.count -= 1

    def skip(self) -> None:
        """Take in that a task which stands here has ended."""
        self._stale_count += 1
        if self._stale_count > STALE_COUNT_MAX and self._stale_count * 2 > self.count:
            for level in self._levels.values():
                for queue in level.queues.values():
                    ready = [task for task in queue if task.state is TaskState.READY]
                    queue.clear()
                    queue.extend(ready)
            self.count -= self._stale_count
            self._stale_count = 0

    def tasks(self) -> list[Task]:
        """Return all that waits: by priority, then by client."""
        return [
            task
            for priority in reversed(self._priorities)
            for queue in self._levels[priority].queues.values()
            for task in queue
            if task.state is TaskState.READY
        ]
