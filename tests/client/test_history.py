"""Questions about the past, to a real recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from parallelz import AsyncHubResult, Client, Cluster
from parallelz.store.query import QueryError

pytestmark = pytest.mark.process

TIMEOUT_S = 30


@pytest.fixture
def rc(tmp_path: Path) -> Iterator[Client]:
    with Cluster(n=1, profile_dir=tmp_path) as client:
        yield client


def make_divide() -> Callable[[int, int], float]:
    def divide(x: int, y: int) -> float:
        print("dividing")
        return x / y

    return divide  # by value: engines cannot import what is beside the tests


divide = make_divide()


def test_another_client_takes_results_up(rc: Client, tmp_path: Path) -> None:
    good = rc.view().apply_async(divide, 1, 2)
    bad = rc.view().apply_async(divide, 1, 0)
    assert rc.wait(timeout=TIMEOUT_S)
    with Client(profile_dir=tmp_path) as other:
        result = other.get_result([*good.msg_ids, *bad.msg_ids])
        assert isinstance(result, AsyncHubResult)
        assert result.wait(TIMEOUT_S)
        assert result[0] == 0.5
        assert result.stdout == ["dividing\n"] * 2
        with pytest.raises(ZeroDivisionError):
            other.get_result(bad.msg_ids[0]).get(TIMEOUT_S)
        with pytest.raises(KeyError, match="No such message: nobody-0"):
            other.get_result("nobody-0")


def test_the_database_can_be_asked(rc: Client) -> None:
    good = rc.view().apply_async(divide, 1, 2)
    bad = rc.view().apply_async(divide, 1, 0)
    assert rc.wait(timeout=TIMEOUT_S)
    assert rc.hub_history() == rc.history
    [record] = rc.db_query({"status": "error"})
    assert record["msg_id"] == bad.msg_ids[0]
    assert record["ename"] == "ZeroDivisionError"
    later = good.metadata["submitted"]
    assert len(rc.db_query({"submitted": {"$gte": later}}, ["msg_id", "submitted"])) == 2
    assert rc.db_query({}, ["submitted"])[0]["submitted"] == later
    assert rc.result_status(rc.history) == {"pending": [], "completed": rc.history}
    assert rc.result_status(good, status_only=False)[good.msg_ids[0]] == 0.5
    with pytest.raises(KeyError):
        rc.result_status(["nobody-0"])
    with pytest.raises(QueryError, match="nonsense"):
        rc.db_query({"nonsense": 1})


def test_queries_may_have_numbers_arrays_and_texts_of_numpy(rc: Client) -> None:
    result = rc.view().apply_async(divide, 1, 2)
    assert rc.wait(timeout=TIMEOUT_S)
    for query in (
        {"engine_id": np.int64(0)},
        {"engine_id": {"$in": np.arange(3)}},
        {"submitted": {"$gt": np.float32(0), "$lt": np.float64(1e12)}},
        {"msg_id": np.str_(result.msg_ids[0])},
        {"msg_id": {"$in": iter(result.msg_ids)}},
    ):
        assert [record["msg_id"] for record in rc.db_query(query)] == result.msg_ids
    with pytest.raises(QueryError, match="retries"):
        rc.db_query({"retries": object()})


def test_ended_tasks_can_be_forgotten(rc: Client) -> None:
    first = rc.view().apply_async(divide, 1, 2)
    second = rc.view().apply_async(divide, 1, 2)
    assert rc.wait(timeout=TIMEOUT_S)
    rc.purge_results(first)
    assert rc.hub_history() == second.msg_ids
    rc.purge_results(targets=0)
    assert rc.hub_history() == []
    with pytest.raises(ValueError, match="jobs or targets"):
        rc.purge_results()


def test_imports_are_repeated_on_the_engines(
    rc: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with rc[:].sync_imports():
        import colorsys  # noqa: F401
        from string import ascii_lowercase  # noqa: F401
    assert capsys.readouterr().out.splitlines() == [
        "importing colorsys on engine(s)",
        "importing ascii_lowercase from string on engine(s)",
    ]
    assert rc[:].pull(["colorsys.__name__", "ascii_lowercase[0]"], block=True) == [
        ["colorsys", "a"]
    ]


def test_names_of_engines_by_the_client(rc: Client) -> None:
    rc.block = True
    rc.push({"a": 1, "b": [1, 2]})
    assert rc.pull(("a", "b"), targets=0) == [1, [1, 2]]
    assert rc.pull("a") == [1]
    rc[0]["c"] = 5
    assert rc[0].get("c") == 5
    rc.scatter("d", [7], flatten=True)
    assert rc[0]["d"] == 7
    assert rc.execute("e = a + 1").successful()
    assert rc.gather("b") == [1, 2]
    assert rc.map(abs, [-1, -2]) == [1, 2]
    with pytest.raises(TypeError, match="dict"):
        rc.push([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        rc.pull([1])  # type: ignore[list-item]
