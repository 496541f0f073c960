"""How many items are combined to one, on the engines as long as there are many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from parallelz.client.results import Value

REDUCED_LOCALLY_MAX = 3  # partial results; more are combined on the engines

T = TypeVar("T")

Runs = Sequence[tuple[object, Sequence[object]]]


def reduced(
    f: Callable[[T, T], T],
    sequence: Iterable[T],
    initial: Sequence[T],
    engine_count: int,
    reduce_each: Callable[[Runs], list[Value]],
) -> T:
    """Return what `functools.reduce` does, for an `f` that is associative.

    Parameters
    ----------
    initial
        What the items are combined onto, if there is one.
    reduce_each
        Reduces each of several runs of neighbours elsewhere, and waits for the results.
    """
    if not callable(f):
        raise TypeError(f"f must be callable, not {type(f)}")
    if len(initial) > 1:
        raise TypeError(f"reduce takes at most one initial value, not {len(initial)}")
    items = list(sequence)
    while len(items) > REDUCED_LOCALLY_MAX:
        count = max(1, min(engine_count, len(items) // 2))
        size = -(-len(items) // count)
        items = reduce_each(
            [(f, items[start : start + size]) for start in range(0, len(items), size)]
        )
    return functools.reduce(f, items, *initial)
