"""What a balanced task waits for, in the words of users."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from parallelz.client.results import AsyncResult
from parallelz.errors import InvalidDependency
from parallelz.ids import TaskId
from parallelz.protocol import messages


class Dependency(set[str]):
    """Tasks, and which ends of them count.

    Parameters
    ----------
    dependencies
        Ids, AsyncResults, or collections of them.
    all
        Whether all of them are needed, or any one.
    success, failure
        Whether a task that ended well counts; one that failed.
    success_only
        Of 2011: True is the same as ``success=True, failure=False``, False as both True.

    Raises
    ------
    InvalidDependency
        If something in `dependencies` stands for no task.
    ValueError
        If neither success nor failure counts.
    """

    def __init__(
        self,
        dependencies: object = (),
        all: bool = True,  # noqa: FBT001, FBT002 - the order that users know
        success: bool = True,  # noqa: FBT001, FBT002
        failure: bool = False,  # noqa: FBT001, FBT002
        *,
        success_only: bool | None = None,
    ) -> None:
        if success_only is not None:
            success, failure = True, not success_only
        if not (success or failure):
            raise ValueError("a dependency must count success or failure, or both")
        super().__init__(task_ids_of(dependencies))
        self.all = all
        self.success = success
        self.failure = failure

    def __repr__(self) -> str:
        return (
            f"Dependency({sorted(self)}, all={self.all}, success={self.success},"
            f" failure={self.failure})"
        )

    def check(self, completed: Collection[str], failed: Collection[str] = ()) -> bool:
        """Return whether it is met, given the ids of what ended well and of what failed."""
        if not self:
            return True
        counting = {
            *(completed if self.success else ()),
            *(failed if self.failure else ()),
        }
        return self <= counting if self.all else bool(self & counting)

    def unreachable(self, completed: Collection[str], failed: Collection[str] = ()) -> bool:
        """Return whether it can never be met any more."""
        unwanted = {
            *(() if self.success else completed),
            *(() if self.failure else failed),
        }
        return bool(self & unwanted) if self.all else bool(self) and self <= unwanted

    def as_dict(self) -> dict[str, object]:
        """Return it as what `depends_on` also understands."""
        return {
            "dependencies": sorted(self),
            "all": self.all,
            "success": self.success,
            "failure": self.failure,
        }


def task_ids_of(tasks: object) -> list[TaskId]:
    """Return the ids of all that stands for tasks: ids, AsyncResults, collections of them.

    Raises
    ------
    InvalidDependency
        If something stands for none.
    """
    if isinstance(tasks, AsyncResult):
        return tasks.msg_ids
    if isinstance(tasks, str):
        return [TaskId(tasks)]
    if isinstance(tasks, Iterable) and not isinstance(tasks, (bytes, Mapping)):
        return [task_id for task in tasks for task_id in task_ids_of(task)]
    raise InvalidDependency(
        f"Invalid dependency: {tasks!r} is no task; give a msg_id, an AsyncResult, a"
        " Dependency, or a collection of them"
    )


def depends_on(tasks: object) -> messages.Dependency | None:
    """Return the message for what users give as `after` or `follow`; None: for nothing."""
    if tasks is None:
        return None
    if isinstance(tasks, Mapping):
        tasks = Dependency(**tasks)
    if not isinstance(tasks, Dependency):
        ids = sorted(set(task_ids_of(tasks)))
        return messages.Dependency(ids) if ids else None
    if not tasks:
        return None
    ids = [TaskId(task_id) for task_id in sorted(tasks)]
    return messages.Dependency(ids, tasks.all, tasks.success, tasks.failure)
