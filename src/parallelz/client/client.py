"""The client: the way to a cluster, and to views of its engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, ParamSpec, Self, SupportsIndex, TypeVar, overload

from parallelz import settings
from parallelz.client.balanced import LoadBalancedView
from parallelz.client.broadcast import BroadcastView
from parallelz.client.connect import connect
from parallelz.client.definitions import UserFunction
from parallelz.client.direct import DirectView
from parallelz.client.executor import ViewExecutor
from parallelz.client.imap import LazyMapIterator
from parallelz.client.limits import (
    OUTSTANDING_MAX,
    WhenFull,
    check_limit,
    check_when_full,
)
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.remote import ParallelFunction, RemoteFunction
from parallelz.client.results import AsyncResult, Value
from parallelz.client.session import SomeTargets, Targets, is_all
from parallelz.client.state import StateSession
from parallelz.client.view import View
from parallelz.protocol.connection import ConnectionInfo

__tracebackhide__ = is_told_by_its_text

P = ParamSpec("P")
R = TypeVar("R")


class Client(StateSession):
    """A connection to a cluster.

    Parameters
    ----------
    connection_info
        Path of the client's connection file, or what it holds. None: that of the cluster of
        the profile. ``"tcp://host:port"``: the same, if its controller is to be reached there.
    profile, profile_dir, cluster_id
        Which cluster, if no file is given.
    timeout
        Seconds to wait for the cluster to appear and to answer.
    sshserver, sshkey
        ``[user@]host[:port]`` to log in to by the system's ssh, without a password, and to
        reach the controller from; its own host will do. A private key, if not the usual ones.
    max_outstanding, when_full
        While so many tasks have not ended, calls wait (``"block"``), or raise `QueueFull`
        (``"raise"``). A map or a graph counts as one call: it may go beyond. Can be set later.

    Attributes
    ----------
    block
        Whether calls wait when neither they nor their view say. False unless set.
    cluster
        The `Cluster` that it is a client of, if this process has started that. Else None.

    Raises
    ------
    ConnectionFileError
        If there is no such cluster; the text says how to start one.
    ClusterError
        If it does not answer, or refuses, or ssh cannot log in; says what ssh said.

    Notes
    -----
    May be used from several threads at once. A forked process needs a client of its own.
    """

    def __init__(
        self,
        connection_info: ConnectionInfo | str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str = "",
        timeout: float = settings.CONNECTION_FILE_TIMEOUT_S,
        sshserver: str | None = None,
        sshkey: str | os.PathLike[str] | None = None,
        max_outstanding: SupportsIndex = OUTSTANDING_MAX,
        when_full: WhenFull = "block",
    ) -> None:
        limit = check_limit(max_outstanding)
        check_when_full(when_full)
        super().__init__(
            connect(
                connection_info,
                profile=profile,
                profile_dir=profile_dir,
                cluster_id=cluster_id,
                timeout_s=timeout,
                sshserver=sshserver,
                sshkey=sshkey,
            )
        )
        self.cluster: object = None  # who started it, if that was this process
        self.max_outstanding = limit
        self.when_full = when_full
        self._views: dict[object, View] = {}

    def __repr__(self) -> str:
        if self.connection.is_closed:
            return "<Client: closed>"
        return f"<Client: {len(self)} engines>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def max_outstanding(self) -> int:
        """While so many tasks have not ended, calls wait or fail."""
        return self.connection.max_outstanding

    @max_outstanding.setter
    def max_outstanding(self, value: int) -> None:
        self.connection.max_outstanding = check_limit(value)

    @property
    def when_full(self) -> WhenFull:
        """What calls do then: ``"block"``, or ``"raise"``, which is `QueueFull`."""
        return self.connection.when_full

    @when_full.setter
    def when_full(self, value: WhenFull) -> None:
        self.connection.when_full = check_when_full(value)

    # -- views -----------------------------------------------------------------------------

    @overload
    def view(self, targets: Targets = None, *, balanced: Literal[True]) -> LoadBalancedView: ...
    @overload
    def view(self, targets: Targets = None, *, balanced: Literal[False]) -> DirectView: ...
    @overload
    def view(self, targets: None = None, balanced: None = None) -> LoadBalancedView: ...
    @overload
    def view(self, targets: SomeTargets, balanced: None = None) -> DirectView: ...
    @overload
    def view(
        self,
        targets: Targets = None,
        balanced: bool | None = None,  # noqa: FBT001
    ) -> DirectView | LoadBalancedView: ...

    def view(
        self,
        targets: Targets = None,
        balanced: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> DirectView | LoadBalancedView:
        """Return a view; the same call gives the same object.

        Parameters
        ----------
        targets
            An engine id, a list or slice of them (evaluated now), or ``"all"``: those that
            are there at the time of each call. None: all.
        balanced
            Whether one of them runs each call, or each of them does. None: if there are no
            `targets`.
        """
        is_balanced = targets is None if balanced is None else balanced
        chosen = None if is_all(targets) else self.resolve(targets)
        key = (is_balanced, tuple(chosen) if isinstance(chosen, list) else chosen)
        found = self._views.get(key)
        if found is None:
            make = self._balanced_view if is_balanced else self._direct_view
            found = self._views.setdefault(key, make(chosen))
        assert isinstance(found, DirectView | LoadBalancedView)
        return found

    def _direct_view(self, chosen: int | list[int] | None) -> DirectView:
        return DirectView(self, "all" if chosen is None else chosen)

    def _balanced_view(self, chosen: int | list[int] | None) -> LoadBalancedView:
        return LoadBalancedView(self, [chosen] if isinstance(chosen, int) else chosen)

    def direct_view(self, targets: Targets = "all", **flags: object) -> DirectView:
        """Return a new view of engines that all run each call; see `view`."""
        chosen = None if is_all(targets) else self.resolve(targets)
        return self._direct_view(chosen).set_flags(**flags)

    def load_balanced_view(self, targets: Targets = None, **flags: object) -> LoadBalancedView:
        """Return a new view of engines of which one runs each call; see `view`."""
        chosen = None if is_all(targets) else self.resolve(targets)
        return self._balanced_view(chosen).set_flags(**flags)

    def broadcast_view(
        self,
        targets: Targets = "all",
        is_coalescing: object = None,
        **flags: object,
    ) -> BroadcastView:
        """Return a new `BroadcastView`.

        Parameters
        ----------
        targets
            As in `view`, but evaluated now, also if it is ``"all"``.
        is_coalescing
            Without effect: results come as one list anyway.
        """
        chosen = self.resolve(targets)
        return BroadcastView(self, [chosen] if isinstance(chosen, int) else chosen).set_flags(
            **flags
        )

    def executor(self, targets: Targets = None) -> ViewExecutor:
        """Return a new `concurrent.futures.Executor` of engines, None: of all."""
        return self.load_balanced_view(targets).executor

    def __getitem__(self, key: SupportsIndex | slice | Sequence[SupportsIndex]) -> DirectView:
        """Return the view of engines by their place in `ids`, as it is now."""
        is_index = hasattr(key, "__index__") or isinstance(key, slice | list | tuple | range)
        if not is_index or isinstance(key, bool):
            raise TypeError(f"key by int/slice/list/tuple/range only, not {type(key)}")
        return self._direct(key)

    def __iter__(self) -> Iterator[DirectView]:
        """Yield a view of each engine."""
        return (self[engine_id] for engine_id in self.ids)

    # -- calls -----------------------------------------------------------------------------

    def apply(
        self,
        f: UserFunction,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        bound: bool = False,  # noqa: FBT001, FBT002 - the order that users know
        block: bool | None = None,  # noqa: FBT001
        track: bool = False,  # noqa: FBT001, FBT002
        targets: Targets = None,
        balanced: bool | None = None,  # noqa: FBT001
        after: object = None,
        follow: object = None,
        timeout: float | None = None,
    ) -> Value:
        """Call ``f(*args, **kwargs)`` on engines: the call that all others wrap.

        Parameters
        ----------
        bound
            Whether `f` gets the engine's namespace as its first argument.
        block
            Whether to wait for the result. None: as `Client.block` says.
        track, targets, balanced
            Without effect, as `AsyncResult.sent` is always right; where, see `view`.
        after, follow, timeout
            When, beside what, and how long to wait for that; see `LoadBalancedView`.

        Returns
        -------
        object
            For one engine, or balanced, what `f` returns; for a list of engines a list in
            their order. If it does not block, the AsyncResult of that.

        Raises
        ------
        NoEnginesRegistered
            If it is not balanced and there are no engines.
        ValueError
            If there are `after`, `follow` or `timeout` and it is not balanced.
        TypeError
            If `f` cannot be called, or `args` and `kwargs` are not what they should be.
        """
        if args is not None and not isinstance(args, tuple | list):
            raise TypeError(f"args must be tuple or list, not {type(args)}")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"kwargs must be dict, not {type(kwargs)}")
        view = self.view(targets, balanced)
        conditions = (("after", after), ("follow", follow), ("timeout", timeout))
        given = {name: value for name, value in conditions if value is not None}
        if given:
            if not isinstance(view, LoadBalancedView):
                raise ValueError(
                    "after, follow and timeout are for balanced calls only: give"
                    " balanced=True or no targets"
                )
            view = view.with_flags(**given)
        call = view.apply_async_bound if bound else view.apply_async
        result = call(f, *(args or ()), **(kwargs or {}))
        return result.get() if self._is_blocking(block) else result

    def _is_blocking(self, block: bool | None) -> bool:  # noqa: FBT001
        return self.block if block is None else block

    def _direct(self, targets: Targets) -> DirectView:
        found = self.view(targets, balanced=False)
        assert isinstance(found, DirectView)
        return found

    def execute(
        self,
        code: str,
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> AsyncResult:
        """Run a string of code on engines; see `DirectView.execute`."""
        return self._direct(targets).execute(code, block)

    def run(
        self,
        filename: str | Path,
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> AsyncResult:
        """Run the content of a file on engines; see `DirectView.run`."""
        return self._direct(targets).run(filename, block)

    def map(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        targets: Targets = None,
        balanced: bool | None = None,
        **options: Value,
    ) -> Value:
        """Call `f` on each item; see `View.map`."""
        return self.view(targets, balanced).map(f, *sequences, **options)

    def imap(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        targets: Targets = None,
        balanced: bool | None = None,
        **options: Value,
    ) -> LazyMapIterator:
        """Call `f` on each item, read while results are taken; see `View.imap`."""
        return self.view(targets, balanced).imap(f, *sequences, **options)

    def reduce(
        self,
        f: Callable[[object, object], object],
        sequence: Iterable[object],
        /,
        *initial: object,
        targets: Targets = None,
        balanced: bool | None = None,
    ) -> Value:
        """Combine all items by `f`; see `View.reduce`."""
        return self.view(targets, balanced).reduce(f, sequence, *initial)

    def push(
        self,
        ns: Mapping[str, object],
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001 - as users know it
        track: object = None,
    ) -> Value:
        """Set names of the engines' namespaces; see `DirectView.push`."""
        return self._direct(targets).push(ns, block)

    def pull(
        self,
        names: str | Iterable[str],
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> Value:
        """Return the values of names of engines' namespaces; see `DirectView.pull`."""
        return self._direct(targets).pull(names, block)

    def scatter(
        self,
        key: str,
        seq: Iterable[object],
        dist: str = "b",
        flatten: bool = False,  # noqa: FBT001, FBT002 - as users know it
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001
        track: object = None,
    ) -> Value:
        """Set a name on each engine to its part; see `DirectView.scatter`."""
        return self._direct(targets).scatter(key, seq, dist, flatten, block)

    def gather(
        self,
        key: str,
        dist: str = "b",
        targets: Targets = "all",
        block: bool | None = None,  # noqa: FBT001 - as users know it
    ) -> Value:
        """Put parts together again; see `DirectView.gather`."""
        return self._direct(targets).gather(key, dist, block)

    def remote(
        self,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        targets: Targets = None,
        balanced: bool | None = None,
        **flags: object,
    ) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
        """Return a decorator: calls of the function run on engines; see `View.remote`."""
        return self.view(targets, balanced).remote(block, **flags)

    def parallel(
        self,
        dist: str = "b",
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        targets: Targets = None,
        balanced: bool | None = None,
        **options: Value,
    ) -> Callable[[Callable[..., R]], ParallelFunction[R]]:
        """Return a decorator: calls are cut into parts and joined; see `View.parallel`."""
        return self.view(targets, balanced).parallel(dist, block, **options)
