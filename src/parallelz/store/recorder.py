"""What the recorder does with what it is told and asked; how it is told is another's business.

Records of one call become one transaction, except that a question is answered after all that
came before it: a client always reads its own writes.

A database that fails (locked, full, away) stops nobody. What it cannot take is kept, in order,
and tried again each `RETRY_PERIOD_S`; a `StoreTrouble` says when that begins and when it is
over, and questions are answered with the error meanwhile. What no database could take is found,
dropped alone, and counted.

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
functions  `NameFunctions`     list of `RestoredFunction`, unknown digests left out
ends       `FindEnds`          `Ends`
restore    `RestoreTasks`      `Restored`
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

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import msgspec

from parallelz.ids import Digest, SessionId, TaskId
from parallelz.protocol.messages import (
    AskHistory,
    ErrorInfo,
    Reply,
    StoreRecords,
    StoreTrouble,
    TaskOptions,
)
from parallelz.store import record
from parallelz.store.folding import ENTRY_BYTES_MAX, FOLDED_COUNT_MAX, Folding
from parallelz.store.interface import (
    NO_LIMITS,
    USUAL_ORDER,
    DamageError,
    Limits,
    RecordError,
    Run,
    Store,
    StoreError,
)
from parallelz.store.query import QueryError
from parallelz.store.record import Record
from parallelz.store.restored import (
    FindEnds,
    NameFunctions,
    Restored,
    RestoredFunction,
    RestoredTask,
    RestoreTasks,
)
from parallelz.store.rows import PENDING

logger = logging.getLogger(__name__)

RETRY_PERIOD_S = 1.0
CULL_PERIOD_S = 10.0
WRITTEN_COUNT_MAX = 20_000  # records of one transaction
WRITTEN_BYTES_MAX = 64 * 1024 * 1024
INLINE_BYTES_MAX = 16 * 1024

Answer = tuple[Reply | StoreTrouble, tuple[bytes, ...]]  # with the frames behind it


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
    run
        What this life of the cluster is called in the database.
    limits
        How much is kept of what has ended.
    wall_clock
        The Unix time in s.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        run: Run,
        limits: Limits = NO_LIMITS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_store = open_store
        self._run = run
        self._limits = limits
        self._wall_clock = wall_clock
        self._store: Store | None = None
        self._kept: list[msgspec.Raw] = []  # not written
        self._folding = Folding()
        self._trouble: str | None = None  # what is wrong with the database now
        self._retry_s = float("-inf")
        self._cull_s = float("-inf")
        self._lost_count = 0
        self._answers: list[Answer] = []  # of the call that goes on

    @property
    def is_behind(self) -> bool:
        """Whether anything it was told is not in the database."""
        return bool(self._kept)

    def next_deadline_s(self) -> float:
        """Return when `handle` is to be called even if nothing has come."""
        if self._trouble is not None:
            return self._retry_s
        return min(self._cull_s, self._folding.due_s())

    def handle(
        self, messages: Iterable[StoreRecords | AskHistory], now_s: float
    ) -> list[Answer]:
        """Take in messages, in order; return the answers to questions among them.

        On return all records are in the database, unless it `is_behind`. Of trouble with the
        database the answers tell as well, once when it begins and once when it is over.

        Parameters
        ----------
        now_s
            By any clock that only goes forward.
        """
        for message in messages:
            if isinstance(message, StoreRecords):
                self._kept += message.records
            else:
                self._write(now_s, as_rows=True)
                self._answers.append(self._answer(message, now_s))
        self._write(now_s)
        self._cull(now_s)
        answers, self._answers = self._answers, []
        return answers

    def finish(self) -> None:
        """Take in that the cluster stops on purpose, and with it what has not ended."""
        if self._store is None:
            return
        try:
            self._fold_all(self._store)
            count = self._store.end_run(self._wall_clock())
        except StoreError as error:
            logger.error("! what had not ended is still called pending: %s", error)
        else:
            logger.info("= %d tasks had not ended", count)

    def close(self) -> None:
        """Close the database, with all as rows unless that fails now."""
        if self._store is not None:
            with contextlib.suppress(StoreError):
                self._fold_all(self._store)
            with contextlib.suppress(StoreError):
                self._store.close()
            self._store = None

    # -- keeping ---------------------------------------------------------------------------

    def _write(self, now_s: float, *, as_rows: bool = False) -> None:
        """Write all that is kept, or note why that cannot be.

        Parameters
        ----------
        as_rows
            Whether it must be found from now on; else a journal will do.
        """
        if self._trouble is not None and now_s < self._retry_s:
            return
        try:
            if self._store is None:
                self._store = self._opened()
            if self._trouble is not None:
                self._store.apply([])  # whether it works at all
            while self._kept:
                count = _fitting_count(self._kept)
                self._keep(self._store, self._kept[:count], now_s)
                del self._kept[:count]
            if as_rows:
                self._fold_all(self._store)
            elif now_s >= self._folding.due_s():
                self._fold(self._store)
        except StoreError as error:
            self._fail(error, now_s)
        else:
            self._recover()

    def _keep(self, store: Store, raws: Sequence[msgspec.Raw], now_s: float) -> None:
        size = sum(map(len, raws))
        if store.has_journal and size <= ENTRY_BYTES_MAX:
            store.append(raws)
            self._folding.appended(len(raws), size, now_s)
            return
        self._fold_all(store)  # it came before
        bad: list[Exception] = []
        _apply(store.apply, _decoded(raws, bad), bad)
        self._lose(bad)

    def _fold_all(self, store: Store) -> None:
        while self._folding and self._fold(store):
            pass

    def _fold(self, store: Store) -> bool:
        """Turn the front of the journal into rows; return whether there was one."""
        journaled = store.journaled(FOLDED_COUNT_MAX)
        if journaled is None:
            self._folding.clear()
            return False
        bad: list[Exception] = []
        records = _decoded(journaled.records, bad)
        try:
            store.fold(journaled, records)
        except RecordError:
            _apply(partial(store.fold, journaled._replace(last=0)), records, bad)
            store.fold(journaled, [])
        self._folding.folded(journaled.entry_count)
        self._lose(bad)
        return True

    def _opened(self) -> Store:
        store = self._open_store()
        self._folding.clear()
        try:
            while self._fold(store):  # of a recorder before us
                pass
            count = store.begin_run(self._run, self._wall_clock())
        except StoreError:
            store.close()
            raise
        if count:
            logger.warning("! %d tasks of earlier runs had not ended", count)
        return store

    def _lose(self, bad: list[Exception]) -> None:
        if not bad:
            return
        text = f"records that cannot be written, such as one for this reason: {bad[0]}"
        logger.error("! lost %d %s", len(bad), text)
        self._lost_count += len(bad)
        if self._trouble is None:
            self._begin_trouble(text)

    def _fail(self, error: StoreError, now_s: float) -> None:
        text = str(error)
        if text != self._trouble:
            logger.error("! nothing is recorded until this is mended: %s", text)
        is_mended = isinstance(error, DamageError) and self._trouble is None
        if self._trouble is None:
            self._begin_trouble(text)
        self._trouble = text
        self._retry_s = now_s if is_mended else now_s + RETRY_PERIOD_S

    def _begin_trouble(self, text: str) -> None:
        self._trouble = text
        self._answers.append((StoreTrouble(text, 0), ()))

    def _recover(self) -> None:
        if self._trouble is None:
            return
        logger.warning("= the database works again; %d records were lost", self._lost_count)
        self._answers.append((StoreTrouble("", self._lost_count), ()))
        self._trouble = None
        self._lost_count = 0

    def _cull(self, now_s: float) -> None:
        """Forget what is beyond the limits, a little at a time."""
        if self._store is None or self._trouble is not None or now_s < self._cull_s:
            return
        if self._limits == NO_LIMITS:
            self._cull_s = float("inf")
            return
        try:
            count = self._store.cull(self._limits, self._wall_clock())
        except StoreError as error:
            self._fail(error, now_s)
        else:
            self._cull_s = now_s if count else now_s + CULL_PERIOD_S

    # -- answering -------------------------------------------------------------------------

    def _answer(self, message: AskHistory, now_s: float) -> Answer:
        number = message.request_id
        if self._store is None or self._trouble is not None:
            return Reply(number, error=ErrorInfo("StoreError", str(self._trouble))), ()
        try:
            answer = msgspec.msgpack.encode(self._look_up(self._store, message))
        except (QueryError, msgspec.MsgspecError) as error:
            return Reply(number, error=ErrorInfo("QueryError", str(error))), ()
        except StoreError as error:
            if isinstance(error, DamageError):
                self._fail(error, now_s)
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
            case "functions":
                named = msgspec.msgpack.decode(data, type=NameFunctions)
                return _restored_functions(store, named.digests)
            case "ends":
                wanted = msgspec.msgpack.decode(data, type=FindEnds)
                return store.ends(wanted.task_ids, wanted.bytes_max)
            case "restore":
                return _restored(store, msgspec.msgpack.decode(data, type=RestoreTasks))


def _purge(store: Store, asked: PurgeTasks) -> Purged:
    status = store.status(asked.task_ids or [])
    pending = [TaskId(task_id) for task_id, state in status.items() if state == PENDING]
    if pending:
        return Purged(0, pending)
    return Purged(store.purge(asked.task_ids, asked.engine_uuids), [])


def _restored(store: Store, asked: RestoreTasks) -> Restored:
    records, after = store.pending(asked.after, asked.bytes_max)
    tasks = [_restored_task(record) for record in records]
    digests = list(dict.fromkeys(task.digest for task in tasks))
    page = Restored(tasks, _restored_functions(store, digests), after)
    if not asked.after:
        page.engines, page.engine_count = store.engines()
    return page


def _restored_task(record: dict[str, object]) -> RestoredTask:
    values = cast("dict[str, Any]", record)
    options, frames = values["options"], values["payload_frames"]
    return RestoredTask(
        values["msg_id"],
        values["client_uuid"],
        values["engine_id"] if values["queue"] == "direct" else None,
        Digest(values["digest"] or b""),
        values["submitted"] or 0.0,
        values["label"] or "",
        None if options is None else msgspec.msgpack.decode(options, type=TaskOptions),
        values["payload"] or b"",
        [] if frames is None else msgspec.msgpack.decode(frames),
        values["payload"] is not None,
    )


def _restored_functions(store: Store, digests: Sequence[Digest]) -> list[RestoredFunction]:
    return [
        RestoredFunction(
            function.digest,
            function.name,
            function.data,
            msgspec.msgpack.decode(function.frames) if function.frames else [],
        )
        for function in store.functions(digests)
    ]


def _fitting_count(raws: Sequence[msgspec.Raw]) -> int:
    """Return how many of these, one at least, are written in one transaction."""
    count = size = 0
    for raw in raws[:WRITTEN_COUNT_MAX]:
        size += len(raw)
        if count and size > WRITTEN_BYTES_MAX:
            break
        count += 1
    return count


def _decoded(raws: Iterable[msgspec.Raw], bad: list[Exception]) -> list[Record]:
    """Return these records, and why others cannot be read."""
    records = []
    for raw in raws:
        try:
            records.append(record.decode(raw))
        except msgspec.MsgspecError as error:
            bad.append(error)
    return records


def _apply(
    write: Callable[[Sequence[Record]], None], records: Sequence[Record], bad: list[Exception]
) -> None:
    """Write records but for those that no database could hold: halving leads to these."""
    try:
        write(records)
    except RecordError as error:
        if len(records) < 2:
            bad.append(error)
            return
        middle = len(records) // 2
        _apply(write, records[:middle], bad)
        _apply(write, records[middle:], bad)
