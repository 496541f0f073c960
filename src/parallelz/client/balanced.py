"""The view that lets the controller choose: one engine runs each call."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, SupportsIndex, TypeVar

import msgspec

from parallelz.client.connection import Job
from parallelz.client.definitions import Function, UserFunction
from parallelz.client.dependencies import depends_on
from parallelz.client.flags import CHECKS
from parallelz.client.graphs import Graph, as_call, order_of, predecessors_of
from parallelz.client.interop import JOBLIB_NAME, register_joblib_backend
from parallelz.client.ledger import Submission
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.partition import (
    Sliceable,
    check_chunksize,
    chunks_of_columns,
    partition,
)
from parallelz.client.past_session import PastSession
from parallelz.client.results import AsyncResult
from parallelz.client.view import View
from parallelz.errors import SerializationError
from parallelz.ids import EngineId, TaskId
from parallelz.protocol import messages
from parallelz.protocol.functions import Definition
from parallelz.protocol.messages import TaskOptions
from parallelz.protocol.payload import BOUND, BOUND_CHUNK, CHUNK, PLAIN, Call

N = TypeVar("N", bound=Hashable)

_LASTING = frozenset({*CHECKS, "label", "tags"})  # flags that are the same in many calls
_STALE = TaskOptions()  # to be made of the flags anew


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
        How often a task that failed is run again, on another engine if there is one.
    retry_delay
        Seconds before the first retry; twice as many before the next, and so on.
    max_runtime
        Seconds after which a task that still runs is stopped; None or 0: never.
    priority
        An int; tasks with higher ones start first, those of equal ones in their order.
    labels
        Only engines that were started with all of these labels; a str is one label.
    resources
        Only engines that have at least so much of each left, such as ``{"gpu": 1}``. While a
        task runs that much is taken.
    """

    flag_names: ClassVar[tuple[str, ...]] = (
        *View.flag_names,
        "after",
        "follow",
        *CHECKS,
    )

    after: object
    follow: object
    timeout: float | None
    retries: int
    retry_delay: float
    max_runtime: float | None
    priority: int
    labels: Sequence[str]
    resources: Mapping[str, float]
    _lasting: TaskOptions | None  # what the flags but `after` and `follow` amount to

    def __init__(self, session: PastSession, targets: Sequence[int] | None) -> None:
        super().__init__(session, targets)
        self._lasting = None
        self.after = self.follow = None
        self.timeout = self.max_runtime = None
        self.retries = self.priority = 0
        self.retry_delay = 0.0
        self.labels = ()
        self.resources = {}

    def __setattr__(self, name: str, value: object) -> None:
        if name in CHECKS:
            value = CHECKS[name](name, value)
        if name in _LASTING:
            self._lasting = _STALE
        super().__setattr__(name, value)

    def _is_balanced(self) -> bool:
        return True

    def _aim(self, chosen: int | list[int] | None) -> None:
        self._targets = [chosen] if isinstance(chosen, int) else chosen
        self._lasting = _STALE

    def _options(self) -> TaskOptions | None:
        """Return the flags as they are now; None: nothing special."""
        lasting = self._lasting
        if lasting is _STALE:
            lasting = self._lasting = self._options_by_flags()
        if self.after is None and self.follow is None:
            return lasting
        # Collections, which may have been changed in place.
        after, follow = depends_on(self.after), depends_on(self.follow)
        if after is None and follow is None:
            return lasting
        if lasting is None:
            return TaskOptions(after, follow)
        return msgspec.structs.replace(lasting, after=after, follow=follow)

    def _options_by_flags(self) -> TaskOptions | None:
        engine_ids = None
        if self._targets is not None:
            assert not isinstance(self._targets, int | str)
            engine_ids = [EngineId(target) for target in self._targets]
        options = TaskOptions(
            engine_ids=engine_ids,
            retries=self.retries,
            wait_timeout_s=self.timeout or 0.0,
            label=self.label,
            max_runtime_s=self.max_runtime or 0.0,
            retry_delay_s=self.retry_delay,
            priority=self.priority,
            labels=list(self.labels),
            resources=dict(self.resources),
            tags=dict(self.tags),
        )
        return None if options == TaskOptions() else options

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

    def submit_graph(
        self, graph: Graph[N], jobs: Mapping[N, Callable[[], object]]
    ) -> dict[N, AsyncResult]:
        """Submit one task per node, each to run once those of its predecessors succeeded.

        All tasks are submitted at once, or none.

        Parameters
        ----------
        graph
            A networkx ``DiGraph``, or a dict of the predecessors of each node; without cycles.
        jobs
            What to call at each node, without arguments. To give some, use `functools.partial`:
            the function is then sent once to an engine, however many jobs it has.

        Returns
        -------
        dict
            The AsyncResult of each node, in an order in which they could run. A task whose
            predecessor fails ends with `ImpossibleDependency`, which names it. The view's flags
            hold for all tasks, but ``after`` only for those of nodes without predecessors. The
            tasks' labels are their nodes, as text, behind the label of the view.

        Raises
        ------
        graphlib.CycleError
            A ValueError that names the nodes of a cycle.
        ValueError
            If there is a node without a job.
        SerializationError
            If a job cannot be sent; names the node.
        """
        results: dict[N, AsyncResult] = {}
        with _collection_paused():
            predecessors = predecessors_of(graph)
            order = order_of(predecessors)
            batch = self._prepare(order, jobs)
            submissions = self._connection.submit_batch(
                batch, self._graph_options(order, predecessors)
            )
            for node, submission in zip(order, submissions, strict=True):
                self._note(submission)
                results[node] = AsyncResult(self._connection, submission, is_single=True)
        return results

    def _graph_options(
        self, order: Sequence[N], predecessors: Mapping[N, Sequence[N]]
    ) -> Callable[[int, Callable[[int], TaskId]], TaskOptions]:
        """Return what gives the options of the node at an index, once ids are given out."""
        numbers = {node: number for number, node in enumerate(order)}
        earlier = [[numbers[each] for each in predecessors[node]] for node in order]
        flags = self._options() or TaskOptions()
        prefix = f"{self.label}: " if self.label else ""
        labels = [f"{prefix}{node}" for node in order]

        def options_of(index: int, id_of: Callable[[int], TaskId]) -> TaskOptions:
            before = earlier[index]
            # Not by `replace`, which takes several times as long.
            return TaskOptions(
                messages.Dependency([*map(id_of, before)]) if before else flags.after,
                flags.follow,
                flags.engine_ids,
                flags.retries,
                flags.wait_timeout_s,
                labels[index],
                flags.max_runtime_s,
                flags.retry_delay_s,
                flags.priority,
                flags.labels,
                flags.resources,
            )

        return options_of

    def _prepare(self, order: Sequence[N], jobs: Mapping[N, Callable[[], object]]) -> list[Job]:
        for node in order:
            if node not in jobs:
                raise ValueError(f"there is no job for node {node!r}")
        kind = BOUND if self.bound else PLAIN
        batch: list[Job] = []
        for node in order:
            function, args, kwargs = as_call(jobs[node])
            if not callable(function):
                raise TypeError(f"the job of node {node!r} must be callable, not {function!r}")
            try:
                batch.append(self._connection.prepare(function, (kind, args, kwargs)))
            except SerializationError as error:
                raise SerializationError(f"the job of node {node!r}: {error}") from error
        return batch

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
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        bound: bool | None = None,
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Call `f` on each item, `chunksize` items per task; without waiting. See `map`."""
        if not sequences:
            raise ValueError("map needs at least one sequence")
        size = 1 if chunksize is None else check_chunksize(chunksize)
        is_bound = self.bound if bound is None else bound
        lengths: list[int] | None = None
        calls: list[Call]
        if size == 1:
            kind = BOUND if is_bound else PLAIN
            calls = [(kind, item, {}) for item in zip(*sequences, strict=False)]
        else:
            kind = BOUND_CHUNK if is_bound else CHUNK
            kwargs: dict[str, object] = {"return_exceptions": True} if return_exceptions else {}
            chunks = list(chunks_of_columns(sequences, size))
            lengths = [len(chunk[0]) for chunk in chunks]
            calls = [(kind, chunk, kwargs) for chunk in chunks]
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
        chunksize: SupportsIndex | None = None,
    ) -> AsyncJoinedResult:
        """Call `f` on parts of the sequences, None: one per engine; the results are joined."""
        length = len(sequences[0])
        if chunksize is None:
            count = min(len(self), length)
        else:
            count = -(-length // check_chunksize(chunksize))
        parts = [partition(sequence, max(1, count), dist) for sequence in sequences]
        kind = BOUND if self.bound else PLAIN
        calls: list[Call] = [(kind, args, {}) for args in zip(*parts, strict=True)]
        submission = self._submit_map(f, calls)
        return AsyncJoinedResult(self._connection, submission, dist=dist)

    def _submitter(self) -> Callable[[Function, Call], Submission]:
        options = self._options()

        def submit(function: Function, call: Call) -> Submission:
            submission = self._connection.submit_task(function, call, options)
            self._note(submission)
            return submission

        return submit

    def register_joblib_backend(
        self, name: str = JOBLIB_NAME, *, make_default: bool = False
    ) -> None:
        """Let joblib, and so scikit-learn, run its jobs on these engines.

        See `parallelz.register_joblib_backend`.
        """
        register_joblib_backend(name, make_default=make_default, view=self)


@contextlib.contextmanager
def _collection_paused() -> Iterator[None]:
    """Leave garbage with cycles alone while very many objects are made, all of which stay.

    To look through them for cycles again and again would take as long as to make them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
