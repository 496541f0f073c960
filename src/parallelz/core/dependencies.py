"""Who waits for whom.

Each dependency of a waiting task counts down: an end of a task costs its dependents, not the
graph. Whether a dependency can still be met is known at each count, so what is impossible ends
at once, and what waits for that in turn.
"""

from __future__ import annotations

from typing import NamedTuple

from parallelz.core.ended import GONE
from parallelz.core.task import Task
from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import Dependency, ErrorInfo

NAMED_COUNT_MAX = 3


class News(NamedTuple):
    """What those who wait for a task learn of its end."""

    task_id: TaskId
    ok: bool
    engine_id: EngineId  # where it ran; or NOWHERE, or GONE
    name: str  # such as "'b' (client-7)"
    how: str  # such as "failed", or "could not run as 'a' (client-3) failed"
    root: str  # what was at the bottom of it, such as "'a' (client-3) failed"


class Wait:
    """One dependency of one task, counting down.

    Attributes
    ----------
    verdict
        Whether it is satisfied, or never can be; None: further ends decide.
    """

    __slots__ = (
        "dependency",
        "engines",
        "is_place",
        "is_place_lost",
        "last",
        "left",
        "met",
        "task",
        "unmet",
        "verdict",
    )

    def __init__(
        self, task: Task, dependency: Dependency, count: int, *, is_place: bool
    ) -> None:
        self.task = task
        self.dependency = dependency
        self.is_place = is_place  # from `follow`: it also says where
        self.is_place_lost = False  # one ran, on an engine that is not here
        self.left = count
        self.met = 0
        self.engines: dict[EngineId, None] = {}  # where they ran, if that matters
        self.unmet: News | None = None  # the first that ended the other way
        self.last: News | None = None
        self.verdict: bool | None = None

    def count(self, news: News) -> None:
        """Take in that one of the tasks has ended."""
        self.left -= 1
        self.last = news
        if self.dependency.success if news.ok else self.dependency.failure:
            self.met += 1
            if self.is_place:
                self._take_place(news.engine_id)
        elif self.unmet is None:
            self.unmet = news
        self._judge()

    def reject(self, news: News) -> None:
        """Take in that one of the tasks cannot ever count."""
        self.left -= 1
        self.last = news
        if self.unmet is None:
            self.unmet = news
        self._judge()

    def _take_place(self, engine_id: EngineId) -> None:
        if engine_id >= 0:
            self.engines[engine_id] = None
        elif engine_id == GONE:
            self.is_place_lost = True

    def _judge(self) -> None:
        if not self.dependency.all:
            if self.met or not self.left:
                self.verdict = self.met > 0
        elif self.unmet is not None or len(self.engines) > 1:
            self.verdict = False
        elif not self.left:
            self.verdict = True

    @property
    def root(self) -> str:
        """What was at the bottom of its being impossible; "": nothing but itself."""
        return "" if self.unmet is None else self.unmet.root

    @property
    def some_ids(self) -> str:
        """The tasks it waits for, for a sentence."""
        ids = self.dependency.task_ids
        return ", ".join(ids[:NAMED_COUNT_MAX]) + ", ..." * (len(ids) > NAMED_COUNT_MAX)

    @property
    def error(self) -> ErrorInfo:
        """What to tell of a task whose dependency is impossible."""
        verb = "follows" if self.is_place else "depends on"
        if self.unmet is None:
            text = f"it is to follow {self.some_ids}, which ran on several engines"
        elif self.dependency.all or len(self.dependency.task_ids) == 1:
            text = f"it {verb} {self.unmet.name}, which {self.unmet.how}"
        else:
            text = f"it {verb} any of {self.some_ids}, none of which ended as it should"
        return ErrorInfo("ImpossibleDependency", text)


class Waits:
    """The waits of all waiting tasks.

    Attributes
    ----------
    by_task
        By what they wait for; not to be changed from outside.
    """

    def __init__(self) -> None:
        self.by_task: dict[TaskId, list[Wait]] = {}

    def add(self, wait: Wait, task_id: TaskId) -> None:
        """Begin to wait for a task."""
        self.by_task.setdefault(task_id, []).append(wait)

    def settle(self, news: News, *, is_lost: bool = False) -> list[Wait]:
        """Take in an end; return the waits that it decides, in the order of submission.

        Parameters
        ----------
        is_lost
            It is no end: the task can never count, whatever is asked of it.
        """
        settled: list[Wait] = []
        for wait in self.by_task.pop(news.task_id, ()):
            if wait.verdict is None and wait.task.unresolved:
                if is_lost:
                    wait.reject(news)
                else:
                    wait.count(news)
                if wait.verdict is not None:
                    settled.append(wait)
        return settled

    def awaited_by(self, task: Task) -> list[TaskId]:
        """Return what a task waits for; costs time linear in all that is awaited."""
        return [
            task_id
            for task_id, waits in self.by_task.items()
            if any(wait.task is task and wait.verdict is None for wait in waits)
        ]
