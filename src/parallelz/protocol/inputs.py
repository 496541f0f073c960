"""Results of other tasks as arguments, put in place where the task runs.

A client that passes a result which is not there yet pickles a `TaskInput` instead. It says
which of the task's inputs belong here, by number. The values come with the task, pickled each
on its own, and nobody on the way opens them. While the engine unpickles the arguments inside
`providing`, each `TaskInput` turns into its value, wherever in the arguments it was.

One thread at a time: an engine unpickles arguments in its main thread only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from parallelz.errors import SerializationError
from parallelz.protocol import payload
from parallelz.protocol.envelope import Buffer

How = Literal["single", "list", "chunks"]
PickledInput = tuple[bytes, Sequence[Buffer]]

_MISSING = object()


@dataclass(frozen=True, slots=True)
class TaskInput:
    """Stands for results of other tasks in the arguments of one; unpickles to their values."""

    first: int  # number of the first of them among `TaskOptions.inputs`
    count: int
    how: How  # one value, a list of values, or one list made of lists

    def __reduce__(self) -> tuple[object, ...]:
        return take, (self.first, self.count, self.how)


class _Inputs:
    """The inputs of the task whose arguments are being unpickled."""

    def __init__(self, pickled: Sequence[PickledInput]) -> None:
        self._pickled = pickled
        self._values = [_MISSING] * len(pickled)

    def value(self, number: int) -> object:
        if not 0 <= number < len(self._values):
            raise SerializationError(
                f"input {number + 1} of this task did not come with it, only"
                f" {len(self._values)} did"
            )
        if self._values[number] is _MISSING:
            self._values[number] = self._load(number)
        return self._values[number]

    def _load(self, number: int) -> object:
        try:
            return payload.load(*self._pickled[number])
        except Exception as error:
            raise SerializationError(
                f"input {number + 1} of {len(self._pickled)}, the result of another task,"
                f" cannot be unpickled here: {type(error).__name__}: {error}"
            ) from error


_current = _Inputs(())


@contextlib.contextmanager
def providing(pickled: Sequence[PickledInput]) -> Iterator[None]:
    """Let `take` find these in the block, in their order; each is unpickled once at most."""
    global _current  # pickle passes nothing on to what it calls
    before, _current = _current, _Inputs(pickled)
    try:
        yield
    finally:
        _current = before


def take(first: int, count: int, how: How) -> object:
    """Return what a `TaskInput` stands for. Pickle calls it.

    Raises
    ------
    SerializationError
        If there is no such input, or it cannot be unpickled; says which.
    """
    if how == "single":
        return _current.value(first)
    values = [_current.value(number) for number in range(first, first + count)]
    if how == "list":
        return values
    return [item for chunk in values for item in cast("list[object]", chunk)]
