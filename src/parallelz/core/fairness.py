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
from collections import Counter, deque

from parallelz.core.task import READY, Task
from parallelz.ids import SessionId

LINES_KEPT_MAX = 16  # of clients that have nothing ready
LEVELS_KEPT_MAX = 16  # priorities, the same
STALE_SLACK = 64  # skipped tasks that may stand among the others


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
        if used_s > self._present_s:
            self._present_s = used_s
        self._used_s[session_id] = used_s + expected_s

    def charge(self, session_id: SessionId, more_s: float) -> None:
        """Charge a client for what a task took longer than expected."""
        if session_id in self._used_s:
            self._used_s[session_id] += more_s

    def forget(self, session_id: SessionId) -> None:
        """Drop a client's clock; what it still has waiting starts at the present."""
        self._used_s.pop(session_id, None)


class _Line:
    """What one client has waiting with one priority."""

    __slots__ = ("has_turn", "number", "ready_count", "tasks")

    def __init__(self, number: int) -> None:
        self.number = number  # breaks ties
        self.tasks: deque[Task] = deque()
        self.ready_count = 0  # the others have ended and are to be skipped
        self.has_turn = False  # it stands in `_Level.turns`


class _Level:
    """What waits with one priority."""

    __slots__ = ("lines", "ready_count", "turns")

    def __init__(self) -> None:
        self.lines: dict[SessionId, _Line] = {}
        # A heap: the clock of each line, which may have gone on since, or nothing may be ready.
        self.turns: list[tuple[float, int, SessionId]] = []
        self.ready_count = 0


class FairQueue:
    """Ready tasks, in the order in which they should be placed.

    Tasks that end while they stand here (aborted, timed out) are skipped where they are met.
    """

    __slots__ = ("_levels", "_priorities", "_shares", "count")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []  # ascending
        self.count = 0  # of ready tasks

    def push(self, task: Task, *, first: bool = False) -> None:
        """Add a task behind those of its client and priority, or before them."""
        options, session_id = task.options, task.session_id
        priority = 0 if options is None else options.priority
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
            insort(self._priorities, priority)
        line = level.lines.get(session_id)
        if line is None:
            line = level.lines[session_id] = _Line(len(level.lines))
        if not line.ready_count:
            line.tasks.clear()
            used_s = self._shares.enter(session_id)
            if not line.has_turn:
                line.has_turn = True
                heapq.heappush(level.turns, (used_s, line.number, session_id))
        if first:
            line.tasks.appendleft(task)
        else:
            line.tasks.append(task)
        line.ready_count += 1
        level.ready_count += 1
        self.count += 1

    def head(self) -> Task | None:
        """Return the task whose turn it is; it stays."""
        if not self.count:
            return None
        level = self._top()
        turns = level.turns
        while True:
            used_s, number, session_id = turns[0]
            line = level.lines[session_id]
            if not line.ready_count:
                heapq.heappop(turns)
                line.has_turn = False
            elif len(turns) > 1 and (now_s := self._shares.of(session_id)) > used_s:
                heapq.heapreplace(turns, (now_s, number, session_id))
            else:
                break
        tasks = line.tasks
        while tasks[0].state is not READY:
            tasks.popleft()
        return tasks[0]

    def _top(self) -> _Level:
        """Return the highest level on which something is ready; there is one.

        Looking changes nothing that counts: else what is decided would hang on who looks.
        """
        priorities = self._priorities
        if len(priorities) == 1:
            return self._levels[priorities[0]]
        for priority in reversed(priorities):
            level = self._levels[priority]
            if level.ready_count:
                return level
        raise IndexError("nothing is ready")

    def pop(self) -> None:
        """Take away what `head` has just returned."""
        level = self._top()
        line = level.lines[level.turns[0][2]]
        line.tasks.popleft()
        self._count_down(level, line)

    def skip(self, task: Task) -> None:
        """Take in that a task which stands here has ended."""
        level = self._levels[task.priority]
        line = level.lines[task.session_id]
        self._count_down(level, line)
        if len(line.tasks) > 2 * line.ready_count + STALE_SLACK:
            line.tasks = deque(t for t in line.tasks if t.state is READY)

    def _count_down(self, level: _Level, line: _Line) -> None:
        self.count -= 1
        level.ready_count -= 1
        line.ready_count -= 1
        if level.ready_count:
            return
        if len(level.lines) > LINES_KEPT_MAX:
            level.lines.clear()  # of clients that may never come back
            level.turns.clear()
        if len(self._levels) > LEVELS_KEPT_MAX:
            self._levels = {p: each for p, each in self._levels.items() if each.ready_count}
            self._priorities = sorted(self._levels)

    def counts(self) -> Counter[SessionId]:
        """Return how many tasks of each client wait."""
        counts: Counter[SessionId] = Counter()
        for level in self._levels.values():
            for session_id, line in level.lines.items():
                if line.ready_count:
                    counts[session_id] += line.ready_count
        return counts

    def tasks(self) -> list[Task]:
        """Return all that waits: by priority, then by client."""
        return [
            task
            for priority in reversed(self._priorities)
            for line in self._levels[priority].lines.values()
            for task in line.tasks
            if task.state is READY
        ]
