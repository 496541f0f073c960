"""Decorators' work: functions that run elsewhere when they are called."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from parallelz.client.map_results import AsyncJoinedResult, AsyncMapResult
from parallelz.client.partition import Sliceable
from parallelz.client.results import AsyncResult, Value


class Caller(Protocol):
    """What a function that runs elsewhere needs of its view."""

    block: bool

    def temp_flags(self, **flags: object) -> AbstractContextManager[None]:
        """Set attributes for the length of a ``with`` block."""
        ...

    def apply(self, f: Callable[..., object], /, *args: object, **kwargs: object) -> Value:
        """Call a function there."""
        ...

    def map_async(
        self, f: Callable[..., object], /, *sequences: Iterable[object], ordered: bool = True
    ) -> AsyncMapResult:
        """Call a function there on each item."""
        ...

    def map_parts(
        self,
        f: Callable[..., object],
        sequences: Sequence[Sliceable],
        *,
        dist: str = "b",
        chunksize: int | None = None,
    ) -> AsyncJoinedResult:
        """Call a function there on parts of sequences."""
        ...


class RemoteFunction:
    """A function that runs on the engines of a view; made by ``@view.remote()``.

    It has the name, the signature and the documentation of the original, which is `func`.
    """

    def __init__(
        self,
        view: Caller,
        function: Callable[..., object],
        *,
        block: bool | None = None,
        **flags: object,
    ) -> None:
        self.view = view
        self.func = function
        self.block = block
        self.flags = flags
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

    def __call__(self, *args: object, **kwargs: object) -> Value:
        """Call the function there; the result, or the AsyncResult if it does not block."""
        with self.view.temp_flags(**self._all_flags()):
            return self.view.apply(self.func, *args, **kwargs)

    def _all_flags(self) -> dict[str, object]:
        return self.flags if self.block is None else {**self.flags, "block": self.block}


class ParallelFunction(RemoteFunction):
    """A function that runs on parts of its arguments; made by ``@view.parallel()``."""

    def __init__(
        self,
        view: Caller,
        function: Callable[..., object],
        *,
        dist: str = "b",
        block: bool | None = None,
        ordered: bool = True,
        chunksize: int | None = None,
        **flags: object,
    ) -> None:
        super().__init__(view, function, block=block, **flags)
        self.dist = dist
        self.ordered = ordered
        self.chunksize = chunksize

    def __call__(self, *sequences: Sliceable) -> Value:  # type: ignore[override]
        """Cut the sequences, call the function on the parts there, join what it returns.

        Raises
        ------
        ValueError
            If the sequences are not equally long, or there is none.
        """
        if not sequences:
            raise ValueError(f"{self.__name__} needs at least one sequence to cut")
        lengths = [len(sequence) for sequence in sequences]
        if len(set(lengths)) > 1:
            raise ValueError(f"all sequences must have equal length, but have {lengths}")
        with self.view.temp_flags(**self._all_flags()):
            result = self.view.map_parts(
                self.func, sequences, dist=self.dist, chunksize=self.chunksize
            )
            return self._finish(result)

    def map(self, *sequences: Iterable[object]) -> Value:
        """Call the function on each item there; a list, or an AsyncMapResult."""
        with self.view.temp_flags(**self._all_flags()):
            return self._finish(
                self.view.map_async(self.func, *sequences, ordered=self.ordered)
            )

    def _finish(self, result: AsyncResult) -> Value:
        is_blocking = self.view.block if self.block is None else self.block
        return result.get() if is_blocking else result
