"""How a sequence is cut into parts, and parts are put together again. Pure.

Two ways: ``"b"`` (blocks) gives each part a run of neighbours, the first ones one item more
when it does not come out even; ``"r"`` (round-robin) deals the items out like cards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")

Item = Any
"""What is in users' sequences."""


class Sliceable(Protocol):
    """Lists, tuples, ranges, arrays: what has a length and can be cut."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Item, /) -> Item:
        """Return an item, or for a slice a part."""
        ...


def check_dist(dist: str) -> None:
    """Raise ValueError unless `dist` is a way to distribute."""
    if dist not in ("b", "r"):
        raise ValueError(f"dist must be 'b' (blocks) or 'r' (round-robin), not {dist!r}")


def check_chunksize(chunksize: int) -> int:
    """Return it, if that many items can be one task."""
    if not isinstance(chunksize, int) or isinstance(chunksize, bool) or chunksize < 1:
        raise ValueError(f"chunksize must be 1 or more, not {chunksize!r}")
    return chunksize


def slices(length: int, part_count: int, dist: str = "b") -> list[slice]:
    """Return which items of a sequence each part gets.

    >>> slices(10, 4)
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None), slice(8, 10, None)]
    """
    check_dist(dist)
    if dist == "r":
        return [slice(part, length, part_count) for part in range(part_count)]
    size, more_count = divmod(length, part_count)
    ends = [(part + 1) * size + min(part + 1, more_count) for part in range(part_count)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def partition(sequence: Sliceable, part_count: int, dist: str = "b") -> list[Item]:
    """Cut a sequence; there are always `part_count` parts, some of them perhaps empty.

    >>> partition(range(5), 2)
    [range(0, 3), range(3, 5)]
    """
    return [sequence[part] for part in slices(len(sequence), part_count, dist)]


def join(parts: Sequence[object], dist: str = "b") -> object:
    """Put together what `partition` cut: arrays to an array, sequences to a list.

    What is neither (as after a scatter with ``flatten``) is returned as a list of the parts.
    """
    check_dist(dist)
    numpy = sys.modules.get("numpy")
    if numpy is not None and any(isinstance(part, numpy.ndarray) for part in parts):
        return _join_arrays(parts, dist)
    sequences = [part for part in parts if isinstance(part, list | tuple | range)]
    if len(sequences) < len(parts):
        return list(parts)
    if dist == "b":
        return [item for part in sequences for item in part]
    joined: list[object] = [None] * sum(map(len, sequences))
    for number, part in enumerate(sequences):
        joined[number :: len(sequences)] = part
    return joined


def _join_arrays(parts: Sequence[object], dist: str) -> object:
    numpy = sys.modules["numpy"]
    arrays = [numpy.asarray(part) for part in parts]
    if any(array.ndim == 0 for array in arrays):
        return list(parts)
    filled = [array for array in arrays if len(array)] or arrays[:1]
    if dist == "b":
        return numpy.concatenate(filled)
    kind = numpy.result_type(*filled)
    joined = numpy.empty((sum(map(len, arrays)), *filled[0].shape[1:]), kind)
    for number, array in enumerate(arrays):
        if len(array):
            joined[number :: len(arrays)] = array
    return joined


def chunked(items: Iterable[T], length: int) -> Iterator[tuple[T, ...]]:
    """Cut `items` into runs of `length`; the last may be shorter.

    >>> list(chunked("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    iterator = iter(items)
    return iter(lambda: tuple(islice(iterator, length)), ())


def columns(sequences: Sequence[Iterable[object]]) -> tuple[Sequence[object], ...]:
    """Return the sequences, equally long, as ``zip`` would end with the shortest.

    What can be cut without a copy (arrays, ranges, lists) stays what it is; other iterables
    become lists, and an endless one is read as far as the shortest sequence goes.

    Raises
    ------
    ValueError
        If there is no sequence.
    """
    if not sequences:
        raise ValueError("map needs at least one sequence")
    sized = [each for each in sequences if _is_sliceable(each)]
    shortest = min(map(len, sized), default=None)  # type: ignore[arg-type]
    lists = [
        each if _is_sliceable(each) else list(islice(each, shortest)) for each in sequences
    ]
    length = min(map(len, lists))  # type: ignore[arg-type]
    return tuple(
        each if len(each) == length else each[:length]  # type: ignore[arg-type, index, misc]
        for each in lists
    )


def as_sliceable(sequence: Iterable[object]) -> Sliceable:
    """Return what can be cut: the sequence itself, or a list of what is iterable only.

    Raises
    ------
    TypeError
        If it is not iterable, or a dict, whose values would get lost.
    """
    if _is_sliceable(sequence):
        return cast("Sliceable", sequence)
    if isinstance(sequence, Mapping) or not isinstance(sequence, Iterable):
        raise TypeError(
            f"give a sequence to be cut, such as a list or an array, not {type(sequence)}"
        )
    return list(sequence)


def _is_sliceable(candidate: object) -> bool:
    if isinstance(candidate, Sequence):
        return True
    # Arrays and series; sets and dicts have a length, too, but cannot be cut.
    return hasattr(candidate, "__len__") and hasattr(candidate, "__array__")
