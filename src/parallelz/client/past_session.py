"""Tasks of the past and of others: their results, and to run them again."""

from __future__ import annotations

from typing import cast

from parallelz.client.detached import DetachedResult
from parallelz.client.history import IDS_COUNT_MAX, HistorySession, chunks
from parallelz.client.recorded import AsyncHubResult, recorded_tasks, taken_up
from parallelz.client.resubmission import recorded_again
from parallelz.client.results import AsyncResult
from parallelz.client.session import Jobs, is_one
from parallelz.client.task_group import Place
from parallelz.ids import TaskId

ResultIds = Jobs | DetachedResult
"""Tasks whose results are wanted."""


class PastSession(HistorySession):
    """A session that has results of all clients' tasks, and submits those again."""

    def get_result(
        self,
        ids: ResultIds = None,
        block: bool | None = None,  # noqa: FBT001 - the order that users know
        owner: object = None,
    ) -> AsyncResult:
        """Return the AsyncResult of tasks of any client, of this run or an earlier one.

        Parameters
        ----------
        ids
            A msg_id, an index of `history`, an AsyncResult or a list of those, or what became
            of an AsyncResult in a pickle. None: the last task of this client.
        block
            Whether to wait until they have ended; None: as `block` of the client.

        Returns
        -------
        AsyncResult
            What was a map or a gather before it was pickled is one again. For tasks whose own
            is not held here, an `AsyncHubResult`, which looks into the database. A result that
            was too large for that is a `RemoteError` that is also a LookupError. Tasks that had
            not started when their cluster ended are lost: `TaskLost`.

        Raises
        ------
        KeyError
            If a task is not known.
        """
        if isinstance(ids, DetachedResult):
            task_ids = self.task_ids(list(ids.msg_ids))
            is_single = False
        else:
            chosen = -1 if ids is None else ids
            task_ids = self.task_ids(chosen)
            is_single = is_one(chosen, task_ids)
        ledger = self.connection.ledger
        places = {task_id: ledger.find(task_id) for task_id in task_ids}
        missing = [task_id for task_id, place in places.items() if place is None]
        found: dict[TaskId, Place] = {t: p for t, p in places.items() if p is not None}
        for task in recorded_tasks(self, missing):
            found[task.task_id(0)] = (task, 0)
        ordered = [found[task_id] for task_id in task_ids]
        if isinstance(ids, DetachedResult):
            result = taken_up(self, ordered, ids)
        elif missing:
            result = AsyncHubResult(self, ordered, is_single=is_single)
        else:
            result = AsyncResult(self.connection, ordered, "get_result", is_single=is_single)
        if self.block if block is None else block:
            result.wait()
        return result

    def result_status(
        self,
        msg_ids: Jobs,
        status_only: bool = True,  # noqa: FBT001, FBT002 - the order that users know
    ) -> dict[str, object]:
        """Return which tasks have ended, of any client.

        Parameters
        ----------
        status_only
            If False, what the ended ones returned is with it, by id; of those that failed the
            exception.

        Returns
        -------
        dict
            ``{"pending": [ids], "completed": [ids]}``

        Raises
        ------
        KeyError
            If a task is not known.
        """
        ids = self.task_ids(msg_ids)
        known: dict[str, str] = {}
        for some in chunks(ids, IDS_COUNT_MAX):
            known |= cast("dict[str, str]", self.ask_history("status", {"task_ids": some}))
        for task_id in ids:
            if task_id not in known:
                raise KeyError(f"No such message: {task_id}")
        completed = [task_id for task_id in ids if known[task_id] != "pending"]
        answer: dict[str, object] = {
            "pending": [task_id for task_id in ids if known[task_id] == "pending"],
            "completed": completed,
        }
        if not status_only:
            values = self.get_result(completed, block=False).get(return_exceptions=True)
            answer.update(zip(completed, values, strict=True))
        return answer

    def resubmit(
        self,
        indices_or_msg_ids: Jobs = None,
        metadata: object = None,
        block: bool | None = None,  # noqa: FBT001 - the order that users know
    ) -> AsyncResult:
        """Submit tasks once more as they were recorded, of any client and any day.

        Each is a new task with an id of its own, and this client's. Function, arguments,
        `retries`, labels, dependencies, time-outs are those of the old one; tasks of direct
        views go to the engine of the same id. The old one may still run, and its record is not
        changed: which of them came of which is not recorded.

        Parameters
        ----------
        indices_or_msg_ids
            Ids, indices of `history`, AsyncResults, or a list of such. None: the last task of
            this client.
        metadata
            Without effect.
        block
            Whether to wait until they have ended; None: as `block` of the client.

        Returns
        -------
        AsyncResult
            Of the new tasks, in the order of the old ones.

        Raises
        ------
        KeyError
            If a task is not known.
        NotRecorded
            If arguments of one, results among them or its function are not recorded, such as
            those that were too large.
        EngineError
            If the engine of a task of a direct view has left, and why.
            Whatever is raised, nothing was submitted.
        """
        chosen = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        task_ids = self.task_ids(chosen)
        submissions = self.connection.submit_again(recorded_again(self, task_ids))
        result = AsyncResult(
            self.connection,
            [(submission, 0) for submission in submissions],
            "resubmit",
            is_single=is_one(chosen, task_ids),
        )
        if self.block if block is None else block:
            result.wait()
        return result
