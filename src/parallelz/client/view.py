"""What all views have in common: flags, the family of `apply`, and control of their engines."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

from parallelz.client.history import ALL
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.partition import Sliceable
from parallelz.client.past_session import PastSession
from parallelz.client.remote import ParallelFunction, RemoteFunction
from parallelz.client.results import AsyncResult, Value
from parallelz.client.session import Jobs, Targets
from parallelz.client.task_group import CANCEL_GRACE_S
from parallelz.ids import TaskId, task_id_of
from parallelz.protocol.functions import Definition, named_definition

REDUCED_LOCALLY_MAX = 16  # partial results; more are combined on the engines first


@functools.cache
def verb(name: str) -> Definition:
    """Return the definition of a function that is built into the engines."""
    return named_definition("parallelz.engine.verbs", name)


class View(ABC):
    """A way to address engines, and how to call them.

    Attributes
    ----------
    block
        Whether calls wait for their results, for those whose name does not say.
    bound
        Whether functions get the engine's namespace as their first argument.
    track
        Kept for those who set it; `AsyncResult.sent` is right without.
    label
        Kept with the tasks, in the history too.
    """

    flag_names: ClassVar[tuple[str, ...]] = ("block", "bound", "track", "label")

    def __init__(self, session: PastSession, targets: int | str | Sequence[int] | None) -> None:
        self._session = session
        self._connection = session.connection
        self._targets = targets
        self._runs: list[list[int]] = []  # first number and the end of each run of ours
        self.block = session.block
        self.bound = False
        self.track = False
        self.label = ""

    @property
    def targets(self) -> int | str | Sequence[int] | None:
        """The engines it is for; set for good when the view is made."""
        return list(self._targets) if isinstance(self._targets, list) else self._targets

    @targets.setter
    def targets(self, value: object) -> None:
        raise AttributeError(
            "Cannot set View `targets` after construction! For other engines make another"
            f" view: client.view({value!r})"
        )

    @property
    def balanced(self) -> bool:
        """Whether one engine runs each call, or all of them do."""
        return self._is_balanced()

    @balanced.setter
    def balanced(self, value: object) -> None:
        raise AttributeError(
            "Cannot set View `balanced` after construction! Make another view:"
            f" client.view(balanced={value!r})"
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

    # -- flags -----------------------------------------------------------------------------

    def set_flags(self, **flags: object) -> Self:
        """Set attributes by name; KeyError if one is no flag, and none is set then."""
        for name in flags:
            if name not in self.flag_names:
                raise KeyError(
                    f"Invalid name: {name!r}; flags are {', '.join(self.flag_names)}"
                )
        for name, value in flags.items():
            setattr(self, name, value)
        return self

    @contextlib.contextmanager
    def temp_flags(self, **flags: object) -> Iterator[None]:
        """Set attributes by name for the length of a ``with`` block."""
        before = {name: getattr(self, name) for name in self.flag_names}
        try:
            self.set_flags(**flags)
            yield
        finally:
            for name, value in before.items():
                if getattr(self, name) is not value:
                    setattr(self, name, value)

    # -- calls -----------------------------------------------------------------------------

    @abstractmethod
    def _submit(
        self,
        function: Callable[..., object] | Definition,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        bound: bool,
        name: str = "",
    ) -> AsyncResult: ...

    def apply(self, f: Callable[..., object], /, *args: object, **kwargs: object) -> Value:
        """Call ``f(*args, **kwargs)`` there; `block` and `bound` are those of the view.

        Returns
        -------
        object
            The result (see `AsyncResult.get`) if `block`, else the AsyncResult, at once.
        """
        result = self._submit(f, args, kwargs, bound=self.bound)
        return result.get() if self.block else result

    def apply_async(
        self, f: Callable[..., object], /, *args: object, **kwargs: object
    ) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` there, without waiting."""
        return self._submit(f, args, kwargs, bound=False)

    def apply_sync(self, f: Callable[..., object], /, *args: object, **kwargs: object) -> Value:
        """Call ``f(*args, **kwargs)`` there and return the result."""
        return self._submit(f, args, kwargs, bound=False).get()

    def apply_async_bound(
        self, f: Callable[..., object], /, *args: object, **kwargs: object
    ) -> AsyncResult:
        """Call ``f(namespace, *args, **kwargs)`` there, without waiting."""
        return self._submit(f, args, kwargs, bound=True)

    def apply_sync_bound(
        self, f: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Value:
        """Call ``f(namespace, *args, **kwargs)`` there and return the result."""
        return self._submit(f, args, kwargs, bound=True).get()

    def _verb(self, name: str, *args: object) -> AsyncResult:
        return self._submit(verb(name), args, {}, bound=True, name=name)

    def execute(self, code: str, block: bool | None = None) -> AsyncResult:  # noqa: FBT001
        """Run a string of code as a cell of IPython in the engine's namespace.

        Returns
        -------
        AsyncResult
            With ``stdout``, ``outputs`` and the like. If it blocks, it has ended well.
        """
        return self._execute(code, "<execute>", block)

    def run(
        self,
        filename: str | Path,
        block: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> AsyncResult:
        """Run the content of a file of this host, as `execute` does."""
        path = Path(filename).expanduser()
        return self._execute(path.read_text() + "\n", str(path), block)

    def _execute(self, code: str, filename: str, block: bool | None) -> AsyncResult:  # noqa: FBT001
        result = self._verb("execute", code, filename)
        if self._is_blocking(block):
            result.get()
        return result

    def _is_blocking(self, block: bool | None) -> bool:  # noqa: FBT001
        return self.block if block is None else block

    # -- maps ------------------------------------------------------------------------------

    @abstractmethod
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
        """Call `f` on each item, without waiting; see `map`."""

    @abstractmethod
    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: int | None = None,
    ) -> AsyncJoinedResult:
        """Call `f` on parts of sequences; the result is what it returns for all, joined."""

    def map(
        self,
        f: Callable[..., object],
        /,
        *sequences: Iterable[object],
        block: bool | None = None,
        bound: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
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

        Returns
        -------
        object
            A list if it blocks, else an AsyncMapResult.
        """
        result = self.map_async(
            f,
            *sequences,
            bound=bound,
            chunksize=chunksize,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        return result.get() if self._is_blocking(block) else result

    def map_sync(
        self,
        f: Callable[..., object],
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: int | None = None,
        return_exceptions: bool = False,
    ) -> list[Value]:
        """Call `f` on each item and return the list of results; see `map`."""
        result = self.map_async(
            f,
            *sequences,
            bound=bound,
            chunksize=chunksize,
            return_exceptions=return_exceptions,
        ).get()
        assert isinstance(result, list)
        return result

    def imap(
        self,
        f: Callable[..., object],
        /,
        *sequences: Iterable[object],
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[Value]:
        """Call `f` on each item; return an iterator over the results, as they come."""
        return iter(
            self.map_async(f, *sequences, ordered=ordered, return_exceptions=return_exceptions)
        )

    def reduce(
        self,
        f: Callable[[object, object], object],
        sequence: Iterable[object],
        /,
        *initial: object,
    ) -> Value:
        """Combine all items by `f`, as `functools.reduce` does; waits.

        Each engine combines a run of neighbours, then the results are combined, on the
        engines as long as there are many. The order is kept; `f` must be associative.
        """
        reduce = named_definition("functools", "reduce")
        items = list(sequence)
        while len(items) > REDUCED_LOCALLY_MAX:
            count = max(1, min(len(self) or 1, len(items) // 2))
            size = -(-len(items) // count)
            runs = [items[start : start + size] for start in range(0, len(items), size)]
            combined = self._call_each(reduce, [(f, run) for run in runs])
            if len(runs) == 1:
                items = combined
                break
            items = combined
        return functools.reduce(f, items, *initial)

    @abstractmethod
    def _call_each(
        self, function: Definition, arguments: Sequence[tuple[object, ...]]
    ) -> list[object]:
        """Call the function with each of the arguments; wait and return the results."""

    def remote(self, block: bool | None = None, **flags: object) -> Decorator:  # noqa: FBT001
        """Return a decorator: calls of the function are calls of `apply` on this view."""
        return lambda f: RemoteFunction(self, f, block=block, **flags)

    def parallel(
        self,
        dist: str = "b",
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        ordered: bool = True,
        chunksize: int | None = None,
        **flags: object,
    ) -> Decorator:
        """Return a decorator: calls of the function cut their arguments into parts.

        The parts are run on the view's engines and what they return is joined. ``f.map`` goes
        item by item instead.
        """
        return lambda f: ParallelFunction(
            self,
            f,
            dist=dist,
            block=block,
            ordered=ordered,
            chunksize=chunksize,
            **flags,
        )

    # -- tasks and control -----------------------------------------------------------------

    def _note(self, submission: Submission) -> None:
        first, end = submission.first_number, submission.first_number + len(submission.answers)
        if self._runs and self._runs[-1][1] == first:
            self._runs[-1][1] = end
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
        ids: Jobs = None,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        owner: object = None,
    ) -> AsyncResult:
        """Return the result of tasks of any client, None: the view's last; see `Client`."""
        chosen = self.history[-1] if ids is None else ids
        return self._session.get_result(chosen, self.block if block is None else block)

    def purge_results(self, jobs: Jobs = None, targets: Targets = None) -> None:
        """Forget ended tasks; see `Client.purge_results`.

        Parameters
        ----------
        jobs
            As there; ``"all"``: of this view's engines.
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


Decorator = Callable[[Callable[..., object]], Value]
