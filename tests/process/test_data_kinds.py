"""Data of all kinds arrive equal and of the same type, by shared memory and by sockets."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from parallelz import Client, Cluster, settings

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.process

SMALL = 12
LARGE = 200_000  # items; with 8 bytes each more than what goes by sockets on one host
GIB = 2**30

Made = Any
Make = Callable[[int], Made]


@pytest.fixture(scope="module", params=["small", "shared memory", "sockets"])
def way(request: pytest.FixtureRequest) -> str:
    """Return how data go: inside envelopes, or large by one of two ways."""
    return str(request.param)


@pytest.fixture
def size(way: str) -> int:
    """Return how many items an object has."""
    return SMALL if way == "small" else LARGE


@pytest.fixture(scope="module")
def rc(way: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of two engines."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "sockets":
            patch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
        with Cluster(n=2, profile_dir=tmp_path_factory.mktemp("profile")) as rc:
            rc.load_balanced_view().apply_sync(abs, -1)
            rc.hub_history()  # the recorder, too, is there before the first test
            yield rc


# -- what is sent -------------------------------------------------------------------------


def floats(n: int) -> Made:
    return np.arange(n, dtype=float)


def structured(n: int) -> Made:
    made = np.zeros(n, dtype=[("x", "<f8"), ("name", "S3"), ("pair", ">i2", (2,))])
    made["x"], made["name"], made["pair"] = floats(n), b"abc", 7
    return made


ARRAYS: dict[str, Make] = {
    "contiguous": floats,
    "strided": lambda n: floats(2 * n)[::2],
    "reversed": lambda n: floats(n)[::-1],
    "broadcast": lambda n: np.broadcast_to(floats(4), (n, 4)),
    "Fortran order": lambda n: np.asfortranarray(floats(n).reshape(-1, 4)),
    "transposed": lambda n: floats(n).reshape(2, 2, -1).T,
    "zero-length": lambda n: np.empty((0, 3), dtype="i2"),
    "an axis of no length": lambda n: np.empty((n, 0, 2)),
    "object": lambda n: np.array([{"k": 1}, "text", None, 2.5] * (n // 4), dtype=object),
    "structured": structured,
    "record": lambda n: structured(n).view(np.recarray),
    "big-endian": lambda n: floats(n).astype(">f8"),
    "datetime64": lambda n: np.arange(n).astype("M8[ms]"),
    "timedelta64": lambda n: np.arange(n).astype("m8[us]"),
    "text": lambda n: floats(n).astype("U8"),
    "bool": lambda n: floats(n) > 3,
    "complex": lambda n: floats(n) + 1j,
    "masked": lambda n: np.ma.masked_less(floats(n), 4),
    "masked, with a fill value": lambda n: np.ma.array(floats(n), fill_value=-7),
}

BYTES: dict[str, Make] = {
    "bytes": lambda n: bytes(range(12)) * n,
    "bytearray": lambda n: bytearray(range(12)) * n,
    "array.array of floats": lambda n: array.array("d", range(n)),
    "array.array of integers": lambda n: array.array("H", [1, 2] * n),
    "memoryview": lambda n: memoryview(bytes(range(12)) * n),
    "memoryview of floats": lambda n: memoryview(array.array("d", range(n))),
    "memoryview, strided": lambda n: memoryview(array.array("d", range(2 * n)))[::2],
    "memoryview, two axes": lambda n: memoryview(floats(n).reshape(4, -1)),
    "memoryview, Fortran order": lambda n: memoryview(np.asfortranarray(np.ones((2, n)))),
    "memoryview of characters": lambda n: memoryview(bytes(8 * n)).cast("c"),
    "memoryview, big-endian": lambda n: memoryview(floats(n).astype(">f8")),
    "memoryview of structures": lambda n: memoryview(structured(n)),
    "memoryview of complex numbers": lambda n: memoryview(floats(n) + 1j),
}


def arrow_table(n: int) -> Made:
    pa = pytest.importorskip("pyarrow")
    return pa.table({"i": np.arange(n), "s": ["é"] * n, "none": [None, 1.5] * (n // 2)})


def arrow_array(n: int) -> Made:
    return pytest.importorskip("pyarrow").array([1, None, 3] * n)


def frame(n: int) -> Made:
    pd = pytest.importorskip("pandas")
    made = pd.DataFrame(
        {
            "x": floats(n),
            "kind": pd.Categorical(["a", "b"] * (n // 2)),
            "when": pd.date_range("2020", periods=n, freq="s", tz="Europe/Rome"),
            "maybe": pd.array([1, None] * (n // 2), dtype="Int64"),
        },
        index=pd.Index(floats(n) / 2, name="half"),
    )
    made.attrs["unit"] = "m"
    return made


TABLES: dict[str, Make] = {
    "arrow table": arrow_table,
    "arrow table, sliced": lambda n: arrow_table(2 * n).slice(3, n),
    "arrow batch": lambda n: arrow_table(n).to_batches()[0],
    "arrow array": arrow_array,
    "arrow array of a dictionary": lambda n: arrow_array(n).dictionary_encode(),
    "arrow chunks": lambda n: arrow_table(n)["none"],
    "frame": frame,
    "frame of one block": lambda n: frame(n)[["x"]].reset_index(drop=True),
    "frame with two indices": lambda n: frame(n).set_index("kind", append=True),
    "frame without rows": lambda n: frame(n).iloc[:0],
    "series": lambda n: frame(n)["x"],
    "series of times": lambda n: frame(n)["when"],
    "series of text": lambda n: frame(n)["x"].iloc[:100].astype("str"),
    "index": lambda n: frame(n).index,
    "index of times": lambda n: frame(n).set_index("when").index,
}

WITHOUT_LENGTH: dict[str, Make] = {
    "no axes": lambda n: np.array(3.5),
    "a number of numpy": lambda n: np.float32(2.5),
    "a time of numpy": lambda n: np.datetime64("2020-01-01", "ns"),
    "memoryview, no axes": lambda n: memoryview(np.array(3.5)),
    "memoryview, an axis of no length": lambda n: memoryview(np.empty((0, 3))),
    "arrow buffer": lambda n: pytest.importorskip("pyarrow").py_buffer(bytes(8 * n)),
}

JOINED = {
    **ARRAYS,
    **TABLES,
    **{name: make for name, make in BYTES.items() if name.startswith("array.array")},
}


def assert_same(arrived: Made, sent: Made, *, order: bool = True) -> None:
    """Check the type, all that belongs to it, and the values."""
    assert type(arrived) is type(sent)
    match type(sent).__module__.partition(".")[0], sent:
        case "numpy", np.ma.MaskedArray():
            np.testing.assert_array_equal(arrived.mask, sent.mask)
            np.testing.assert_array_equal(arrived.filled(0), sent.filled(0), strict=True)
            assert arrived.fill_value == sent.fill_value
        case "numpy", _:
            np.testing.assert_array_equal(arrived, sent, strict=True)
            assert arrived.dtype == sent.dtype
            if order and sent.flags.forc:
                assert arrived.flags.f_contiguous == sent.flags.f_contiguous
        case "pandas", _:
            assert arrived.equals(sent)
            for fact in ("dtype", "dtypes", "name", "names", "attrs"):
                assert np.all(getattr(arrived, fact, None) == getattr(sent, fact, None))
            if not isinstance(sent, pytest.importorskip("pandas").Index):
                assert arrived.index.dtype == sent.index.dtype
                assert arrived.index.names == sent.index.names
        case "builtins", memoryview():
            assert (arrived.format, arrived.shape) == (sent.format, sent.shape)
            assert arrived.tobytes() == sent.tobytes()
        case _:
            assert arrived == sent


def all_kinds(kinds: dict[str, Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", kinds.values(), ids=kinds)


# -- how it is sent -----------------------------------------------------------------------


@all_kinds({**ARRAYS, **BYTES, **TABLES, **WITHOUT_LENGTH})
def test_arguments_results_and_what_is_pushed_and_pulled_arrive_as_they_were(
    rc: Client, make: Make, size: int
) -> None:
    sent = make(size)
    plain, inner = rc[0].apply_sync(
        lambda plain, *, named: (plain, {"inner": named[0]}), sent, named=[sent]
    )
    assert_same(plain, sent)
    assert_same(inner["inner"], sent)
    rc[:].push({"thing": sent}, block=True)
    for pulled in rc[:].pull("thing", block=True):
        assert_same(pulled, sent)


@pytest.mark.parametrize("dist", ["b", "r"])
@all_kinds(JOINED)
def test_what_is_scattered_is_gathered_as_it_was(
    rc: Client, make: Make, size: int, dist: str
) -> None:
    sent = make(size)
    if make is ARRAYS["big-endian"] and dist == "r":
        sent = sent.astype(float)  # numpy itself pickles every other item so
    rc[:].scatter("thing", sent, dist=dist, block=True)
    assert_same(rc[:].gather("thing", dist=dist, block=True), sent, order=False)


@all_kinds(
    {"bytes": BYTES["bytes"], "bytearray": BYTES["bytearray"], "views": BYTES["memoryview"]}
)
def test_bytes_that_are_scattered_are_gathered_as_a_list_of_their_parts(
    rc: Client, make: Make, size: int
) -> None:
    sent = make(size)
    rc[:].scatter("thing", sent, block=True)
    half = len(sent) // 2
    assert rc[:].gather("thing", block=True) == [sent[:half], sent[half:]]


@all_kinds({"frame": TABLES["frame of one block"], "series": TABLES["series"]})
def test_a_parallel_function_of_a_frame_gives_a_frame(
    rc: Client, make: Make, size: int
) -> None:
    sent = make(size)
    doubled = rc[:].parallel(block=True)(lambda part: 2 * part)
    assert_same(doubled(sent), 2 * sent)


def free_bytes() -> int:
    """Return how much memory there is, also for a container."""
    free = int(psutil.virtual_memory().available)
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return free if text == "max" else min(free, int(text))


@pytest.mark.slow
@pytest.mark.service
# By sockets the controller is busy with it for so long that nothing is recorded meanwhile.
@pytest.mark.filterwarnings("ignore:history")
@pytest.mark.parametrize("way", ["shared memory", "sockets"], indirect=True)
def test_an_object_of_three_gigabytes_goes_there_and_back(rc: Client) -> None:
    if free_bytes() < 16 * GIB:
        pytest.skip("needs 16 GiB of free memory")
    sent = np.arange(3 * GIB // 8)
    arrived = rc[0].apply_sync(lambda array: array, sent)
    assert arrived.nbytes == 3 * GIB
    assert (arrived[:: 2**20] == sent[:: 2**20]).all()
    assert arrived[-1] == sent[-1]
