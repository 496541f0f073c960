"""A map that is read item by item, as far ahead as it may be."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Literal, Self, SupportsIndex

from parallelz.client.connection import Connection
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncMapResult
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.partition import check_chunksize
from parallelz.client.results import Value
from parallelz.ids import TaskId
from parallelz.option_values import integer_of
from parallelz.protocol.payload import BOUND, BOUND_CHUNK, CHUNK, PLAIN, Call

__tracebackhide__ = is_told_by_its_text

OUTSTANDING_PER_ENGINE = 4  # tasks of an imap: one runs, the others are on their way

MaxOutstanding = SupportsIndex | Literal["auto"]

Chunk = tuple[tuple[object, ...], ...]
"""The arguments of each of the items that one task has."""


class LazyMapIterator(Iterator[Value]):
    """Gives the results of an `imap`, and reads its input while they are taken.

    What a call raised is raised in its place, and the next result can be taken after that. An
    exception of the input, or an item that cannot be sent, comes after the results of what was
    read before it, and is the end. Not for several threads at once. As a ``with`` block it ends
    with `close`.

    Parameters
    ----------
    submit
        Submits one task.
    chunks
        The input.
    limit
        Tells how many tasks may be on their way or unread.
    abort
        Gives up tasks that have not started.
    """

    def __init__(
        self,
        connection: Connection,
        submit: Callable[[Chunk], Submission],
        chunks: Iterator[Chunk],
        limit: Callable[[], float],
        abort: Callable[[list[TaskId]], None],
        *,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self._connection = connection
        self._submit = submit
        self._chunks: Iterator[Chunk] | None = chunks  # None: nothing is read any more
        self._limit = limit
        self._abort = abort
        self._is_ordered = ordered
        self._returns_exceptions = return_exceptions
        # By number, with the count of its items. What watches a submission must not hold it:
        # its result would then live until cycles are looked for.
        self._pending: OrderedDict[int, tuple[Submission, int]] = OrderedDict()
        self._arrived: deque[int] = deque()  # those that ended, if not ordered
        self._items: Iterator[Value] = iter(())  # of the task whose items are being given
        self._error: Exception | None = None  # for when nothing is pending any more
        self._read_ahead()
        if not self._pending:
            self._raise_error()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Value:
        """Return the next result; waits for it."""
        for item in self._items:
            return item
        self._read_ahead()
        while self._pending:
            self._items = iter(self._next_result())
            for item in self._items:
                return item
        self._raise_error()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def cancel(self) -> None:
        """Read no more of the input; the results of what was read still come."""
        self._chunks = None

    def close(self) -> None:
        """Read no more, give up what has not started, and give no more results."""
        self.cancel()
        task_ids = [submission.task_id(0) for submission, _ in self._pending.values()]
        self._pending.clear()
        self._items = iter(())
        self._error = None
        if task_ids and not self._connection.is_closed:
            self._abort(task_ids)

    # -- the input -------------------------------------------------------------------------

    def _read_ahead(self) -> None:
        """Read at least one item if it may, and more as long as there is nothing to give.

        Who reads a slow input gets what is there before the next item is waited for.
        """
        limit = self._limit()
        while self._chunks is not None and len(self._pending) < limit:
            self._read(self._chunks)
            if limit < math.inf and self._has_next():
                return

    def _read(self, chunks: Iterator[Chunk]) -> None:
        try:
            chunk = next(chunks, None)
            if chunk is None:
                self._chunks = None
                return
            submission = self._submit(chunk)
        except Exception as error:  # noqa: BLE001 - the input is the user's
            self._error, self._chunks = error, None
            return
        number = submission.first_number
        self._pending[number] = (submission, len(chunk))
        if not self._is_ordered:
            submission.watch(lambda _: self._arrived.append(number))
            if submission.answers[0] is not None:
                self._arrived.append(number)  # perhaps a second time, which is left

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- the results -----------------------------------------------------------------------

    def _has_next(self) -> bool:
        """Whether the next result is there."""
        if not self._is_ordered:
            while self._arrived and self._arrived[0] not in self._pending:
                self._arrived.popleft()
            return bool(self._arrived)
        return next((task.answers[0] is not None for task, _ in self._pending.values()), False)

    def _next_result(self) -> AsyncMapResult:
        self._connection.wait(self._has_next)  # if it is interrupted, nothing was taken yet
        number = next(iter(self._pending)) if self._is_ordered else self._arrived.popleft()
        submission, count = self._pending.pop(number)
        return AsyncMapResult(
            self._connection,
            submission,
            chunk_lengths=None if count == 1 else [count],
            return_exceptions=self._returns_exceptions,
        )


def limit_of(value: MaxOutstanding, count_engines: Callable[[], int]) -> Callable[[], float]:
    """Return what tells how many tasks may be on their way, from what the user said.

    Raises
    ------
    ValueError
        If it is neither ``"auto"`` nor a count.
    """
    if value == "auto":
        return lambda: OUTSTANDING_PER_ENGINE * max(1, count_engines())
    limit = integer_of(value)
    if limit is None or limit < 0:
        raise ValueError(
            f"max_outstanding must be 'auto', a count, or 0 for no limit, not {value!r}"
        )
    return lambda: limit or math.inf


def chunks_of(
    items: Iterable[tuple[object, ...]], chunksize: SupportsIndex | None
) -> Iterator[Chunk]:
    """Cut the input into tasks; what is read before it raises is a task as well."""
    return _chunks_of(items, 1 if chunksize is None else check_chunksize(chunksize))


def _chunks_of(items: Iterable[tuple[object, ...]], size: int) -> Iterator[Chunk]:
    chunk: list[tuple[object, ...]] = []
    iterator = iter(items)
    while True:
        try:
            chunk.append(next(iterator))
        except StopIteration:
            break
        except Exception:
            if chunk:
                yield tuple(chunk)
            raise
        if len(chunk) == size:
            yield tuple(chunk)
            chunk = []
    if chunk:
        yield tuple(chunk)


def call_for(chunk: Chunk, *, is_bound: bool, return_exceptions: bool) -> Call:
    """Return what the task of a chunk is pickled from."""
    if len(chunk) == 1:
        return (BOUND if is_bound else PLAIN, chunk[0], {})
    kwargs: dict[str, object] = {"return_exceptions": True} if return_exceptions else {}
    return (BOUND_CHUNK if is_bound else CHUNK, tuple(zip(*chunk, strict=True)), kwargs)
