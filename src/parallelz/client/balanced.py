"""The view that lets the controller choose: one engine runs each call."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Literal

from parallelz.client.connection import BOUND, BOUND_CHUNK, CHUNK, PLAIN, Call, Function
from parallelz.client.dependencies import depends_on
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.partition import Sliceable, chunked, partition
from parallelz.client.results import AsyncResult, Value
from parallelz.client.session import Session
from parallelz.client.view import View
from parallelz.ids import EngineId
from parallelz.protocol.functions import Definition
from parallelz.protocol.messages import TaskOptions

OUTSTANDING_PER_ENGINE = 4  # items of an imap: one runs, the others are on their way


class LoadBalancedView(View):
    """Whichever engine is free, of all or of some.

    Attributes
    ----------
    after, follow
        Tasks that must have ended first; tasks on whose engine to run. A msg_id, an
        AsyncResult, a `Dependency`, or a collection of them; None: no such.
    timeout
        Seconds that a task may wait to be placed; None or 0: for ever.
    retries
        How often a task that failed is run again.
    """

    flag_names: ClassVar[tuple[str, ...]] = (
        *View.flag_names,
        "after",
        "follow",
        "timeout",
        "retries",
    )

    def __init__(self, session: Session, targets: Sequence[int] | None) -> None:
        super().__init__(session, targets)
        self.after: object = None
        self.follow: object = None
        self.timeout: float | None = None
        self.retries = 0

    def _is_balanced(self) -> bool:
        return True

    def _options(self) -> TaskOptions | None:
        """Return the flags as they are now; None: nothing special."""
        unplaced = self.after is None and self.follow is None and self._targets is None
        if unplaced and not (self.retries or self.timeout or self.label):
            return None
        if not isinstance(self.retries, int) or self.retries < 0:
            raise TypeError(f"retries must be an int, 0 or more, not {self.retries!r}")
        if self.timeout is not None and not isinstance(self.timeout, int | float):
            raise TypeError(f"timeout must be a number of seconds, not {self.timeout!r}")
        if self.timeout is not None and self.timeout < 0:
            raise ValueError(f"timeout must be 0 (never) or more, not {self.timeout}")
        engine_ids = None
        if self._targets is not None:
            assert not isinstance(self._targets, int | str)
            engine_ids = [EngineId(target) for target in self._targets]
        return TaskOptions(
            depends_on(self.after),
            depends_on(self.follow),
            engine_ids,
            self.retries,
            float(self.timeout or 0.0),
            self.label,
        )

    def _submit(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        bound: bool,
        name: str = "",
    ) -> AsyncResult:
        submission = self._connection.submit_task(
            function, (BOUND if bound else PLAIN, args, kwargs), self._options()
        )
        self._note(submission)
        return AsyncResult(self._connection, submission, name, is_single=True)

    def _submit_map(self, function: Function, calls: Sequence[Call]) -> Submission:
        if calls:
            submission = self._connection.submit_map(function, calls, self._options())
            self._note(submission)
            return submission
        return Submission(self._connection.session_id, 0, 0, time.time())

    def _call_each(
        self, function: Definition, arguments: Sequence[tuple[object, ...]]
    ) -> list[object]:
        submission = self._submit_map(function, [(PLAIN, args, {}) for args in arguments])
        result = AsyncMapResult(self._connection, submission).get()
        assert isinstance(result, list)
        return result

    # -- maps ------------------------------------------------------------------------------

    def map_async(
        self,
        f: Callable[..., object],
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Call `f` on each item, `chunksize` items per task; without waiting. See `map`."""
        if not sequences:
            raise ValueError("map needs at least one sequence")
        size = 1 if chunksize is None else chunksize
        if size < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        is_bound = self.bound if bound is None else bound
        items = zip(*sequences, strict=False)
        lengths: list[int] | None = None
        calls: list[Call]
        if size == 1:
            kind = BOUND if is_bound else PLAIN
            calls = [(kind, item, {}) for item in items]
        else:
            kind = BOUND_CHUNK if is_bound else CHUNK
            kwargs: dict[str, object] = {"return_exceptions": True} if return_exceptions else {}
            chunks = list(chunked(items, size))
            lengths = [len(chunk) for chunk in chunks]
            calls = [(kind, tuple(zip(*chunk, strict=True)), kwargs) for chunk in chunks]
        return AsyncMapResult(
            self._connection,
            self._submit_map(f, calls),
            chunk_lengths=lengths,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: int | None = None,
    ) -> AsyncJoinedResult:
        """Call `f` on parts of the sequences, None: one per engine; the results are joined."""
        length = len(sequences[0])
        count = -(-length // chunksize) if chunksize else min(len(self), length)
        parts = [partition(sequence, max(1, count), dist) for sequence in sequences]
        kind = BOUND if self.bound else PLAIN
        calls: list[Call] = [(kind, args, {}) for args in zip(*parts, strict=True)]
        submission = self._submit_map(f, calls)
        return AsyncJoinedResult(self._connection, submission, dist=dist)

    def imap(
        self,
        f: Callable[..., object],
        /,
        *sequences: Iterable[object],
        ordered: bool = True,
        return_exceptions: bool = False,
        max_outstanding: int | Literal["auto"] = "auto",
    ) -> Iterator[Value]:
        """Call `f` on each item; return an iterator over the results, as they come.

        Parameters
        ----------
        *sequences
            May be endless: they are read as the results are.
        ordered
            Whether results come in the order of the input, or as they are ready.
        return_exceptions
            Give exceptions in place of results, instead of raising.
        max_outstanding
            How many items may be on their way or unread. ``"auto"``: a few per engine. 0: all
            are read at once.
        """
        limit = max_outstanding
        if limit == "auto":
            limit = OUTSTANDING_PER_ENGINE * max(1, len(self))
        if limit == 0:
            return super().imap(
                f, *sequences, ordered=ordered, return_exceptions=return_exceptions
            )
        items = zip(*sequences, strict=False)
        return self._imap(f, items, limit, ordered=ordered, tolerant=return_exceptions)

    def _imap(
        self,
        f: Callable[..., object],
        items: Iterator[tuple[object, ...]],
        limit: int,
        *,
        ordered: bool,
        tolerant: bool,
    ) -> Iterator[Value]:
        pending: deque[AsyncResult] = deque()
        is_over = False
        while True:
            while not is_over and len(pending) < limit:
                item = next(items, None)
                if item is None:
                    is_over = True
                else:
                    pending.append(self._submit(f, item, {}, bound=self.bound))
            if not pending:
                return
            if not ordered:
                self._connection.wait(lambda: any(each.ready() for each in pending))
                place = next(n for n, each in enumerate(pending) if each.ready())
                pending.rotate(-place)
            result = pending.popleft()
            yield result.get(return_exceptions=tolerant)
