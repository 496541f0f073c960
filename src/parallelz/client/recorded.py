"""Results that come from the database: of other clients' tasks, and of earlier days.

Nobody tells this client that such a task has ended, so who waits for one looks again and again:
only for what is missing, and less often the longer a look takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import msgspec

from parallelz.client.detached import DetachedResult
from parallelz.client.history import IDS_COUNT_MAX, HistorySession, chunks
from parallelz.client.ledger import Answer, Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.outcomes import Metadata
from parallelz.client.results import AsyncResult, Value
from parallelz.client.task_group import Place
from parallelz.errors import ClientClosed, ClusterError, RemoteError
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.inputs import How
from parallelz.protocol.messages import ErrorInfo, TaskEnded, TaskOptions
from parallelz.store.ended_record import ended_from
from parallelz.store.restored import Ends, FindEnds
from parallelz.store.tags import TagValue

POLL_PERIOD_S = 0.1
TROUBLE_PAUSE_S = 1.0  # if the database fails
STORE_ERROR = "StoreError"
_END = object()
PAUSE_PER_LOOK = 4.0  # it pauses for so many times as long as the last look took

TASK_KEYS = (
    "msg_id",
    "submitted",
    "name",
    "label",
    "tags",
    "options",
    "queue",
    "engine_id",
    "host",
)


class RecordedTask(Submission):
    """A task that was submitted elsewhere or earlier.

    Parameters
    ----------
    record
        Of the task, with `TASK_KEYS`.

    Attributes
    ----------
    host
        Where it ran, as far as that was known; "": not known.
    """

    __slots__ = ("_task_id", "host")

    def __init__(self, record: dict[str, object]) -> None:
        engine_id = cast("EngineId | None", record["engine_id"])
        is_direct = record["queue"] == "direct" and engine_id is not None
        super().__init__(
            SessionId(""),
            0,
            1,
            cast("float", record["submitted"] or 0.0),
            [cast("EngineId", engine_id)] if is_direct else None,
            options_from(record),
            cast("str", record["name"] or ""),
        )
        self._task_id = TaskId(str(record["msg_id"]))
        self.host = cast("str", record["host"] or "")

    def task_id(self, index: int) -> TaskId:
        """Return its id."""
        return self._task_id


def options_from(record: dict[str, object]) -> TaskOptions | None:
    """Return how a task was to be placed; None: there is nothing to say."""
    encoded = record["options"]
    if encoded is not None:
        return msgspec.msgpack.decode(cast("bytes", encoded), type=TaskOptions)
    label, tags = str(record["label"] or ""), cast("dict[str, TagValue]", record["tags"] or {})
    return TaskOptions(label=label, tags=tags) if label or tags else None


def recorded_tasks(session: HistorySession, task_ids: Sequence[TaskId]) -> list[RecordedTask]:
    """Return what stands for these tasks, of which nothing is known yet but that they exist.

    Raises
    ------
    KeyError
        If a task is not known.
    """
    records = session.records_of(task_ids, TASK_KEYS)
    made = {task_id: RecordedTask(record) for task_id, record in records.items()}
    return [made[task_id] for task_id in task_ids]


def look_up(session: HistorySession, tasks: Sequence[RecordedTask]) -> bool:
    """Give those of the tasks that have ended their answers; return whether all have."""
    by_id = {task.task_id(0): task for task in tasks}
    task_ids = list(by_id)
    is_all = True
    while task_ids:
        ends = session.ask_history_for(Ends, "ends", FindEnds(task_ids))
        pending = set(ends.pending)
        is_all = is_all and not pending
        for record in ends.ended:
            ended, buffers = ended_from(record)
            received_s = cast("float", record["received"] or 0.0)
            engine_uuid = cast("str", record["engine_uuid"] or "")
            answer = Answer(ended, buffers, received_s, engine_uuid)
            by_id[ended.task_id].take(0, answer)
        for task_id in task_ids[: ends.looked_up_count]:
            if task_id not in pending:
                by_id[task_id].take(0, _forgotten(task_id))
        task_ids = task_ids[ends.looked_up_count :]
    return is_all


def _forgotten(task_id: TaskId) -> Answer:
    """Return the answer for a task that was recorded and is not any more."""
    error = ErrorInfo("TaskLost", f"the record of {task_id} was purged while it was waited for")
    ended = TaskEnded(task_id, "lost", EngineId(-1), error=error)
    return Answer(ended, (), time.time(), "")


class _FromDatabase(AsyncResult):
    """A result that looks into the database for those of its tasks that are `RecordedTask`."""

    _looks_for_tasks = True

    def _look_for(self, session: HistorySession) -> None:
        self._session = session
        tasks = (submission for submission, _ in self._places)
        self._missing = [*dict.fromkeys(t for t in tasks if isinstance(t, RecordedTask))]

    def ready(self) -> bool:
        """Whether every task has ended; asks the database if that is not known."""
        if super().ready():
            return True
        self._look(everything=False)
        return super().ready()

    @property
    def progress(self) -> int:
        """How many results are there; asks the database for those that were not."""
        self._look(everything=True)
        return super().progress

    def _wait_until(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not is_done():
            begin_s = time.monotonic()
            least_s = POLL_PERIOD_S
            try:
                self._look(everything=False)
            except RemoteError as error:
                if error.ename != STORE_ERROR:
                    raise
                least_s = TROUBLE_PAUSE_S  # it is mended some time, and its user was told
            now_s = time.monotonic()
            pause_s = max(least_s, PAUSE_PER_LOOK * (now_s - begin_s))
            if until_s is not None:
                pause_s = min(pause_s, until_s - now_s)
            if not self._connection.wait(is_done, max(pause_s, 0.0)) and pause_s <= 0:
                return False
        return True

    def _look(self, *, everything: bool) -> None:
        """Take in results that are there by now.

        Parameters
        ----------
        everything
            Look for all, and not only up to the first that are still missing: who waits for
            all of them, or for one after the other, has no use for more.
        """
        self._missing = [task for task in self._missing if task.pending_count]
        for some in chunks(self._missing, IDS_COUNT_MAX):
            if not look_up(self._session, some) and not everything:
                return

    def _when_done(self, function: Callable[[], object]) -> None:
        if self.ready():
            function()
            return

        def wait_and_call() -> None:
            try:
                self.wait()
            except (ClientClosed, ClusterError):
                return  # as with tasks of this client: nobody will know
            function()

        threading.Thread(target=wait_and_call, name="parallelz-looks", daemon=True).start()

    def _all_metadata(self) -> list[Metadata]:
        everything = super()._all_metadata()
        for metadata, (task, _) in zip(everything, self._places, strict=True):
            if isinstance(task, RecordedTask) and task.host:
                metadata["host"] = task.host
        return everything

    def _regrouped(self, places: list[Place], *, is_single: bool) -> AsyncResult:
        return AsyncHubResult(self._session, places, self._name, is_single=is_single)

    def _input_form(self) -> How | None:
        return None

    async def _streamed(self) -> AsyncIterator[Value]:
        import asyncio  # slow to import; who awaits has it already

        # It blocks in a thread: nobody tells when something is there.
        values = iter(self)
        while (value := await asyncio.to_thread(next, values, _END)) is not _END:
            yield value

    def __aiter__(self) -> AsyncIterator[Value]:
        """Yield what iterating does, without blocking the event loop."""
        iter(self)  # raises if it cannot be iterated
        return self._streamed()


class AsyncHubResult(_FromDatabase):
    """The result of tasks whose answers come from the database, as those of other clients.

    Parameters
    ----------
    places
        Of tasks of this client and of `RecordedTask`.
    """

    def __init__(
        self,
        session: HistorySession,
        places: list[Place],
        name: str = "get_result",
        *,
        is_single: bool,
    ) -> None:
        super().__init__(session.connection, places, name, is_single=is_single)
        self._look_for(session)


class AsyncHubMapResult(_FromDatabase, AsyncMapResult):
    """The result of a map that was submitted elsewhere or earlier."""

    def __init__(
        self, session: HistorySession, places: list[Place], detached: DetachedResult
    ) -> None:
        AsyncMapResult.__init__(
            self,
            session.connection,
            places,
            detached.name,
            chunk_lengths=detached.chunk_lengths,
            ordered=detached.is_ordered,
            return_exceptions=detached.returns_exceptions,
        )
        self._look_for(session)


class AsyncHubJoinedResult(_FromDatabase, AsyncJoinedResult):
    """The joined result of a call that was submitted elsewhere or earlier."""

    def __init__(
        self, session: HistorySession, places: list[Place], detached: DetachedResult
    ) -> None:
        AsyncJoinedResult.__init__(
            self, session.connection, places, detached.name, dist=detached.dist
        )
        self._look_for(session)


def taken_up(
    session: HistorySession, places: list[Place], detached: DetachedResult
) -> AsyncResult:
    """Return a result of these tasks, put together like the one that was pickled."""
    match detached.shape:
        case "map":
            return AsyncHubMapResult(session, places, detached)
        case "joined":
            return AsyncHubJoinedResult(session, places, detached)
        case "single" | "list":
            is_single = detached.shape == "single"
            return AsyncHubResult(session, places, detached.name, is_single=is_single)
