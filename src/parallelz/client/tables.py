"""Frames, series and tables of pandas and pyarrow, and `array.array`: cut and joined. Pure.

Neither library is imported here: who has an object of theirs has them already.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Table = Any
"""What is cut and joined here: the libraries have no types that could be named."""


class Kind(NamedTuple):
    """How objects of one kind are put together."""

    join: Callable[[Sequence[Table]], Table]
    pick: Callable[[Table, list[int]], Table]  # the items at these positions, in this order
    has_items: bool = True  # False: who iterates gets columns


def cut(sequence: Table, part: int | slice | list[int]) -> Table:
    """Return an item or some of a sequence, always by position."""
    # The brackets of pandas may look for labels, or for columns.
    positions: Table = getattr(sequence, "iloc", sequence)
    return positions[part]


def kind_of(candidate: object) -> Kind | None:
    """Return how to join parts such as this; None: it is of no kind that is known here."""
    for base in type(candidate).__mro__:
        package = base.__module__.partition(".")[0]
        found = _KINDS.get(f"{package}.{base.__name__}")
        if found is not None:
            return found
    return None


def join_dealt(parts: Sequence[Table], kind: Kind) -> Table:
    """Join parts that were dealt out like cards."""
    order: list[int] = []
    lengths = [len(part) for part in parts]
    starts = [sum(lengths[:number]) for number in range(len(parts))]
    for turn in range(max(lengths)):
        order += [
            start + turn for start, length in zip(starts, lengths, strict=True) if turn < length
        ]
    joined = kind.join(parts)
    return kind.pick(joined, order) if order else joined  # pyarrow has no type for no order


def _join_frames(parts: Sequence[Table]) -> Table:
    # What is empty may have other dtypes.
    filled = [part for part in parts if len(part)] or parts[:1]
    return sys.modules["pandas"].concat(filled)


def _join_index(parts: Sequence[Table]) -> Table:
    filled = [part for part in parts if len(part)] or parts[:1]
    return filled[0].append(list(filled[1:]))


def _join_chunked(parts: Sequence[Table]) -> Table:
    chunks = [chunk for part in parts for chunk in part.chunks]
    return sys.modules["pyarrow"].chunked_array(chunks, parts[0].type)


def _join_array(parts: Sequence[array.array[Any]]) -> array.array[Any]:
    joined: array.array[Any] = array.array(parts[0].typecode)
    for part in parts:
        joined.extend(part)
    return joined


def _take(table: Table, order: list[int]) -> Table:
    return table.take(order)


_KINDS = {
    "pandas.DataFrame": Kind(_join_frames, cut, has_items=False),
    "pandas.Series": Kind(_join_frames, cut),
    "pandas.Index": Kind(_join_index, _take),
    "pyarrow.Table": Kind(
        lambda parts: sys.modules["pyarrow"].concat_tables(parts), _take, has_items=False
    ),
    "pyarrow.RecordBatch": Kind(
        lambda parts: sys.modules["pyarrow"].concat_batches(parts), _take, has_items=False
    ),
    "pyarrow.Array": Kind(lambda parts: sys.modules["pyarrow"].concat_arrays(parts), _take),
    "pyarrow.ChunkedArray": Kind(_join_chunked, _take),
    "array.array": Kind(
        _join_array,
        lambda joined, order: array.array(joined.typecode, map(joined.__getitem__, order)),
    ),
}
