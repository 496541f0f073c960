"""What every store can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from parallelz.errors import ParallelzError
from parallelz.ids import Digest, SessionId, TaskId
from parallelz.store.query import KEYS, USUAL_KEYS, Condition, QueryError, check_keys, parse
from parallelz.store.record import Record
from parallelz.store.rows import PENDING, Function

USUAL_ORDER = ("submitted",)
LIMIT_MAX = 2**31 - 1


class StoreError(ParallelzError):
    """The database cannot be used now: locked, full, damaged, not there."""


class Store(ABC):
    """Keeps what the records say, and finds it again.

    Every method raises `StoreError` if the database fails; nothing was changed then. Used by
    one thread.
    """

    @abstractmethod
    def apply(self, records: Sequence[Record]) -> None:
        """Keep these, all or none; what is known already is left as it is."""

    @abstractmethod
    def select(
        self,
        condition: Condition,
        keys: Sequence[str],
        order: Sequence[str],
        limit: int | None,
    ) -> list[dict[str, object]]:
        """Do what `query` says; all arguments are valid."""

    @abstractmethod
    def delete(self, condition: Condition) -> int:
        """Forget the tasks that match; return how many."""

    @abstractmethod
    def definition(self, digest: Digest) -> Function | None:
        """Return what a digest stands for; None: that was never recorded."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database; the store cannot be used afterwards."""

    def query(
        self,
        query: Mapping[str, object],
        keys: Sequence[str] | None = None,
        *,
        order: Sequence[str] = USUAL_ORDER,
        limit: int | None = None,
    ) -> list[dict[str, object]]:
        """Return the records of the tasks that match.

        Parameters
        ----------
        query
            See `store.query`; ``{}``: every task.
        keys
            What to return of each; ``msg_id`` is always with it. None: all but payloads.
        order
            Keys to sort by, the first counts most; ``-key``: the largest first. Missing values
            are the smallest. Equals are in the order in which they became known.
        limit
            At most so many; None: all.

        Returns
        -------
        list
            Times are Unix times in s; what a task lacks is None.

        Raises
        ------
        QueryError
            If the query makes no sense.
        """
        names = USUAL_KEYS if keys is None else tuple(dict.fromkeys(("msg_id", *keys)))
        check_keys(names)
        check_keys([key.removeprefix("-") for key in order])
        if limit is not None and not 0 <= limit <= LIMIT_MAX:
            raise QueryError(f"the limit is a count of tasks, not {limit}")
        return self.select(parse(query), names, order, limit)

    def history(self, limit: int | None = None) -> list[str]:
        """Return the ids of all tasks, or of the `limit` newest, the oldest first."""
        newest = self.query({}, ["msg_id"], order=["-submitted"], limit=limit)
        return [str(record["msg_id"]) for record in reversed(newest)]

    def result(self, task_ids: Sequence[TaskId]) -> list[dict[str, object]]:
        """Return all that is known of these tasks, in this order, without unknown ones."""
        found = self.query({"msg_id": {"$in": list(task_ids)}}, list(KEYS))
        by_id = {record["msg_id"]: record for record in found}
        return [by_id[task_id] for task_id in task_ids if task_id in by_id]

    def status(self, task_ids: Sequence[TaskId]) -> dict[str, str]:
        """Return the status of each of these tasks that is known; ``pending``: not ended."""
        found = self.query({"msg_id": {"$in": list(task_ids)}}, ["status"])
        return {str(record["msg_id"]): str(record["status"]) for record in found}

    def purge(
        self,
        task_ids: Sequence[TaskId] | None = None,
        engine_uuids: Sequence[SessionId] | None = None,
    ) -> int:
        """Forget ended tasks; return how many. Tasks that have not ended stay.

        Parameters
        ----------
        task_ids
            Only these; None: of any id.
        engine_uuids
            Only those that ran there; None: anywhere or nowhere.
        """
        query: dict[str, object] = {"status": {"$ne": PENDING}}
        if task_ids is not None:
            query["msg_id"] = {"$in": list(task_ids)}
        if engine_uuids is not None:
            query["engine_uuid"] = {"$in": list(engine_uuids)}
        return self.delete(parse(query))
