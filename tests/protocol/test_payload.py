from __future__ import annotations

import array
import pickle
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from parallelz.errors import SerializationError
from parallelz.protocol import payload, pickling
from parallelz.protocol.payload import (
    INLINE_BYTES_MAX,
    dump,
    dump_simple_call,
    load,
    register_serializer,
)


def travel(obj: object) -> object:
    """What arrives of an object, by way of bytes as a network delivers them."""
    sent = dump(obj)
    assert len(sent.data) < INLINE_BYTES_MAX
    assert all(memoryview(buffer).nbytes >= INLINE_BYTES_MAX for buffer in sent.buffers)
    return load(sent.data, [bytearray(buffer) for buffer in sent.buffers])


@pytest.mark.parametrize("obj", [None, 1, "é", [1, {"a": (2, {3})}], (0, (1,), {}), b"", {}])
def test_plain_objects_arrive_as_they_were_inside_the_envelope(obj: object) -> None:
    assert travel(obj) == obj
    assert dump(obj).frame_count == 0


@pytest.mark.parametrize(
    "made",
    [
        np.arange(10),
        np.arange(100_000.0),
        np.arange(100_000).reshape(100, 1000)[::2, ::3],
        np.asfortranarray(np.arange(60_000).reshape(200, 300)),
        np.zeros((0, 3)),
        np.array(2.5),
        np.zeros(3000, dtype=[("name", "U4"), ("x", "f8")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([{1}, "two"], dtype=object),
        np.ma.masked_array([1, 2], mask=[False, True]),
    ],
    ids=lambda made: f"{made.dtype}-{made.shape}",
)
def test_arrays_arrive_equal_with_type_and_shape(made: np.ndarray) -> None:
    arrived = travel((0, (made,), {"k": [made]}))
    assert isinstance(arrived, tuple)
    array_there = arrived[1][0]
    assert type(array_there) is type(made)
    assert array_there.dtype == made.dtype
    np.testing.assert_array_equal(array_there, made)
    assert arrived[2]["k"][0] is array_there, "what was one object is one object"


@pytest.mark.parametrize("length", [3, 100_000])
def test_arrays_are_read_only_where_they_arrive_whatever_their_size(length: int) -> None:
    arrived = travel({"a": np.ones(length)})
    assert isinstance(arrived, dict)
    assert not arrived["a"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        arrived["a"][0] = 2


def test_a_large_array_is_copied_neither_on_the_way_out_nor_on_the_way_in() -> None:
    made = np.arange(100_000)
    sent = dump([made])
    assert np.shares_memory(np.frombuffer(sent.buffers[0], made.dtype), made)
    arrived = load(sent.data, sent.buffers)
    assert isinstance(arrived, list)
    assert np.shares_memory(arrived[0], made)


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: array.array("d", data)])
def test_large_bytes_and_the_like_are_not_copied_on_the_way_out(kind: type) -> None:
    made = kind(bytes(80_000))
    sent = dump((0, (made, [made]), {"k": made}))
    assert sent.frame_count == 1
    assert np.shares_memory(np.frombuffer(sent.buffers[0], "B"), np.frombuffer(made, "B"))
    arrived = travel((0, (made, [made]), {"k": made}))
    assert arrived == (0, (made, [made]), {"k": made})
    assert isinstance(arrived, tuple)
    assert type(arrived[1][0]) is type(made)


def test_bytes_that_are_one_frame_are_not_copied_on_the_way_in_either() -> None:
    made = bytes(80_000)
    sent = dump([made])
    arrived = load(sent.data, [made])
    assert isinstance(arrived, list)
    assert arrived[0] is made


def test_bytes_deep_inside_arrive_too() -> None:
    deep = {"a": [[[{"b": bytes(50_000)}]]], "many": [bytes(20_000)] * 100}
    assert travel(deep) == deep
    assert dump(deep).data == b""


@pytest.mark.parametrize(
    "made",
    [
        memoryview(b"abc"),
        memoryview(bytes(50_000)),
        memoryview(b""),
        memoryview(b"abcdef")[::2],
        memoryview(array.array("d", [1, 2])),
        memoryview(np.arange(6.0).reshape(2, 3)),
    ],
)
def test_memoryviews_arrive_equal_and_read_only(made: memoryview) -> None:
    arrived = travel(made)
    assert isinstance(arrived, memoryview)
    assert arrived == made
    assert arrived.readonly


@pytest.mark.parametrize(
    "made",
    [
        memoryview(np.arange(3, dtype=">i4")),
        memoryview(np.zeros(3, dtype=[("x", "<f8"), ("n", "i4")])),
        memoryview(np.ones(3) + 1j),
        memoryview(np.array(1.5)),
        memoryview(np.empty((0, 3))),
        memoryview(np.arange(3, dtype=">i4"))[::2],
    ],
)
def test_views_of_arrays_keep_their_format_and_shape(made: memoryview) -> None:
    arrived = travel(made)
    assert isinstance(arrived, memoryview)
    assert (arrived.format, arrived.shape) == (made.format, made.shape)
    assert arrived.tobytes() == made.tobytes()
    assert arrived.readonly


def test_many_small_buffers_do_not_fill_the_envelope() -> None:
    made = [np.full(100, number) for number in range(1000)]
    sent = dump(made)
    assert sent.data == b""
    assert sent.frame_count == 1
    np.testing.assert_array_equal(load(sent.data, sent.buffers), made)


def test_small_buffers_are_aligned_for_their_type() -> None:
    arrived = travel([np.arange(3, dtype="i1"), np.arange(3.0), np.arange(3, dtype="c16")])
    assert isinstance(arrived, list)
    assert all(made.flags.aligned for made in arrived)


def test_a_large_pickle_is_the_first_frame() -> None:
    text = "x" * INLINE_BYTES_MAX
    sent = dump([text, np.zeros(10_000)])
    assert sent.data == b""
    assert sent.frame_count == 2
    assert sent.nbytes > INLINE_BYTES_MAX + 80_000
    arrived = load(sent.data, sent.buffers)
    assert isinstance(arrived, list)
    assert arrived[0] == text


def test_classes_of_main_go_by_value_with_their_instances() -> None:
    main: dict[str, object] = {"__name__": "__main__"}
    exec("class Point:\n    def __init__(self, x): self.x = x\n", main)
    point = main["Point"](3)  # type: ignore[operator]
    arrived = travel([point, main["Point"]])
    assert isinstance(arrived, list)
    assert arrived[0].x == 3
    assert isinstance(arrived[0], arrived[1])


def test_lambdas_inside_arguments_arrive_callable() -> None:
    base = 5
    arrived = travel((0, (lambda x: x + base,), {}))
    assert isinstance(arrived, tuple)
    assert arrived[1][0](2) == 7


LOCK = threading.Lock()


class Holder:
    def __init__(self) -> None:
        self.inner = {"lock": LOCK}


@pytest.mark.parametrize(
    ("obj", "part"),
    [
        (LOCK, "cannot pickle '_thread.lock' object"),
        ((0, (1, {"lock": LOCK}), {}), "argument 1, ['lock']: cannot pickle"),
        ((0, (LOCK,), {}), "argument 0: cannot pickle"),
        ((0, (), {"guard": LOCK}), "argument 'guard': cannot pickle"),
        ((0, (Holder(),), {}), "argument 0, .inner['lock']: cannot pickle"),
        ([1, {"a": [*range(500), LOCK, *range(500)]}], "[1]['a'][500]: cannot pickle"),
        ((0, (lambda lock=LOCK: lock,), {}), "argument 0, default of <lambda>: cannot pickle"),
    ],
)
def test_what_cannot_be_pickled_is_named(obj: object, part: str) -> None:
    with pytest.raises(SerializationError) as caught:
        dump(obj)
    assert str(caught.value).startswith(part)


def test_an_object_that_contains_itself_and_a_lock_is_named_all_the_same() -> None:
    ring: list[object] = [LOCK]
    ring.insert(0, ring)
    with pytest.raises(SerializationError, match=r"^\[1\]: cannot pickle"):
        dump(ring)


def test_an_error_of_the_users_own_pickling_code_is_shown() -> None:
    class Stubborn:
        def __reduce__(self) -> str:
            raise KeyError("not me")

    with pytest.raises(SerializationError, match="not me"):
        dump([Stubborn()])


class Picture:
    def __init__(self, pixels: bytearray) -> None:
        self.pixels = pixels

    def __reduce__(self) -> str:
        raise TypeError("only by the registered way")


def take_pixels(picture: Picture) -> object:
    return pickle.PickleBuffer(picture.pixels)


@pytest.fixture
def registered() -> Iterator[None]:
    register_serializer(Picture, take_pixels, lambda pixels: Picture(pixels))
    yield
    del pickling.serializers[Picture]


@pytest.mark.usefixtures("registered")
def test_a_registered_type_goes_its_own_way_without_a_copy() -> None:
    picture = Picture(bytearray(50_000))
    sent = dump([picture, np.zeros(3), {1}])
    assert np.shares_memory(
        np.frombuffer(sent.buffers[0], "B"), np.frombuffer(picture.pixels, "B")
    )
    arrived = travel([picture, lambda: 1, {1}])
    assert isinstance(arrived, list)
    assert arrived[0].pixels == picture.pixels
    assert arrived[0].pixels.readonly


@pytest.mark.parametrize(
    "args",
    [(), (1, 2.5, None, True), ("text", "\ud800", "_main__"), (10**5000,), ("x" * 20_000,)],
    ids=["none", "numbers", "texts", "a huge number", "a long text"],
)
def test_simple_calls_are_pickled_as_all_are(args: tuple[object, ...]) -> None:
    call = (0, args, {})
    pickled = dump_simple_call(call)
    assert pickled == dump(call)
    assert load(*pickled) == call


@pytest.mark.parametrize("args", [(1, []), (b"",), (lambda: 1,), (type("I", (int,), {})(),)])
def test_calls_with_other_arguments_are_not_taken_for_simple(args: tuple[object, ...]) -> None:
    assert dump_simple_call((0, args, {})) is None
    assert dump_simple_call((0, (), {"key": 1})) is None


def test_a_payload_that_is_cut_short_is_an_error_and_not_nonsense() -> None:
    sent = dump([np.zeros(3), np.zeros(10_000)])
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        load(sent.data[:-1], sent.buffers)
    assert payload.Payload(b"", ()).frame_count == 0
