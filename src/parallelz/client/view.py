"""What all views have in common: flags, the family of `apply`, and control of their engines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, SupportsIndex

from parallelz.client.cells import RunsCells
from parallelz.client.definitions import Function, UserFunction
from parallelz.client.executor import ViewExecutor
from parallelz.client.flags import checked_label, checked_tags
from parallelz.client.history import ALL
from parallelz.client.imap import LazyMapIterator, MaxOutstanding, call_for, chunks_of, limit_of
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.partition import Sliceable
from parallelz.client.past_session import PastSession, ResultIds
from parallelz.client.reduction import reduced
from parallelz.client.remote import P, ParallelFunction, R, RemoteFunction, parallel, remote
from parallelz.client.results import AsyncResult, Value
from parallelz.client.session import Jobs, Targets
from parallelz.client.task_group import CANCEL_GRACE_S
from parallelz.ids import TaskId, task_id_of
from parallelz.protocol.functions import Definition, named_definition
from parallelz.protocol.payload import Call
from parallelz.store.tags import TagValue

__tracebackhide__ = is_told_by_its_text


class View(RunsCells):
    """A way to address engines, and how to call them.

    Attributes
    ----------
    block
        Whether calls wait for their results, for those whose name does not say. As the client
        says, until it is set; None: again as the client says.
    bound
        Whether functions get the engine's namespace as their first argument.
    track
        Kept for those who set it; `AsyncResult.sent` is right without.
    """

    flag_names: ClassVar[tuple[str, ...]] = ("block", "bound", "track", "label", "tags")

    _session: PastSession

    def __init__(self, session: PastSession, targets: int | str | Sequence[int] | None) -> None:
        self._session = session
        self._connection = session.connection
        self._targets = targets
        self._runs: list[list[int]] = []  # first number and the end of each run of ours
        self.bound = False
        self.track = False
        self.label = ""
        self.tags = {}

    @property
    def label(self) -> str:
        """A text that is kept with the tasks, in the history too; "": none."""
        return self._label

    @label.setter
    def label(self, value: str) -> None:
        self._label = checked_label(value)

    @property
    def tags(self) -> Mapping[str, TagValue]:
        """A small dictionary of texts and numbers that is kept with the tasks.

        Queries of the history find them by ``{"tags.NAME": value}``. Names are letters,
        digits, - and _.
        """
        return self._tags

    @tags.setter
    def tags(self, value: Mapping[str, TagValue]) -> None:
        self._tags = checked_tags(value)

    @property
    def targets(self) -> int | str | Sequence[int] | None:
        """The engines it is for; set for good when the view is made."""
        return list(self._targets) if isinstance(self._targets, list) else self._targets

    @targets.setter
    def targets(self, value: object) -> None:
        raise AttributeError(
            "Cannot set View `targets` after construction! Make another view:"
            f" client.view({value!r}, balanced={self.balanced})"
        )

    @property
    def balanced(self) -> bool:
        """Whether one engine runs each call, or all of them do."""
        return self._is_balanced()

    @balanced.setter
    def balanced(self, value: object) -> None:
        raise AttributeError(
            "Cannot set View `balanced` after construction! Make another view:"
            f" client.view({self.targets!r}, balanced={value!r})"
        )

    @abstractmethod
    def _is_balanced(self) -> bool: ...

    @property
    def client(self) -> PastSession:
        """The client that made this view."""
        return self._session

    def __repr__(self) -> str:
        text = str(self._targets).replace(" ", "")
        return f"<{type(self).__name__} {text if len(text) <= 16 else text[:12] + '...]'}>"

    def __len__(self) -> int:
        if isinstance(self._targets, int):
            return 1
        if self._targets is None or isinstance(self._targets, str):
            return len(self._session)
        return len(self._targets)

    # -- calls -----------------------------------------------------------------------------

    def apply(self, f: UserFunction, /, *args: object, **kwargs: object) -> Value:
        """Call ``f(*args, **kwargs)`` there; `block` and `bound` are those of the view.

        Returns
        -------
        object
            The result (see `AsyncResult.get`) if `block`, else the AsyncResult, at once.
        """
        result = self._submit(f, args, kwargs, bound=self.bound)
        return result.get() if self.block else result

    def apply_async(self, f: UserFunction, /, *args: object, **kwargs: object) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` there, without waiting."""
        return self._submit(f, args, kwargs, bound=False)

    def apply_sync(self, f: UserFunction, /, *args: object, **kwargs: object) -> Value:
        """Call ``f(*args, **kwargs)`` there and return the result."""
        return self._submit(f, args, kwargs, bound=False).get()

    def apply_async_bound(
        self, f: UserFunction, /, *args: object, **kwargs: object
    ) -> AsyncResult:
        """Call ``f(namespace, *args, **kwargs)`` there, without waiting."""
        return self._submit(f, args, kwargs, bound=True)

    def apply_sync_bound(self, f: UserFunction, /, *args: object, **kwargs: object) -> Value:
        """Call ``f(namespace, *args, **kwargs)`` there and return the result."""
        return self._submit(f, args, kwargs, bound=True).get()

    # -- maps ------------------------------------------------------------------------------

    @abstractmethod
    def map_async(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Call `f` on each item, without waiting; see `map`."""

    @abstractmethod
    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: SupportsIndex | None = None,
    ) -> AsyncJoinedResult:
        """Call `f` on parts of sequences; the result is what it returns for all, joined."""

    def map(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        block: bool | None = None,
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        max_outstanding: MaxOutstanding | None = None,
    ) -> Value:
        """Call `f` on each item of a sequence, or on each group of items of several.

        Parameters
        ----------
        *sequences
            At least one. As with ``zip``, the shortest ends it.
        block, bound
            None: those of the view.
        chunksize
            Items per task. None: 1 where calls are balanced; a DirectView always gives each
            engine one part.
        ordered
            Whether iterating over the result gives items in the order of the input, or as
            they come.
        return_exceptions
            Put exceptions where results would be, instead of raising.
        max_outstanding
            None: all tasks are submitted at once. Else the input is read as results come, as
            `imap` does, and the first exception ends it; only if it blocks.

        Returns
        -------
        object
            A list if it blocks, else an AsyncMapResult.
        """
        how: dict[str, Value] = {
            "bound": bound,
            "chunksize": chunksize,
            "ordered": ordered,
            "return_exceptions": return_exceptions,
        }
        is_blocking = self._is_blocking(block)
        if max_outstanding is None:
            result = self.map_async(f, *sequences, **how)
            return result.get() if is_blocking else result
        if not is_blocking:
            raise ValueError(
                "max_outstanding is for maps that block; imap gives results as they come"
            )
        with self.imap(f, *sequences, max_outstanding=max_outstanding, **how) as results:
            return list(results)

    def map_sync(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        max_outstanding: MaxOutstanding | None = None,
    ) -> list[Value]:
        """Call `f` on each item and return the list of results; see `map`."""
        result = self.map(
            f,
            *sequences,
            block=True,
            bound=bound,
            chunksize=chunksize,
            ordered=ordered,
            return_exceptions=return_exceptions,
            max_outstanding=max_outstanding,
        )
        assert isinstance(result, list)
        return result

    def imap(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        max_outstanding: MaxOutstanding = "auto",
    ) -> LazyMapIterator:
        """Call `f` on each item; return an iterator over the results, as they come.

        Parameters
        ----------
        *sequences
            May be endless: they are read as the results are, in this thread.
        bound
            None: as the view says.
        chunksize
            Items per task; None: 1. Those of a DirectView go to its engines in turn.
        ordered
            Whether results come in the order of the input, or as they are ready.
        return_exceptions
            Give exceptions in place of results, instead of raising.
        max_outstanding
            How many tasks may be on their way or unread. ``"auto"``: a few per engine. 0: all
            are submitted at once.
        """
        if not sequences:
            raise ValueError("imap needs at least one sequence")
        is_bound = self.bound if bound is None else bound
        submit = self._submitter()
        return LazyMapIterator(
            self._connection,
            lambda chunk: submit(
                f, call_for(chunk, is_bound=is_bound, return_exceptions=return_exceptions)
            ),
            chunks_of(zip(*sequences, strict=False), chunksize),
            limit_of(max_outstanding, self.__len__),
            self._session.abort,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    @abstractmethod
    def _submitter(self) -> Callable[[Function, Call], Submission]:
        """Return what submits one task after the other, with the flags as they are now."""

    def reduce(self, f: Callable[[R, R], R], sequence: Iterable[R], /, *initial: R) -> R:
        """Combine all items by `f`, as `functools.reduce` does; waits.

        Each engine combines a run of neighbours, then the results are combined, on the
        engines as long as there are many, the last few here. The order is kept; `f` must be
        associative, also with `initial`.

        Raises
        ------
        TypeError
            If there is neither an item nor an `initial`.
        """
        definition = named_definition("functools", "reduce")
        return reduced(
            f,
            sequence,
            initial,
            max(1, len(self)),
            lambda runs: self._call_each(definition, runs),
        )

    @abstractmethod
    def _call_each(
        self, function: Definition, arguments: Sequence[tuple[object, ...]]
    ) -> list[object]:
        """Call the function with each of the arguments; wait and return the results."""

    def remote(
        self,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        **flags: object,
    ) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
        """Return a decorator: calls of the function are calls of `apply` on this view."""
        return remote(self, block, **flags)

    def parallel(
        self,
        dist: str = "b",
        block: bool | None = None,  # noqa: FBT001 - as users know it
        **options: Value,
    ) -> Callable[[Callable[..., R]], ParallelFunction[R]]:
        """Return a decorator: calls of the function cut their arguments into parts.

        See `parallelz.parallel` for the options.
        """
        return parallel(self, dist, block, **options)

    @property
    def executor(self) -> ViewExecutor:
        """A new `concurrent.futures.Executor` of these engines, with the flags as they are now.

        Each call is one task on one engine; those of a DirectView take turns.
        """
        return ViewExecutor(self._connection, self._submitter(), self._session.abort)

    # -- tasks and control -----------------------------------------------------------------

    def _note(self, submission: Submission) -> None:
        first, end = submission.first_number, submission.first_number + len(submission.answers)
        last = self._runs[-1] if self._runs else None
        if last is not None and last[1] == first:
            last[1] = end
        else:
            self._runs.append([first, end])

    @property
    def history(self) -> list[TaskId]:
        """The ids of all tasks submitted by this view, in order."""
        session_id = self._connection.session_id
        return [task_id_of(session_id, number) for run in self._runs for number in range(*run)]

    @property
    def outstanding(self) -> set[TaskId]:
        """The ids of the tasks of this view that are awaited."""
        session_id = self._connection.session_id
        awaited = self._connection.ledger.awaited
        return {
            task_id_of(session_id, number)
            for run in self._runs
            for number in range(*run)
            if number in awaited
        }

    @property
    def results(self) -> Mapping[str, object]:
        """The results of ended tasks of the client, by id; see `Client.results`."""
        return self._session.results

    def wait(self, jobs: Jobs = None, timeout: float | None = None) -> bool:
        """Wait for tasks, None: all of this view; return whether all have ended."""
        return self._session.wait(self.outstanding if jobs is None else jobs, timeout)

    def barrier(self, jobs: Jobs = None, timeout: float | None = None) -> bool:
        """Wait as `wait` does; its name of 2011."""
        return self.wait(jobs, timeout)

    def spin(self) -> None:
        """Take in what has arrived; see `Client.spin`."""
        self._session.spin()

    def abort(self, jobs: Jobs = None, targets: Targets = None, block: object = None) -> None:
        """Give up tasks that have not started, None: all of this view; see `Client.abort`."""
        self._session.abort(sorted(self.outstanding) if jobs is None else jobs, targets)

    def cancel(self, jobs: Jobs = None, grace: float = CANCEL_GRACE_S) -> None:
        """Give up tasks, also those that run, None: all of this view; see `Client.cancel`."""
        self._session.cancel(sorted(self.outstanding) if jobs is None else jobs, grace)

    def drain(self, targets: Targets = None) -> None:
        """Let the view's engines end when they have nothing left; see `Client.drain`."""
        self._session.drain(self._own(targets))

    def queue_status(
        self,
        targets: Targets = None,
        verbose: bool = False,  # noqa: FBT001, FBT002 - as users know it
    ) -> dict[object, object]:
        """Return what waits and runs on the view's engines; see `Client.queue_status`."""
        return self._session.queue_status(self._own(targets), verbose)

    def get_result(
        self,
        ids: ResultIds = None,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        owner: object = None,
    ) -> AsyncResult:
        """Return the result of tasks of any client, None: the view's last; see `Client`."""
        if ids is None:
            if not self._runs:
                raise IndexError("this view has submitted nothing yet")
            ids = task_id_of(self._connection.session_id, self._runs[-1][1] - 1)
        return self._session.get_result(ids, self._is_blocking(block))

    def purge_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks; see `Client.purge_results`.

        Parameters
        ----------
        jobs
            As there, so that what is forgotten already is passed over; ``"all"``: of this
            view's engines.
        """
        if targets is None and isinstance(jobs, str) and jobs == ALL:
            targets = self._targets
        self._session.purge_results(jobs, targets)

    def shutdown(
        self,
        targets: Targets = None,
        restart: bool = False,  # noqa: FBT001, FBT002 - as users know it
        hub: bool = False,  # noqa: FBT001, FBT002
        block: object = None,
    ) -> None:
        """End the view's engines; see `Client.shutdown`."""
        self._session.shutdown(self._own(targets), restart, hub)

    def _own(self, targets: Targets) -> Targets:
        if targets is not None:
            return targets
        return "all" if self._targets is None else self._targets
