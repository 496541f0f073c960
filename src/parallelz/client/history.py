"""Questions to the recorder: what was submitted by whom, how it ended, and its results."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from parallelz.client.ledger import Answer, Submission
from parallelz.client.outcomes import moment
from parallelz.client.results import AsyncResult
from parallelz.client.session import Jobs, Session, Targets
from parallelz.client.task_group import Place
from parallelz.ids import SessionId, TaskId
from parallelz.protocol.inputs import How
from parallelz.protocol.messages import AskHistory
from parallelz.store.ended_record import ended_from
from parallelz.store.query import KEYS, Kind, check_keys, parse
from parallelz.store.restored import ENDED_KEYS

POLL_PERIOD_S = 0.1  # the recorder does not tell by itself that another client's task ended

Record = dict[str, object]


class HistorySession(Session):
    """A session that also asks what has been."""

    def db_query(
        self, query: Mapping[str, object], keys: Sequence[str] | None = None
    ) -> list[Record]:
        """Return what is recorded of tasks.

        Parameters
        ----------
        query
            Such as ``{"status": "error", "started": {"$gt": yesterday}}``, all of which must
            hold; ``{}``: every task. Operators: ``$eq $ne $lt $lte $gt $gte $in $nin $and $or
            $not $exists $regex``. Times are datetimes, ISO 8601 or Unix time.
        keys
            What to return. None: everything but data.

        Returns
        -------
        list
            One dict per task, in the order of submission. Times are aware datetimes.

        Raises
        ------
        QueryError
            If the query makes no sense.
        """
        parse(query)
        if keys is not None:
            check_keys(keys)
        wanted = None if keys is None else list(keys)
        records = self._ask("query", {"query": _plain(query), "keys": wanted})
        return [_with_moments(record) for record in cast("list[Record]", records)]

    def hub_history(self) -> list[TaskId]:
        """Return the ids of all recorded tasks, of all clients, in order of submission."""
        return cast("list[TaskId]", self._ask("history", {}))

    def result_status(
        self,
        msg_ids: Jobs,
        status_only: bool = True,  # noqa: FBT001, FBT002 - the order that users know
    ) -> dict[str, object]:
        """Return which tasks have ended, of any client.

        Parameters
        ----------
        status_only
            If False, the results are returned too, by id.

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
        known = cast("dict[str, str]", self._ask("status", {"task_ids": ids}))
        for task_id in ids:
            if task_id not in known:
                raise KeyError(f"No such message: {task_id}")
        completed = [task_id for task_id in ids if known[task_id] != "pending"]
        answer: dict[str, object] = {
            "pending": [task_id for task_id in ids if known[task_id] == "pending"],
            "completed": completed,
        }
        if not status_only:
            answer.update({task_id: self.get_result(task_id).get() for task_id in completed})
        return answer

    def get_result(
        self,
        ids: Jobs = None,
        block: bool | None = None,  # noqa: FBT001 - the order that users know
        owner: object = None,
    ) -> AsyncResult:
        """Return the AsyncResult of tasks of any client.

        Parameters
        ----------
        ids
            A msg_id, an index of `history`, an AsyncResult or a list of those. None: the last
            task of this client.
        block
            Whether to wait until they have ended; None: as `block` of the client.

        Raises
        ------
        KeyError
            If a task is not known.
        """
        chosen = -1 if ids is None else ids
        task_ids = self.task_ids(chosen)
        is_single = isinstance(chosen, int | str) or (
            isinstance(chosen, AsyncResult) and len(task_ids) == 1
        )
        places = [self.connection.ledger.find(task_id) for task_id in task_ids]
        own = [place for place in places if place is not None]
        result = (
            AsyncResult(self.connection, own, "get_result", is_single=is_single)
            if len(own) == len(places)
            else AsyncHubResult(self, task_ids, is_single=is_single)
        )
        if self.block if block is None else block:
            result.wait()
        return result

    def purge_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks in the database.

        Parameters
        ----------
        jobs
            Which; ``"all"``: all that have ended.
        targets
            Only what ended on these engines.

        Raises
        ------
        ValueError
            If neither is given.
        RuntimeError
            If some of the tasks have not ended. None was forgotten then.
        """
        if jobs is None and targets is None:
            raise ValueError("purge_results needs jobs or targets, or 'all'")
        what: dict[str, object] = {}
        if jobs is not None and not (isinstance(jobs, str) and jobs == "all"):
            what["task_ids"] = self.task_ids(jobs)
        if targets is not None:
            engines = self.connection.ledger.engines
            what["engine_uuids"] = [
                engines[engine_id].session_id for engine_id in self._control_targets(targets)
            ]
        purged = cast("Record", self._ask("purge", what))
        if purged["pending"]:
            raise RuntimeError(f"Can't purge outstanding tasks: {purged['pending']}")

    def _ask(
        self,
        question: Literal["query", "history", "result", "status", "purge"],
        what: dict[str, object],
    ) -> object:
        data = msgspec.msgpack.encode(what)
        reply, buffers = self.ask(lambda number: AskHistory(number, question, data))
        answer = buffers[0] if buffers else reply.data
        return msgspec.msgpack.decode(answer) if answer else None


class AsyncHubResult(AsyncResult):
    """The result of tasks whose answers come from the database, as those of other clients."""

    __slots__ = ("_session",)

    def __init__(
        self, session: HistorySession, task_ids: Sequence[TaskId], *, is_single: bool
    ) -> None:
        self._session = session
        places: list[Place] = [(_Recorded(task_id), 0) for task_id in task_ids]
        super().__init__(session.connection, places, "get_result", is_single=is_single)
        unknown = set(task_ids) - self._refresh()
        if unknown:
            raise KeyError(f"No such message: {min(unknown)}")

    def ready(self) -> bool:
        """Whether every task has ended; asks the database if that is not known."""
        if super().ready():
            return True
        self._refresh()
        return super().ready()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every task has ended; return whether it has."""
        if timeout is not None and timeout < 0:
            timeout = None
        until_s = None if timeout is None else time.monotonic() + timeout
        while not self.ready():
            left_s = POLL_PERIOD_S if until_s is None else until_s - time.monotonic()
            if left_s <= 0:
                return False
            self._connection.wait(lambda: False, min(left_s, POLL_PERIOD_S))
        return True

    def _input_form(self) -> How | None:
        return None

    def _refresh(self) -> set[TaskId]:
        """Take in what has ended by now; return which of the missing tasks are known."""
        missing = {
            submission.task_id(0): submission
            for submission, index in self._places
            if submission.answers[index] is None
        }
        query: dict[str, object] = {
            "query": {"msg_id": {"$in": list(missing)}},
            "keys": list(ENDED_KEYS),
        }
        known: set[TaskId] = set()
        for record in cast("list[Record]", self._session._ask("query", query)):
            task_id = TaskId(str(record["msg_id"]))
            known.add(task_id)
            submission = missing[task_id]
            submission.submitted_s = cast("float", record["submitted"] or 0.0)
            if record["status"] != "pending":
                received_s = cast("float", record["received"] or 0.0)
                submission.take(0, Answer(*ended_from(record), received_s))
        return known


class _Recorded(Submission):
    """A task that was submitted elsewhere or earlier."""

    __slots__ = ("_task_id",)

    def __init__(self, task_id: TaskId) -> None:
        super().__init__(SessionId(""), 0, 1, 0.0)
        self._task_id = task_id

    def task_id(self, index: int) -> TaskId:
        """Return its id."""
        return self._task_id


def _with_moments(record: Record) -> Record:
    return {
        key: moment(value)
        if KEYS[key] is Kind.TIME and isinstance(value, int | float)
        else value
        for key, value in record.items()
    }


def _plain(query: object) -> object:
    """Return a query as msgpack has it: times as Unix time, sets as lists."""
    if isinstance(query, Mapping):
        return {key: _plain(value) for key, value in query.items()}
    if isinstance(query, list | tuple | set | frozenset):
        return [_plain(value) for value in query]
    return query.timestamp() if isinstance(query, datetime.datetime) else query
