"""Placeholders for results of other tasks, and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from parallelz.errors import SerializationError
from parallelz.protocol import payload
from parallelz.protocol.inputs import TaskInput, providing


def unpickled(obj: object, *inputs: object) -> object:
    """Return what arrives of `obj` where these are the values of the inputs."""
    pickled = payload.dump(obj)
    with providing([payload.dump(value) for value in inputs]):
        return payload.load(*pickled)


def test_single_value_is_put_wherever_it_was_passed() -> None:
    arguments = (1, {"deep": [TaskInput(1, 1, "single")]})
    assert unpickled(arguments, "a", "b") == (1, {"deep": ["b"]})


def test_several_values_are_a_list_in_order() -> None:
    assert unpickled(TaskInput(1, 2, "list"), "a", "b", "c") == ["b", "c"]


def test_chunks_become_one_list() -> None:
    assert unpickled(TaskInput(0, 3, "chunks"), [1, 2], [], [3]) == [1, 2, 3]


def test_value_that_is_passed_twice_is_unpickled_once() -> None:
    twice = (TaskInput(0, 1, "single"), [TaskInput(0, 1, "single")])
    first, (second,) = unpickled(twice, {"a": 1})  # type: ignore[misc]
    assert first is second


def test_large_array_keeps_its_own_frame() -> None:
    array = np.arange(100_000.0)
    (arrived,) = unpickled([TaskInput(0, 1, "single")], array)  # type: ignore[misc]
    np.testing.assert_array_equal(arrived, array)


def test_input_that_cannot_be_unpickled_is_named() -> None:
    pickled = payload.dump(TaskInput(0, 2, "list"))
    with (
        providing([payload.dump(1), (b"\x80\x05garbage", ())]),
        pytest.raises(SerializationError, match=r"input 2 of 2.*cannot be unpickled here"),
    ):
        payload.load(*pickled)


def test_input_that_did_not_come_is_named() -> None:
    with pytest.raises(SerializationError, match="input 2 of this task did not come"):
        unpickled(TaskInput(1, 1, "single"), "only one")


def test_inputs_are_gone_after_the_block() -> None:
    pickled = payload.dump(TaskInput(0, 1, "single"))
    with providing([payload.dump(1)]):
        pass
    with pytest.raises(SerializationError, match="did not come"):
        payload.load(*pickled)
