"""Who waits for whom.

Each dependency of a waiting task counts down: an end of a task costs its dependents, not the
graph. Whether a dependency can still be met is known at each count, so what is impossible ends
at once, and what waits for that in turn.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from parallelz.core.ended import EndedTasksByClient
from parallelz.core.task import Task
from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import Dependency, ErrorInfo


class Wait:
    """One dependency of one task, counting down."""

    __slots__ = (
        "dependency",
        "engines",
        "is_place",
        "last_id",
        "left",
        "met",
        "task",
        "unmet_id",
    )

    def __init__(self, task: Task, dependency: Dependency, *, is_place: bool) -> None:
        self.task = task
        self.dependency = dependency
        self.is_place = is_place  # from `follow`: it also says where
        self.left = len(dependency.task_ids)
        self.met = 0
        self.engines: dict[EngineId, None] = {}
        self.unmet_id: TaskId | None = None  # the first that ended the other way
        self.last_id: TaskId | None = None  # the last that ended

    def count(self, task_id: TaskId, engine_id: EngineId, *, ok: bool) -> None:
        """Take in that one of the tasks has ended."""
        self.left -= 1
        self.last_id = task_id
        if self.dependency.success if ok else self.dependency.failure:
            self.met += 1
            if engine_id >= 0:
                self.engines[engine_id] = None
        elif self.unmet_id is None:
            self.unmet_id = task_id

    @property
    def is_satisfied(self) -> bool:
        """Whether enough has ended the right way."""
        if self.dependency.all:
            return self.left == 0 and self.unmet_id is None
        return self.met > 0 or not self.dependency.task_ids

    @property
    def is_impossible(self) -> bool:
        """Whether it is certain that it never will be satisfied."""
        if self.dependency.all:
            return self.unmet_id is not None or (self.is_place and len(self.engines) > 1)
        return self.left == 0 and self.met == 0 and bool(self.dependency.task_ids)

    @property
    def error(self) -> ErrorInfo:
        """What to tell of a task whose dependency is impossible."""
        ids = ", ".join(self.dependency.task_ids)
        if self.unmet_id is not None:
            text = (
                f"it depends on {self.unmet_id}, which failed, is unknown,"
                " or must fail and did not"
            )
        elif self.is_place and len(self.engines) > 1:
            text = f"it is to follow {ids}, which ran on several engines"
        else:
            text = f"none of {ids} ended as it depends on"
        return ErrorInfo("ImpossibleDependency", text)

    @property
    def is_settled(self) -> bool:
        """Whether further ends change nothing."""
        return self.is_satisfied or self.is_impossible


class Settled(NamedTuple):
    """A dependency that an end has just decided."""

    task: Task
    wait: Wait


class Dependencies:
    """The waits of all waiting tasks, by what they wait for."""

    def __init__(self) -> None:
        self._waits: dict[TaskId, list[Wait]] = {}

    def add(
        self,
        task: Task,
        dependency: Dependency,
        live: Container[TaskId],
        ended: EndedTasksByClient,
        *,
        is_place: bool,
    ) -> Wait:
        """Begin to wait, unless what has ended already settles it.

        Parameters
        ----------
        live, ended
            Where the other tasks are to be found; one in neither can never be met.
        """
        wait = Wait(task, dependency, is_place=is_place)
        to_come: list[TaskId] = []
        for task_id in dict.fromkeys(dependency.task_ids):
            if task_id in live and task_id != task.id:
                to_come.append(task_id)
            elif (end := ended.find(task_id)) is not None:
                wait.count(task_id, end.engine_id, ok=end.ok)
            elif wait.unmet_id is None:
                wait.unmet_id = task_id
        wait.left = len(to_come)
        if not wait.is_settled:
            for task_id in to_come:
                self._waits.setdefault(task_id, []).append(wait)
        return wait

    def ended(self, task_id: TaskId, engine_id: EngineId, *, ok: bool) -> list[Settled]:
        """Take in an end; return what that decided, in the order of submission."""
        settled: list[Settled] = []
        for wait in self._waits.pop(task_id, ()):
            if wait.is_settled:
                continue
            wait.count(task_id, engine_id, ok=ok)
            if wait.is_settled:
                settled.append(Settled(wait.task, wait))
        return settled
