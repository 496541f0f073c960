"""Decorators' work: functions that run elsewhere when they are called."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, ParamSpec, Protocol, Self, SupportsIndex, TypeVar

from parallelz.client.definitions import UserFunction
from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.partition import Sliceable, as_sliceable, check_chunksize, check_dist
from parallelz.client.results import AsyncResult, Value

__tracebackhide__ = is_told_by_its_text

P = ParamSpec("P")
R = TypeVar("R")


class Caller(Protocol):
    """What a function that runs elsewhere needs of its view."""

    @property
    def block(self) -> bool:
        """Whether calls wait."""
        ...

    def with_flags(self, **flags: object) -> Self:
        """Return the same view with other attributes."""
        ...

    def apply(self, f: UserFunction, /, *args: object, **kwargs: object) -> Value:
        """Call a function there."""
        ...

    def map_async(
        self,
        f: UserFunction,
        /,
        *sequences: Iterable[object],
        chunksize: SupportsIndex | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Call a function there on each item."""
        ...

    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: SupportsIndex | None = None,
    ) -> AsyncJoinedResult:
        """Call a function there on parts of sequences."""
        ...


class RemoteFunction(Generic[P, R]):
    """A function that runs on the engines of a view; made by ``@view.remote()``.

    It has the name, the signature and the documentation of the original, which is `func`. Sent
    to an engine, as an argument or because another function uses it, it is the original there.
    """

    def __init__(
        self,
        view: Caller,
        function: Callable[P, R],
        *,
        block: bool | None = None,
        **flags: object,
    ) -> None:
        if not callable(function):
            raise TypeError(f"f must be callable, not {type(function)}")
        self.view = view
        self.func = function
        self.block = block
        self.flags = flags
        self._flagged_view()  # says now which flag is wrong, if one is
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = getattr(function, "__module__", __name__)
        self.__wrapped__ = function
        doc = inspect.getdoc(function)
        self.__doc__ = f"{type(self).__name__} wrapping:\n{doc or ''}"
        with contextlib.suppress(ValueError):  # some functions in C do not tell
            self.__signature__ = inspect.signature(function)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__name__} on {self.view!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        return (_original, (self.func,))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value:
        """Call the function there; the result, or the AsyncResult if it does not block."""
        return self._flagged_view().apply(self.func, *args, **kwargs)

    def _flagged_view(self) -> Caller:
        """Return the view as it is now, but with the flags of this function."""
        block = {} if self.block is None else {"block": self.block}
        return self.view.with_flags(**self.flags, **block)


class ParallelFunction(RemoteFunction[..., R]):
    """A function that runs on parts of its arguments; made by ``@view.parallel()``."""

    def __init__(
        self,
        view: Caller,
        function: Callable[..., R],
        *,
        dist: str = "b",
        block: bool | None = None,
        ordered: bool = True,
        chunksize: SupportsIndex | None = None,
        return_exceptions: bool = False,
        **flags: object,
    ) -> None:
        check_dist(dist)
        super().__init__(view, function, block=block, **flags)
        self.dist = dist
        self.ordered = ordered
        self.chunksize = None if chunksize is None else check_chunksize(chunksize)
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Iterable[object]) -> Value:
        """Cut the sequences, call the function on the parts there, join what it returns.

        Raises
        ------
        ValueError
            If the sequences are not equally long, or there is none.
        """
        if not sequences:
            raise ValueError(f"{self.__name__} needs at least one sequence to cut")
        cut = [as_sliceable(sequence) for sequence in sequences]
        lengths = [len(sequence) for sequence in cut]
        if len(set(lengths)) > 1:
            raise ValueError(f"all sequences must have equal length, but have {lengths}")
        view = self._flagged_view()
        result = view.map_parts(self.func, cut, dist=self.dist, chunksize=self.chunksize)
        return self._finish(view, result)

    def map(self, *sequences: Iterable[object]) -> Value:
        """Call the function on each item there; a list, or an AsyncMapResult."""
        view = self._flagged_view()
        result = view.map_async(
            self.func,
            *sequences,
            chunksize=self.chunksize,
            ordered=self.ordered,
            return_exceptions=self.return_exceptions,
        )
        return self._finish(view, result)

    def _finish(self, view: Caller, result: AsyncResult) -> Value:
        if not view.block:
            return result
        return result.get(return_exceptions=self.return_exceptions)


def _original(function: Callable[..., object]) -> Callable[..., object]:
    return function


def remote(
    view: Caller,
    block: bool | None = None,  # noqa: FBT001 - as users know it
    **flags: object,
) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
    """Return a decorator: calls of the function are calls of `apply` on `view`.

    Parameters
    ----------
    block
        Whether they wait for the result. None: as the view says at the time of the call.
    **flags
        Of the view, for these calls.
    """
    return lambda f: RemoteFunction(view, f, block=block, **flags)


def parallel(
    view: Caller,
    dist: str = "b",
    block: bool | None = None,  # noqa: FBT001 - as users know it
    *,
    ordered: bool = True,
    chunksize: SupportsIndex | None = None,
    return_exceptions: bool = False,
    **flags: object,
) -> Callable[[Callable[..., R]], ParallelFunction[R]]:
    """Return a decorator: calls of the function cut their arguments into parts.

    The parts are run on the engines of `view` and what they return is joined. ``f.map`` goes
    item by item instead.

    Parameters
    ----------
    dist
        How to cut: ``"b"`` into blocks, ``"r"`` round-robin.
    block
        Whether calls wait for the result. None: as the view says at the time of the call.
    ordered
        Whether iterating over what ``f.map`` returns keeps the order of the input.
    chunksize
        Items per part. None: one part per engine; in ``f.map`` as `View.map` does.
    return_exceptions
        Put exceptions where results would be, instead of raising.
    **flags
        Of the view, for these calls.
    """
    return lambda f: ParallelFunction(
        view,
        f,
        dist=dist,
        block=block,
        ordered=ordered,
        chunksize=chunksize,
        return_exceptions=return_exceptions,
        **flags,
    )
