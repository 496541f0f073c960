"""Questions to the recorder: what was submitted by whom, how it ended, and its results.

They go the way of submissions, behind them, and the controller passes them to the recorder
behind all that it had told it: so a client reads what it wrote.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import msgspec

from parallelz.client.outcomes import moment
from parallelz.client.session import Jobs, Session, SomeTargets, Targets
from parallelz.errors import RemoteError
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.option_values import integer_of
from parallelz.protocol.answers import content_of
from parallelz.protocol.messages import AskHistory, Question
from parallelz.protocol.texts import plain
from parallelz.store.query import KEYS, Kind, check_keys, parse

IDS_COUNT_MAX = 5_000  # that one question names
ALL = "all"
NO_STORE = "NoStore"  # the error where nothing is recorded

Record = dict[str, object]
T = TypeVar("T")


class HistorySession(Session):
    """A session that also asks what has been."""

    def db_query(
        self, query: Mapping[str, object], keys: str | Sequence[str] | None = None
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
        query = cast("Mapping[str, object]", _plain(query))
        parse(query)
        wanted = [keys] if isinstance(keys, str) else keys
        if wanted is not None:
            wanted = list(wanted)
            check_keys(wanted)
        records = self.records("query", {"query": query, "keys": wanted})
        return [_with_moments(record) for record in records]

    def hub_history(self) -> list[TaskId]:
        """Return the ids of all recorded tasks, of all clients, in order of submission."""
        return cast("list[TaskId]", self.ask_history("history", {}))

    def queue_status(
        self,
        targets: Targets = "all",
        verbose: bool = False,  # noqa: FBT001, FBT002 - the order that users know
    ) -> dict[object, object]:
        """Return how many tasks wait, have ended and run, by engine; for an id only its own.

        Parameters
        ----------
        verbose
            Lists of ids instead of counts. Of what has ended they are what is recorded; where
            nothing is (``--store none``), that remains a count.

        Returns
        -------
        dict
            ``{0: {"queue": 0, "completed": 4, "tasks": 0}, ..., "unassigned": 0}``: ``queue``
            was sent to the engine by name, ``tasks`` was placed there by the balance.
        """
        status = super().queue_status(targets, verbose)
        if not verbose:
            return status
        if integer_of(targets) is not None:
            number = self._engine_id(targets, self.ids)
            queues = {number: cast("Record", status)}
        else:
            queues = {n: cast("Record", q) for n, q in status.items() if isinstance(n, int)}
        self._name_completed(queues)
        return status

    def _name_completed(self, queues: Mapping[int, Record]) -> None:
        engines = self.connection.ledger.engines
        present = {e.session_id: queues[n] for n, e in engines.items() if n in queues}
        query = {"engine_uuid": {"$in": list(present)}, "status": {"$ne": "pending"}}
        what = {"query": query, "keys": ["msg_id", "engine_uuid"]}
        try:
            records = self.records("query", what)
        except RemoteError as error:
            if error.ename != NO_STORE:
                raise
            return
        for queue in present.values():
            queue["completed"] = []
        for record in records:
            completed = present[SessionId(str(record["engine_uuid"]))]["completed"]
            cast("list[object]", completed).append(record["msg_id"])

    # -- forgetting ------------------------------------------------------------------------

    def purge_local_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks in this client: they leave `results` and `metadata`.

        Their AsyncResults, where they are held, stay as they are. A map or a call on several
        engines is forgotten when all of its tasks are.

        Parameters
        ----------
        jobs
            Which; ``"all"``: all. What is not here is passed over.
        targets
            Only what ended on these engines.

        Raises
        ------
        ValueError
            If neither is given.
        RuntimeError
            If some of the tasks have not ended. None was forgotten then.
        """
        _check_purge(jobs, targets)
        ledger = self.connection.ledger
        chosen = None if jobs is None or _is_all(jobs) else set(self.task_ids(jobs))
        engine_ids = None if targets is None else {e for e, _ in self._engines_of(targets)}
        outstanding = self.outstanding
        if targets is None:
            pending = outstanding if chosen is None else outstanding & chosen
            if pending:
                raise RuntimeError(f"Can't purge outstanding tasks: {_some(pending)}")
        for submission in ledger.live():
            if not submission.pending_count and all(
                (chosen is None or task_id in chosen)
                and answer is not None
                and (engine_ids is None or answer.ended.engine_id in engine_ids)
                for task_id, answer in zip(
                    submission.task_ids(), submission.answers, strict=True
                )
            ):
                ledger.forget(submission)

    def purge_hub_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks in the database.

        Parameters
        ----------
        jobs
            Which, of any client; ``"all"``: all that have ended.
            What is not there is passed over.
        targets
            Only what ended on these engines, also if they have left.

        Raises
        ------
        ValueError
            If neither is given.
        RuntimeError
            If some of the tasks have not ended. None was forgotten then.
        """
        _check_purge(jobs, targets)
        what: dict[str, object] = {}
        if jobs is not None and not _is_all(jobs):
            what["task_ids"] = self.task_ids(jobs)
        if targets is not None:
            what["engine_uuids"] = [uuid for _, uuid in self._engines_of(targets)]
        purged = cast("Record", self.ask_history("purge", what))
        if purged["pending"]:
            pending = cast("list[TaskId]", purged["pending"])
            raise RuntimeError(f"Can't purge outstanding tasks: {_some(pending)}")

    def purge_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks, in the database and in this client.

        Parameters
        ----------
        jobs
            Which, of any client; ``"all"``: all that have ended.
            What is not there is passed over: it may have been forgotten already, by another
            client or by the limits of the history, and nobody knows the difference from an id
            that never was.
        targets
            Only what ended on these engines, also if they have left.

        Raises
        ------
        ValueError
            If neither is given.
        RuntimeError
            If some of the tasks have not ended. None was forgotten then.

        Notes
        -----
        `purge_hub_results` does only the one, `purge_local_results` only the other.
        """
        self.purge_hub_results(jobs, targets)
        if jobs is None or not _is_all(jobs) or not self.outstanding:
            self.purge_local_results(jobs, targets)

    def purge_everything(self) -> None:
        """Forget all that has ended, of all clients, and the `history` of this one.

        Raises
        ------
        RuntimeError
            If tasks of this client have not ended. Nothing was forgotten then.
        """
        self.purge_local_results(ALL)
        self.purge_hub_results(ALL)
        self._history_start = self.connection.submitted_count

    def _engines_of(self, targets: SomeTargets) -> list[tuple[EngineId, SessionId]]:
        """Return which engines are meant, those that have left included if named by id."""
        ledger = self.connection.ledger
        known = {**ledger.past_engines, **ledger.engines}
        if isinstance(targets, slice | str):
            chosen = self._control_targets(targets)
        else:
            chosen = []
            is_one = integer_of(targets) is not None
            for target in [targets] if is_one else cast("Iterable[SomeTargets]", targets):
                number = EngineId(integer_of(target) or 0)
                is_known = integer_of(target) is not None and number in known
                chosen += [number] if is_known else self._control_targets(target)
        return [(engine_id, known[engine_id].session_id) for engine_id in chosen]

    # -- asking ----------------------------------------------------------------------------

    def ask_history(self, question: Question, what: object) -> object:
        """Ask the recorder something; return the answer as it decodes without a type.

        Parameters
        ----------
        question, what
            See `store.recorder`.

        Raises
        ------
        RemoteError
            If the database fails, or nothing is recorded here.
        """
        answer = self._answer_of(question, what)
        return msgspec.msgpack.decode(answer) if answer else None

    def records(self, question: Question, what: object) -> list[Record]:
        """Ask the recorder something that is answered with records."""
        return cast("list[Record]", self.ask_history(question, what))

    def ask_history_for(self, kind: type[T], question: Question, what: object) -> T:
        """Ask the recorder something that is answered with a struct of this kind."""
        return msgspec.msgpack.decode(self._answer_of(question, what), type=kind)

    def _answer_of(self, question: Question, what: object) -> bytes:
        data = msgspec.msgpack.encode(what)
        reply, buffers = self.ask(lambda number: AskHistory(number, question, data))
        return bytes(content_of(reply, buffers))

    def records_of(
        self, task_ids: Iterable[TaskId], keys: Sequence[str]
    ) -> dict[TaskId, Record]:
        """Return what is recorded of these tasks, by id; all must be.

        Raises
        ------
        KeyError
            If a task is not known.
        """
        wanted = list(dict.fromkeys(task_ids))
        found: dict[TaskId, Record] = {}
        for some in chunks(wanted, IDS_COUNT_MAX):
            query = {"msg_id": {"$in": list(some)}}
            for record in self.records("query", {"query": query, "keys": list(keys)}):
                found[TaskId(str(record["msg_id"]))] = record
        for task_id in wanted:
            if task_id not in found:
                raise KeyError(f"No such message: {task_id}")
        return found


def chunks(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    """Yield `items` in pieces of at most `length`."""
    for start in range(0, len(items), length):
        yield items[start : start + length]


def _check_purge(jobs: Jobs, targets: Targets) -> None:
    if jobs is None and targets is None:
        raise ValueError("purging needs jobs or targets; 'all' means all that have ended")


def _is_all(jobs: Jobs) -> bool:
    return isinstance(jobs, str) and jobs == ALL


def _some(task_ids: Iterable[TaskId]) -> str:
    first, *others = sorted(task_ids)
    return f"{first} and {len(others)} more" if others else first


def _with_moments(record: Record) -> Record:
    return {
        key: moment(value)
        if KEYS[key] is Kind.TIME and isinstance(value, int | float)
        else value
        for key, value in record.items()
    }


def _plain(query: object) -> object:
    """Return a query as msgpack has it: times as Unix time, sets and arrays as lists.

    What it has no place for is left, for who reads the query to complain of.
    """
    match query:
        case datetime.datetime():
            return query.timestamp()
        case Mapping():
            return {key: _plain(value) for key, value in query.items()}
        case Iterable() if not isinstance(query, str | bytes):
            return [_plain(value) for value in query]
        case None | bool() | bytes():
            return query
        case _:
            try:
                return plain(query)
            except TypeError:
                return query
