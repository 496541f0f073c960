"""Results of other tasks, as arguments: what stands for them while they are on their way.

A client that calls a function with a result that is not there yet pickles a `TaskInput` in its
place. The controller sends the results along with the task; the engine makes them available by
`providing` while it unpickles the arguments, and each `TaskInput` becomes the value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from parallelz.errors import SerializationError
from parallelz.protocol import payload
from parallelz.protocol.envelope import Buffer

How = Literal["single", "list", "chunks"]

_MISSING = object()


class _Provided:
    """The inputs of one task, each unpickled when it is first taken."""

    def __init__(self, inputs: Sequence[tuple[bytes, Sequence[Buffer]]]) -> None:
        self._inputs = inputs
        self._values = [_MISSING] * len(inputs)

    def value(self, index: int) -> object:
        if self._values[index] is _MISSING:
            try:
                self._values[index] = payload.load(*self._inputs[index])
            except Exception as error:
                raise SerializationError(
                    f"input {index}, the result of another task, cannot be unpickled: {error}"
                ) from error
        return self._values[index]


_provided = _Provided(())  # engines unpickle in one thread


class TaskInput(msgspec.Struct, frozen=True):
    """Stands, in pickled arguments, for results of other tasks.

    Attributes
    ----------
    first, count
        Which of `TaskOptions.inputs`.
    how
        ``"single"``: the result of `first`; ``"list"``: a list of the results; ``"chunks"``:
        the items of the lists that they are, as one list.
    """

    first: int
    count: int
    how: How

    def __reduce__(self) -> tuple[object, ...]:
        return (take, (self.first, self.count, self.how))


def take(first: int, count: int, how: How) -> object:
    """Return what a `TaskInput` stands for; called by pickle.

    Raises
    ------
    SerializationError
        If one of the inputs cannot be unpickled.
    """
    if how == "single":
        return _provided.value(first)
    values = [_provided.value(index) for index in range(first, first + count)]
    if how == "list":
        return values
    return [item for chunk in values for item in chunk]  # type: ignore[attr-defined]


@contextlib.contextmanager
def providing(inputs: Sequence[tuple[bytes, Sequence[Buffer]]]) -> Iterator[None]:
    """Let `take` find these, in the order of `TaskOptions.inputs`, in the ``with`` block."""
    global _provided
    before, _provided = _provided, _Provided(inputs)
    try:
        yield
    finally:
        _provided = before
