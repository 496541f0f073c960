"""What the recorder does with what it is told and asked; how it is told is another's business.

Records of one call become one transaction, except that a question is answered after all that
came before it: a client always reads its own writes.

A database that fails (locked, full, damaged) stops nobody. It is logged once, what it could not
take is counted and lost, questions are answered with the error, and it is tried again with the
next records or question.

Questions
---------
`AskHistory.data` and `Reply.data` are msgpack, by `AskHistory.question`. What is asked is the
dictionary of the struct named here, in which all that has a default may be left out:

=========  ==================  ==========================================================
question   what is asked       the answer
=========  ==================  ==========================================================
query      `QueryTasks`        list of records, dictionaries by key (docs/store.md)
history    `ListTasks`         list of task ids, the oldest first
result     `NameTasks`         list of records with all keys, unknown tasks left out
status     `NameTasks`         dictionary of status by task id, unknown tasks left out
purge      `PurgeTasks`        `Purged`, as a dictionary
=========  ==================  ==========================================================

A reply whose answer is larger than `INLINE_BYTES_MAX` has it as its frame, and no data.

In a record, `data` and `frames` are the result's payload as it was in `TaskEnded`: what was its
data, and msgpack of the list of its frames (None: it had none). `data` is None if the task has
not ended, or if its result was too large to be kept; then `data_bytes` says how large.
`outputs` and `execute_result` are `Outputs.displays` and `Outputs.execute_result`. Errors come
as `Reply.error`: `QueryError` for a question that makes no sense, `StoreError` for a database
that fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from parallelz.ids import SessionId, TaskId
from parallelz.protocol.messages import AskHistory, ErrorInfo, Reply, StoreRecords
from parallelz.store import record
from parallelz.store.interface import USUAL_ORDER, Store, StoreError
from parallelz.store.query import QueryError
from parallelz.store.record import Record
from parallelz.store.rows import PENDING

logger = logging.getLogger(__name__)

REOPEN_PERIOD_S = 5.0
INLINE_BYTES_MAX = 16 * 1024

Answer = tuple[Reply, tuple[bytes, ...]]  # with the frames behind it


class QueryTasks(msgspec.Struct, forbid_unknown_fields=True):
    """Which tasks match? See `Store.query`."""

    query: dict[str, object] = {}
    keys: list[str] | None = None
    order: tuple[str, ...] = USUAL_ORDER
    limit: int | None = None


class ListTasks(msgspec.Struct, forbid_unknown_fields=True):
    """Which tasks have there been? See `Store.history`."""

    limit: int | None = None


class NameTasks(msgspec.Struct, forbid_unknown_fields=True):
    """What about these tasks? See `Store.result` and `Store.status`."""

    task_ids: list[TaskId]


class PurgeTasks(msgspec.Struct, forbid_unknown_fields=True):
    """Forget these tasks. See `Store.purge`; both None: all that have ended."""

    task_ids: list[TaskId] | None = None
    engine_uuids: list[SessionId] | None = None


class Purged(msgspec.Struct):
    """Answer to `PurgeTasks`: if any task that was named has not ended, none was purged."""

    count: int
    pending: list[TaskId]


class Recorder:
    """Keeps records and answers questions.

    Parameters
    ----------
    open_store
        Opens the database, or raises StoreError; called again, at times, until it succeeds.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        self._store: Store | None = None
        self._reopen_s = float("-inf")
        self._trouble: StoreError | None = None  # what is wrong with the database now
        self._lost_count = 0

    def handle(
        self, messages: Iterable[StoreRecords | AskHistory], now_s: float
    ) -> list[Answer]:
        """Take in messages, in order; return the answers to questions among them.

        On return all records are in the database, or lost because it fails.

        Parameters
        ----------
        now_s
            By any clock that only goes forward.
        """
        self._see_to_store(now_s)
        answers: list[Answer] = []
        records: list[Record] = []
        for message in messages:
            if isinstance(message, StoreRecords):
                records += _decoded(message.records)
            else:
                if records or self._trouble is not None:
                    self._apply(records)
                records = []
                answers.append(self._answer(message))
        if records:
            self._apply(records)
        return answers

    def close(self) -> None:
        """Close the database."""
        if self._store is not None:
            try:
                self._store.close()
            except StoreError as error:
                self._failed(error, 0)
            self._store = None

    # -- keeping ---------------------------------------------------------------------------

    def _see_to_store(self, now_s: float) -> None:
        if self._store is not None or now_s < self._reopen_s:
            return
        self._reopen_s = now_s + REOPEN_PERIOD_S
        try:
            self._store = self._open_store()
        except StoreError as error:
            self._failed(error, 0)

    def _apply(self, records: Sequence[Record]) -> None:
        if self._store is None:
            self._lost_count += len(records)
            return
        try:
            self._store.apply(records)
        except StoreError as error:
            self._failed(error, len(records))
            return
        if self._trouble is not None:
            logger.warning("= the database works again; %d records were lost", self._lost_count)
            self._trouble = None
            self._lost_count = 0

    def _failed(self, error: StoreError, lost_count: int) -> None:
        self._lost_count += lost_count
        if self._trouble is None:
            logger.error("! what happens is not recorded until this is mended: %s", error)
        self._trouble = error

    # -- answering -------------------------------------------------------------------------

    def _answer(self, message: AskHistory) -> Answer:
        number = message.request_id
        if self._store is None or self._trouble is not None:
            text = f"{self._trouble}; {self._lost_count} records were lost"
            return Reply(number, error=ErrorInfo("StoreError", text)), ()
        try:
            answer = msgspec.msgpack.encode(self._look_up(self._store, message))
        except (QueryError, msgspec.MsgspecError) as error:
            return Reply(number, error=ErrorInfo("QueryError", str(error))), ()
        except StoreError as error:
            return Reply(number, error=ErrorInfo("StoreError", str(error))), ()
        if len(answer) <= INLINE_BYTES_MAX:
            return Reply(number, answer), ()
        return Reply(number, frame_count=1), (answer,)

    def _look_up(self, store: Store, message: AskHistory) -> object:
        data = message.data
        match message.question:
            case "query":
                asked = msgspec.msgpack.decode(data, type=QueryTasks)
                return store.query(
                    asked.query, asked.keys, order=asked.order, limit=asked.limit
                )
            case "history":
                return store.history(msgspec.msgpack.decode(data, type=ListTasks).limit)
            case "result":
                return store.result(msgspec.msgpack.decode(data, type=NameTasks).task_ids)
            case "status":
                return store.status(msgspec.msgpack.decode(data, type=NameTasks).task_ids)
            case "purge":
                return _purge(store, msgspec.msgpack.decode(data, type=PurgeTasks))


def _purge(store: Store, asked: PurgeTasks) -> Purged:
    status = store.status(asked.task_ids or [])
    pending = [TaskId(task_id) for task_id, state in status.items() if state == PENDING]
    if pending:
        return Purged(0, pending)
    return Purged(store.purge(asked.task_ids, asked.engine_uuids), [])


def _decoded(raws: Iterable[msgspec.Raw]) -> list[Record]:
    records = []
    for raw in raws:
        try:
            records.append(record.decode(raw))
        except msgspec.MsgspecError as error:
            logger.error("! lost a record that cannot be read: %s", error)
    return records
