"""How a sequence is cut into parts, and parts are put together again. Pure.

Two ways: ``"b"`` (blocks) gives each part a run of neighbours, the first ones one item more
when it does not come out even; ``"r"`` (round-robin) deals the items out like cards.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol, SupportsIndex, TypeGuard, TypeVar, cast

from parallelz.client.tables import cut, join_dealt, kind_of
from parallelz.option_values import integer_of
from parallelz.protocol.texts import brief_repr

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


def check_chunksize(chunksize: SupportsIndex) -> int:
    """Return it, if that many items can be one task."""
    size = integer_of(chunksize)
    if size is None or size < 1:
        raise ValueError(f"chunksize must be 1 or more, not {chunksize!r}")
    return size


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
    return [cut(sequence, part) for part in slices(len(sequence), part_count, dist)]


def join(parts: Sequence[object], dist: str = "b") -> object:
    """Put together what `partition` cut: arrays, frames and tables to one, sequences to a list.

    What is none of these (as after a scatter with ``flatten``) is returned as a list of the
    parts; so are bytes and strings, which are as often values of their own.
    """
    check_dist(dist)
    numpy = sys.modules.get("numpy")
    if numpy is not None and any(isinstance(part, numpy.ndarray) for part in parts):
        return _join_arrays(parts, dist)
    kind = kind_of(parts[0]) if parts else None
    if kind is not None and all(kind_of(part) is kind for part in parts):
        return kind.join(parts) if dist == "b" else join_dealt(parts, kind)
    sequences = [part for part in parts if is_part(part)]
    if len(sequences) < len(parts):
        return list(parts)
    return list(chain.from_iterable(sequences) if dist == "b" else items_of(sequences, dist))


def is_part(candidate: object) -> TypeGuard[Iterable[Item]]:
    """Whether it consists of items of what was cut, and is not one itself, as a str may be."""
    if isinstance(candidate, list | tuple | range):
        return True
    kind = kind_of(candidate)
    if kind is not None:
        return kind.has_items
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(candidate, numpy.ndarray) and candidate.ndim > 0


def items_of(parts: Iterable[Iterable[T]], dist: str = "b") -> Iterator[T]:
    """Yield the items of parts as they were before the cut; asks for a part when it must.

    >>> "".join(items_of(["ad", "be", "c"], "r"))
    'abcde'
    """
    if dist == "b":
        for part in parts:
            yield from part
        return
    iterators: list[Iterator[T]] = []
    for part in parts:
        iterators.append(iter(part))
        yield from islice(iterators[-1], 1)
    while iterators:
        remaining = []
        for iterator in iterators:
            for item in islice(iterator, 1):
                remaining.append(iterator)
                yield item
        iterators = remaining


def _join_arrays(parts: Sequence[object], dist: str) -> object:
    numpy = sys.modules["numpy"]
    arrays = [numpy.asanyarray(part) for part in parts]
    if any(array.ndim == 0 for array in arrays):
        return list(parts)
    filled = [array for array in arrays if len(array)] or arrays[:1]
    if dist == "b":
        return _concatenate(filled)
    step = len(arrays)
    places = [numpy.arange(n, n + len(each) * step, step) for n, each in enumerate(arrays)]
    return _concatenate(filled, numpy.argsort(numpy.concatenate(places)))


def _concatenate(arrays: Sequence[Item], order: Item = ...) -> Item:
    """Concatenate and index; keep what numpy drops: byte order, class and fill value."""
    numpy = sys.modules["numpy"]
    first = arrays[0]
    masked = [array for array in arrays if isinstance(array, numpy.ma.MaskedArray)]
    joined = (numpy.ma if masked else numpy).concatenate(arrays)[order]
    if all(array.dtype == first.dtype for array in arrays):
        joined = joined.astype(first.dtype, copy=False)
    if type(joined) is numpy.ndarray and all(type(array) is type(first) for array in arrays):
        joined = joined.view(type(first))
    if masked:
        joined.fill_value = masked[0].fill_value
    return joined


def chunked(items: Iterable[T], length: int) -> Iterator[tuple[T, ...]]:
    """Cut `items` into runs of `length`; the last may be shorter.

    >>> list(chunked("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    """
    iterator = iter(items)
    return iter(lambda: tuple(islice(iterator, length)), ())


def chunks_of_columns(
    sequences: Sequence[Iterable[object]], length: int
) -> Iterator[tuple[Sequence[object], ...]]:
    """Cut sequences into runs of `length` items, each a part of each; the shortest ends it.

    What can be cut as a whole is: a part of a range or an array is pickled, sent and read in
    much less time than its items one by one.

    >>> list(chunks_of_columns([range(5), "abcde"], 3))
    [((0, 1, 2), ('a', 'b', 'c')), ((3, 4), ('d', 'e'))]
    >>> list(chunks_of_columns([range(5)], 3))
    [(range(0, 3),), (range(3, 5),)]
    """
    if all(map(_is_plain_sequence, sequences)):
        sized = cast("Sequence[Sliceable]", sequences)
        shortest = min(map(len, sized))
        for start in range(0, shortest, length):
            part = slice(start, min(start + length, shortest))
            yield tuple(each[part] for each in sized)
    elif len(sequences) == 1:
        for items in chunked(sequences[0], length):
            yield (items,)
    else:
        for rows in chunked(zip(*sequences, strict=False), length):
            yield tuple(zip(*rows, strict=True))


def _is_plain_sequence(candidate: Item) -> bool:
    """Whether its parts have the same items as it has itself: not so for all classes."""
    if type(candidate) in (list, tuple, range):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(candidate) is numpy.ndarray and candidate.ndim > 0


def columns(sequences: Sequence[Iterable[object]]) -> tuple[Sequence[object], ...]:
    """Return the sequences, equally long, as ``zip`` would end with the shortest.

    What can be cut without a copy (arrays, ranges, lists) stays what it is; other iterables
    become lists, and an endless one is read as far as the shortest sequence goes. The items of
    a frame or a table are its columns, as for the built-in `map`.

    Raises
    ------
    ValueError
        If there is no sequence.
    """
    if not sequences:
        raise ValueError("map needs at least one sequence")
    sequences = [
        list(each) if (kind := kind_of(each)) and not kind.has_items else each
        for each in sequences
    ]
    sized = [each for each in sequences if _is_sliceable(each)]
    shortest = min(map(len, sized), default=None)  # type: ignore[arg-type]
    lists = [
        each if _is_sliceable(each) else list(islice(each, shortest)) for each in sequences
    ]
    length = min(map(len, lists))  # type: ignore[arg-type]
    return tuple(
        each if len(each) == length else cut(each, slice(length))  # type: ignore[arg-type, misc]
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
    is_scalar = getattr(sequence, "ndim", 1) == 0  # an array, which says that it is iterable
    if is_scalar or isinstance(sequence, Mapping) or not isinstance(sequence, Iterable):
        raise TypeError(
            "give a sequence to be cut, such as a list or an array, not"
            f" {brief_repr(sequence)} ({type(sequence).__name__})"
        )
    return list(sequence)


def _is_sliceable(candidate: object) -> bool:
    if isinstance(candidate, Sequence):
        return not isinstance(candidate, deque)  # the only one without slices
    # Arrays and series; sets and dicts have a length, too, but cannot be cut.
    is_array = hasattr(candidate, "__len__") and hasattr(candidate, "__array__")
    return is_array and getattr(candidate, "ndim", 1) > 0
