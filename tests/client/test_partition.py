from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelz.client.partition import (
    as_sliceable,
    chunks_of_columns,
    columns,
    join,
    partition,
)


def test_blocks_are_runs_of_neighbours_and_the_first_are_longer() -> None:
    parts = [list(part) for part in partition(range(10), 4)]
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]


def test_round_robin_deals_out() -> None:
    assert partition([0, 1, 2, 3, 4], 2, "r") == [[0, 2, 4], [1, 3]]


@given(st.lists(st.integers()), st.integers(1, 9), st.sampled_from("br"))
def test_join_undoes_partition(items: list[int], count: int, dist: str) -> None:
    parts = partition(items, count, dist)
    assert len(parts) == count
    assert join(parts, dist) == items


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 5, 12])
def test_arrays_stay_arrays_of_their_dtype(dist: str, length: int) -> None:
    array = np.arange(2 * length, dtype=np.int16).reshape(length, 2)
    joined = join(partition(array, 4, dist), dist)
    assert isinstance(joined, np.ndarray)
    assert joined.dtype == np.int16
    np.testing.assert_array_equal(joined, array)


def test_what_is_no_sequence_is_a_list_of_the_parts() -> None:
    assert join([1, 2, 3]) == [1, 2, 3]
    assert join([np.float64(1), np.array(2.0)]) == [1, 2]


def test_unknown_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="'b'"):
        partition([1], 1, "x")


def test_columns_end_with_the_shortest() -> None:
    assert columns([[1, 2, 3], "ab"]) == ([1, 2], "ab")
    assert columns([range(3), itertools.count()]) == (range(3), [0, 1, 2])
    assert columns([iter([1, 2])]) == ([1, 2],)
    with pytest.raises(ValueError, match="at least one"):
        columns([])


KINDS = [list, tuple, iter, range, np.array, deque]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 12)), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_chunks_have_the_items_that_zip_gives(
    given_kinds: list[tuple[Callable[..., Any], int]], length: int
) -> None:
    def sequences() -> list[Any]:
        return [
            kind(length if kind is range else range(length)) for kind, length in given_kinds
        ]

    chunks = list(chunks_of_columns(sequences(), length))
    rows = [row for chunk in chunks for row in zip(*chunk, strict=True)]
    assert rows == list(zip(*sequences(), strict=False))
    assert all(len(chunk[0]) == length for chunk in chunks[:-1])


def test_a_class_whose_parts_may_be_something_else_is_read_item_by_item() -> None:
    class Fibers(list[int]):
        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("items are asked for by iterating")

    assert list(chunks_of_columns([Fibers([1, 2, 3])], 2)) == [((1, 2),), ((3,),)]


def test_a_map_over_a_frame_goes_over_its_columns_as_the_built_in_one() -> None:
    pd = pytest.importorskip("pandas")
    assert columns([pd.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})]) == (["a", "b"],)


def test_series_are_cut_by_position_whatever_their_labels() -> None:
    pd = pytest.importorskip("pandas")
    series = pd.Series([1, 2, 3, 4], index=[3.0, 2.0, 1.0, 0.0])
    assert [list(part) for part in partition(series, 2)] == [[1, 2], [3, 4]]
    (cut,) = columns([series, "ab"])[:1]
    assert list(cut) == [1, 2]


@pytest.mark.parametrize("dist", ["b", "r"])
def test_frames_are_joined_whole_though_some_parts_are_empty(dist: str) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["one", "two"])
    pd.testing.assert_frame_equal(join(partition(frame, 4, dist), dist), frame)


@pytest.mark.parametrize("dist", ["b", "r"])
def test_tables_of_nothing_are_joined(dist: str) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": pa.array([], pa.int32())})
    assert join(partition(table, 2, dist), dist).equals(table)  # type: ignore[attr-defined]


def test_what_cannot_be_cut_is_a_list_or_refused() -> None:
    assert as_sliceable(deque([1, 2])) == [1, 2]
    for what in (np.array(3), {"a": 1}, None):
        with pytest.raises(TypeError, match=r"give a sequence .* not .*\((ndarray|dict|None)"):
            as_sliceable(what)  # type: ignore[arg-type]


def test_a_frame_among_other_things_is_one_of_the_parts() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2]})
    joined = join([frame, None])
    assert isinstance(joined, list)
    assert joined[0] is frame


def test_joined_arrays_keep_class_byte_order_and_fill_value() -> None:
    record = np.zeros(4, dtype=[("x", ">f8")]).view(np.recarray)
    assert isinstance(join(partition(record, 2)), np.recarray)
    swapped = join(partition(np.arange(4.0).astype(">f8"), 2, "r"), "r")
    assert swapped.dtype == ">f8"  # type: ignore[attr-defined]
    masked = np.ma.array([1.0, 2.0], mask=[0, 1], fill_value=-7)
    assert join(partition(masked, 2)).fill_value == -7  # type: ignore[attr-defined]
