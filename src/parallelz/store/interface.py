"""What every store can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from parallelz.errors import ParallelzError
from parallelz.ids import Digest, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo
from parallelz.settings import PAYLOAD_BYTES_MAX
from parallelz.store.query import KEYS, USUAL_KEYS, Condition, QueryError, check_keys, parse
from parallelz.store.record import Record
from parallelz.store.restored import ENDED_KEYS, Ends
from parallelz.store.rows import PENDING, Function

USUAL_ORDER = ("submitted",)
LIMIT_MAX = 2**31 - 1
ENDS_COUNT_MAX = 1000  # in one answer: what tasks printed does not count by its size
CULL_COUNT_MAX = 1000  # tasks that are forgotten at once, so that nothing has to wait for long

CLUSTER_ENDED = "the cluster ended before it did"
CLUSTER_STOPPED = "the cluster was stopped before it did"

RESTORED_KEYS = (
    "msg_id",
    "client_uuid",
    "queue",
    "engine_id",
    "digest",
    "submitted",
    "label",
    "options",
    "payload",
    "payload_frames",
    "payload_bytes",
)
"""What is needed of a task to run it."""


class StoreError(ParallelzError):
    """The database cannot be used now: locked, full, not there."""


class DamageError(StoreError):
    """The database was damaged or is gone; the next call begins a new one."""


class RecordError(StoreError):
    """A record is not what the database can hold, now or later."""


class Run(NamedTuple):
    """One life of a cluster, from its start to its stop, over restarts of its parts."""

    key: str
    cluster: str  # what the runs of one cluster have in common


class Limits(NamedTuple):
    """How much is remembered of what has ended; None: all of it."""

    age_s: float | None = None  # since its end
    task_count: int | None = None
    size_bytes: int | None = None  # of the whole store


NO_LIMITS = Limits()


class Journaled(NamedTuple):
    """What stands at the front of a journal."""

    run: int  # as the store calls it
    last: int  # number of the last entry
    entry_count: int
    records: list[msgspec.Raw]


class Store(ABC):
    """Keeps what the records say, and finds it again.

    Every method raises `StoreError` if the database fails; nothing was changed then. Used by
    one thread. `begin_run` comes before all else but what is about the journal.

    A store may have a journal: a place for records as they travel, which costs far less than
    their rows. They are safe there, but not found: sooner or later all of it has to be turned
    into rows (`fold`), in order. What a journal has of before comes before the first run.
    """

    has_journal = False

    @abstractmethod
    def begin_run(self, run: Run, now_s: float) -> int:
        """Go on with a run, or begin it: then what earlier ones left behind is lost.

        Returns
        -------
        int
            How many tasks of earlier runs of this cluster had not ended, and end now.
        """

    @abstractmethod
    def end_run(self, now_s: float) -> int:
        """Let all that has not ended in this run end, as the cluster does; return how many."""

    @abstractmethod
    def apply(self, records: Sequence[Record]) -> None:
        """Keep these, all or none; what is known already is left as it is.

        Raises
        ------
        RecordError
            If it is for one of them, and will be when it is tried again.
        """

    def append(self, records: Sequence[msgspec.Raw]) -> None:
        """Put these into the journal, as one entry, all or none."""
        raise NotImplementedError(f"{type(self).__name__} has no journal")

    def journaled(self, count_max: int) -> Journaled | None:
        """Return the first entries of the journal; None: it is empty.

        Parameters
        ----------
        count_max
            Of records, but for the first entry.
        """
        return None

    def fold(self, journaled: Journaled, records: Sequence[Record]) -> None:
        """Do as `apply` in the run of `journaled`, and empty the journal of that, or neither.

        Parameters
        ----------
        records
            What `journaled` came to.
        """
        raise NotImplementedError(f"{type(self).__name__} has no journal")

    @abstractmethod
    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """Return tasks of this run that have not ended, in the order they became known.

        Parameters
        ----------
        after
            What was returned with those before; 0: begin.
        bytes_max
            Of payloads, but for the last task.

        Returns
        -------
        tuple
            Records with `RESTORED_KEYS`, and where to go on; 0: that was all.
        """

    @abstractmethod
    def engines(self) -> tuple[list[EngineInfo], int]:
        """Return the engines of this run that have not left, and the first id never used."""

    @abstractmethod
    def cull(self, limits: Limits, now_s: float) -> int:
        """Forget some of what is beyond the limits, the oldest first.

        Returns
        -------
        int
            How many tasks; 0: there is nothing (more) to forget.
        """

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
    def functions(self, digests: Sequence[Digest]) -> list[Function]:
        """Return what digests stand for; what was never recorded is left out."""

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

    def ends(self, task_ids: Sequence[TaskId], bytes_max: int) -> Ends:
        """Return how tasks ended; see `restored.FindEnds`."""
        wanted = task_ids[:ENDS_COUNT_MAX]
        found = self.query({"msg_id": {"$in": wanted}}, ["status", "data_bytes"])
        by_id = {str(record["msg_id"]): record for record in found}
        pending: list[TaskId] = []
        ended: list[TaskId] = []
        count = nbytes = 0
        for task_id in wanted:
            if ended and nbytes >= bytes_max:
                break
            count += 1
            record = by_id.get(task_id)
            if record is None:
                continue
            if record["status"] == PENDING:
                pending.append(task_id)
                continue
            ended.append(task_id)
            nbytes += _kept_bytes(record["data_bytes"])
        results = self.query({"msg_id": {"$in": ended}}, ENDED_KEYS) if ended else []
        return Ends(count, pending, results)

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


def _kept_bytes(data_bytes: object) -> int:
    # Of a larger result only the size is there.
    is_kept = isinstance(data_bytes, int) and data_bytes <= PAYLOAD_BYTES_MAX
    return cast("int", data_bytes) if is_kept else 0
