"""Results that are put together from those of several tasks."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from parallelz.client.connection import Connection
from parallelz.client.detached import DetachedResult
from parallelz.client.ledger import Submission
from parallelz.client.outcomes import Failed, is_told_by_its_text
from parallelz.client.partition import is_part, items_of, join
from parallelz.client.results import Arrival, AsyncResult, ReturnWhen, Value
from parallelz.client.task_group import Place
from parallelz.protocol.inputs import How

__tracebackhide__ = is_told_by_its_text


class AsyncMapResult(AsyncResult):
    """The result of a map: as a sequence, one item for each item of the input.

    Iterating gives items as they come: with ``ordered=False`` in the order of arrival.
    """

    __slots__ = ("_chunk_lengths", "_is_ordered", "_returns_exceptions")

    def __init__(
        self,
        connection: Connection,
        tasks: Submission | list[Place],
        name: str = "",
        *,
        chunk_lengths: Sequence[int] | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        super().__init__(connection, tasks, name, is_single=False)
        self._returns_exceptions = return_exceptions
        self._chunk_lengths = chunk_lengths  # None: each task is one item
        self._is_ordered = ordered

    def __len__(self) -> int:
        if self._chunk_lengths is None:
            return len(self._places)
        return sum(self._chunk_lengths)

    def __iter__(self) -> Iterator[Value]:
        """Yield items as they come; raise what a task raised, in its place."""
        indices = range(len(self._places)) if self._is_ordered else self._as_they_end()
        values = map(self._item, indices)
        return values if self._chunk_lengths is None else itertools.chain.from_iterable(values)  # type: ignore[arg-type]

    @property
    def progress(self) -> int:
        """How many items are there."""
        if self._chunk_lengths is None:
            return super().progress
        return sum(
            length
            for length, (submission, index) in zip(
                self._chunk_lengths, self._places, strict=True
            )
            if submission.answers[index] is not None
        )

    def get(
        self,
        timeout: float | None = None,
        *,
        return_exceptions: bool = False,
        return_when: ReturnWhen | None = None,
    ) -> Value:
        """Wait and return the list of all items; see `AsyncResult.get`.

        An exception that ended a whole chunk takes the place of each of its items.
        """
        return super().get(
            timeout,
            return_exceptions=return_exceptions or self._returns_exceptions,
            return_when=return_when,
        )

    def _item(self, index: int) -> object:
        """Return a task's value when it is there: an item, or the list of a chunk's."""
        if not self._returns_exceptions:
            return self._value_or_raise(index)
        submission, place = self._places[index]
        self._wait_until(lambda: submission.answers[place] is not None)
        value = self._value(index)
        if not isinstance(value, Failed):
            return value
        if self._chunk_lengths is None:
            return value.error
        return [value.error] * self._chunk_lengths[index]

    def _input_form(self) -> How | None:
        if self._returns_exceptions:
            return None
        return "list" if self._chunk_lengths is None else "chunks"

    def _composed(self, values: list[object]) -> object:
        if self._chunk_lengths is None:
            return values
        items: list[object] = []
        for value, length in zip(values, self._chunk_lengths, strict=True):
            items.extend(value if isinstance(value, list) else [value] * length)
        return items

    def _each_value(self) -> Iterator[object]:
        values = super()._each_value()
        if self._chunk_lengths is None:
            return values
        return itertools.chain.from_iterable(
            value if isinstance(value, list) else itertools.repeat(value, length)
            for value, length in zip(values, self._chunk_lengths, strict=True)
        )

    def _detached(self) -> DetachedResult:
        lengths = None if self._chunk_lengths is None else tuple(self._chunk_lengths)
        return DetachedResult(
            tuple(self.msg_ids),
            self._name,
            "map",
            lengths,
            self._is_ordered,
            self._returns_exceptions,
        )

    def _arrivals(self) -> Iterator[Arrival]:
        """Yield tasks in the order of iteration; a chunk has several items."""
        is_chunked = self._chunk_lengths is not None

        def items(index: int) -> Iterable[Value]:
            value = self._item(index)
            return value if is_chunked else (value,)  # type: ignore[return-value]

        if self._is_ordered:
            for index, (submission, place) in enumerate(self._places):
                yield (
                    lambda s=submission, p=place: s.answers[p] is not None,  # type: ignore[misc]
                    partial(items, index),
                )
            return
        arrived = self._note_ends()
        seen: set[int] = set()
        while len(seen) < len(self._places):

            def is_there() -> bool:
                while arrived and arrived[0] in seen:
                    arrived.popleft()
                return bool(arrived)

            yield is_there, lambda: items(arrived[0])
            seen.add(arrived.popleft())

    def _as_they_end(self) -> Iterator[int]:
        """Yield the indices of the tasks, each after its end."""
        arrived = self._note_ends()
        seen: set[int] = set()
        while len(seen) < len(self._places):
            self._wait_until(lambda: bool(arrived))
            number = arrived.popleft()
            if number not in seen:
                seen.add(number)
                yield number

    def _note_ends(self) -> deque[int]:
        """Return the numbers of tasks that have ended; more are added, some of them again."""
        numbers = {place: number for number, place in enumerate(self._places)}
        arrived: deque[int] = deque()
        for submission in dict.fromkeys(submission for submission, _ in self._places):

            def note(index: int, submission: Submission = submission) -> None:
                number = numbers.get((submission, index))
                if number is not None:
                    arrived.append(number)

            submission.watch(note)
        for number, (submission, index) in enumerate(self._places):
            if submission.answers[index] is not None:
                arrived.append(number)
        return arrived


class AsyncJoinedResult(AsyncResult):
    """The result of a gather or of a parallel function: the parts of the engines as one."""

    __slots__ = ("_dist",)

    def __init__(
        self,
        connection: Connection,
        tasks: Submission | list[Place],
        name: str = "",
        *,
        dist: str = "b",
    ) -> None:
        super().__init__(connection, tasks, name, is_single=False)
        self._dist = dist

    def __iter__(self) -> Iterator[Value]:
        """Yield the items of the engines' parts, in order, as soon as the parts are there."""
        return items_of(map(self._part, range(len(self._places))), self._dist)

    def _detached(self) -> DetachedResult:
        return DetachedResult(tuple(self.msg_ids), self._name, "joined", dist=self._dist)

    def _arrivals(self) -> Iterator[Arrival]:
        """Yield everything at once: its order goes over all parts."""
        yield self.ready, lambda: iter(self)

    def _part(self, index: int) -> Iterable[Value]:
        part = self._value_or_raise(index)
        return part if is_part(part) else [part]

    def _input_form(self) -> How | None:
        return None

    def _composed(self, values: list[object]) -> object:
        return join(values, self._dist)
