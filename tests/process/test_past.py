"""What the database is for: tasks of other clients, results taken up, tasks run again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parallelz import (
    AsyncHubResult,
    AsyncResult,
    Client,
    DirectView,
    LoadBalancedView,
    NotRecorded,
    RemoteError,
    TaskLost,
)
from parallelz.client.history import IDS_COUNT_MAX
from parallelz.store.record import PAYLOAD_BYTES_MAX

pytestmark = pytest.mark.process

TIMEOUT_S = 30


@pytest.fixture
def other(rc: Client, cluster_profile_dir: Path) -> Iterator[Client]:
    """Return a second client of the shared cluster."""
    with Client(profile_dir=cluster_profile_dir) as client:
        client.wait_for_engines(2, TIMEOUT_S)
        yield client


def make_functions() -> tuple[Callable[..., object], ...]:
    # By value: engines cannot import what is beside the tests.
    def divide(x: float, y: float) -> float:
        print("dividing")
        return x / y

    def wait_for(path: str) -> str:
        import pathlib
        import time

        while not pathlib.Path(path).exists():
            time.sleep(0.005)
        return path

    def note(path: str) -> int:
        import os

        with open(path, "a") as file:
            file.write("ran\n")
        return os.getpid()

    return divide, wait_for, note


divide, wait_for, note = make_functions()


def recorded(client: Client, result: AsyncResult) -> AsyncResult:
    """Return the result when the database knows of its tasks, which run or wait."""
    client.result_status(result)
    return result


# -- a client reads what it wrote ----------------------------------------------------------


@pytest.mark.slow
def test_a_task_whose_result_is_there_is_completed_in_the_database(
    rc: Client, lv: LoadBalancedView
) -> None:
    for number in range(200):
        result = lv.apply_async(abs, -number)
        assert result.get(TIMEOUT_S) == number
        [record] = rc.db_query({"msg_id": result.msg_ids[0]}, ["status", "completed"])
        assert record["status"] == "ok"
        assert record["completed"] is not None


@pytest.mark.slow
def test_a_task_is_known_as_soon_as_it_was_submitted(rc: Client, lv: LoadBalancedView) -> None:
    for number in range(200):
        result = lv.apply_async(abs, -number)
        status = rc.result_status(result)
        assert result.msg_ids[0] in [*status["pending"], *status["completed"]]  # type: ignore[misc]
    assert rc.wait(timeout=TIMEOUT_S)


# -- results of others ---------------------------------------------------------------------


def test_a_client_takes_up_what_one_that_is_gone_began(
    rc: Client, cluster_profile_dir: Path, tmp_path: Path
) -> None:
    with Client(profile_dir=cluster_profile_dir) as gone:
        gone.wait_for_engines(2, TIMEOUT_S)
        late = gone.view().apply_async(wait_for, str(tmp_path / "go"))
        done = gone.view().apply_async(divide, 1, 2)
        assert done.get(TIMEOUT_S) == 0.5
    result = rc.get_result([*late.msg_ids, *done.msg_ids])
    assert isinstance(result, AsyncHubResult)
    assert not result.ready()
    assert not result.wait(0)
    assert result.progress == 1
    (tmp_path / "go").touch()
    assert result.get(TIMEOUT_S) == [str(tmp_path / "go"), 0.5]
    assert result["stdout"] == ["", "dividing\n"]
    assert result["host"][0]
    assert result["engine_uuid"][0] in {
        e.session_id for e in rc.connection.ledger.engines.values()
    }


def test_results_of_others_come_in_order_and_one_by_one(
    rc: Client, other: Client, tmp_path: Path
) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    theirs = recorded(other, other.view().map_async(wait_for, paths))
    results = iter(rc.get_result(theirs))
    for path in paths:
        Path(path).touch()
        assert next(results) == path


def test_who_waits_for_results_of_others_is_called(
    rc: Client, other: Client, tmp_path: Path
) -> None:
    theirs = recorded(other, other.view().apply_async(wait_for, str(tmp_path / "go")))
    mine = rc.view().apply_async(abs, -1)
    result = rc.get_result(theirs.msg_ids[0])
    joined = type(result).join(mine, result)
    called = threading.Event()
    joined.add_done_callback(lambda ar: called.set())

    async def wait() -> object:
        asyncio.get_running_loop().call_soon((tmp_path / "go").touch)
        return await result

    assert asyncio.run(wait()) == str(tmp_path / "go")
    assert called.wait(TIMEOUT_S)
    assert joined.get(0) == [1, str(tmp_path / "go")]
    assert [part.get(0) for part in joined.split()] == [1, str(tmp_path / "go")]


@pytest.mark.slow
def test_thousands_of_results_of_others_come_in_pieces(rc: Client, other: Client) -> None:
    count = IDS_COUNT_MAX + 1000
    theirs = recorded(other, other.view().map_async(bytes, [1000] * count))
    result = rc.get_result(theirs)
    assert result.get(TIMEOUT_S) == [bytes(1000)] * count


def test_results_of_others_may_be_large_up_to_what_is_kept(rc: Client, other: Client) -> None:
    kept = other.view().map_async(bytes, [PAYLOAD_BYTES_MAX - 1000] * 20)
    dropped = other.view().apply_async(bytes, PAYLOAD_BYTES_MAX + 1000)
    assert other.wait(timeout=TIMEOUT_S)
    values = rc.get_result(kept).get(TIMEOUT_S)
    assert [len(value) for value in values] == [PAYLOAD_BYTES_MAX - 1000] * 20
    with pytest.raises(LookupError, match="not kept in the database"):
        rc.get_result(dropped.msg_ids[0]).get(TIMEOUT_S)


def test_a_task_whose_record_is_purged_meanwhile_is_lost(rc: Client, other: Client) -> None:
    theirs = other.view().apply_async(abs, -1)
    assert theirs.get(TIMEOUT_S) == 1
    result = rc.get_result(theirs.msg_ids[0])
    other.purge_results(theirs)
    with pytest.raises(TaskLost, match=f"{theirs.msg_ids[0]}.* purged"):
        result.get(TIMEOUT_S)


def test_what_failed_is_among_the_results_of_a_status(rc: Client, other: Client) -> None:
    good = other.view().apply_async(divide, 1, 2)
    bad = other.view().apply_async(divide, 1, 0)
    assert other.wait(timeout=TIMEOUT_S)
    ids = [*good.msg_ids, *bad.msg_ids]
    status = rc.result_status(ids, status_only=False)
    assert (status["pending"], status["completed"]) == ([], ids)
    assert status[ids[0]] == 0.5
    assert isinstance(status[ids[1]], ZeroDivisionError)
    assert isinstance(status[ids[1]], RemoteError)


def test_an_index_of_the_history_stands_for_a_task(rc: Client, lv: LoadBalancedView) -> None:
    lv.apply_async(abs, -1).get(TIMEOUT_S)
    lv.apply_async(abs, -2).get(TIMEOUT_S)
    assert rc.get_result().get(TIMEOUT_S) == 2
    assert rc.get_result(-2).get(TIMEOUT_S) == 1
    with pytest.raises(IndexError):
        rc.get_result(10**9)


def test_queues_by_name_list_what_has_ended_too(rc: Client, dv: DirectView) -> None:
    result = dv.apply_async(divide, 1, 2)
    assert result.get(TIMEOUT_S) == [0.5, 0.5]
    status = rc.queue_status(verbose=True)
    for engine_id, task_id in zip(rc.ids, result.msg_ids, strict=True):
        queue = status[engine_id]
        assert isinstance(queue, dict)
        assert queue["completed"][-1] == task_id
        assert (queue["queue"], queue["tasks"]) == ([], [])
    last = rc.queue_status(-1, verbose=True)["completed"]
    assert isinstance(last, list)
    assert last[-1] == result.msg_ids[-1]
    assert isinstance(rc.queue_status(0)["completed"], int)


# -- by tags ------------------------------------------------------------------------------


def test_tags_of_every_kind_of_call_are_found_by_another_client(
    rc: Client, other: Client, lv: LoadBalancedView
) -> None:
    dv = rc[:]
    with lv.temp_flags(tags={"run": 1, "kind": "one"}):
        results = [lv.apply_async(divide, 1, 1)]
    results.append(lv.with_flags(tags={"run": 2}).map_async(divide, [1, 2], [1, 1]))
    with dv.temp_flags(tags={"run": 3, "kind": "all"}):
        results.append(dv.apply_async(divide, 1, 1))
        results.append(dv.scatter("part", range(4), block=False))
    results.append(dv.apply_async(divide, 1, 1))
    for result in results:
        result.get(TIMEOUT_S)
    found = [
        {record["msg_id"] for record in other.db_query({"tags.run": run}, ["msg_id"])}
        for run in (1, 2, 3)
    ]
    both = {*results[2].msg_ids, *results[3].msg_ids}
    assert found == [set(results[0].msg_ids), set(results[1].msg_ids), both]
    assert results[0].metadata["tags"] == {"run": 1, "kind": "one"}  # type: ignore[call-overload]
    assert [each["tags"] for each in results[4].metadata] == [{}, {}]  # type: ignore[index]
    theirs = other.get_result(results[2].msg_ids)
    assert [each["tags"] for each in theirs.metadata] == [  # type: ignore[index]
        {"run": 3, "kind": "all"}
    ] * 2


def test_what_runs_again_has_the_same_tags(rc: Client, lv: LoadBalancedView) -> None:
    tagged = [lv.with_flags(tags={"n": 1}), rc[[0]].with_flags(tags={"n": 2})]
    ids = [view.apply_async(divide, 1, 1).msg_ids[0] for view in tagged]
    again = rc.resubmit(ids, block=True)
    records = rc.db_query({"msg_id": {"$in": again.msg_ids}}, ["tags"])
    assert sorted(record["tags"]["n"] for record in records) == [1, 2]  # type: ignore[index]


# -- once more -----------------------------------------------------------------------------


def test_a_task_of_another_client_runs_again_as_a_new_one(
    rc: Client, other: Client, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    view = other.load_balanced_view()
    view.set_flags(retries=3, label="twice")
    theirs = view.apply_async(note, str(path))
    theirs.get(TIMEOUT_S)
    again = rc.resubmit(theirs.msg_ids[0])
    assert isinstance(again.get(TIMEOUT_S), int)
    assert path.read_text() == "ran\n" * 2
    assert again.msg_ids[0] == rc.history[-1]
    assert again.metadata["label"] == "twice"  # type: ignore[call-overload]
    old, new = (
        rc.db_query({"msg_id": ids[0]}, ["client_uuid", "label", "name", "options", "status"])[
            0
        ]
        for ids in (theirs.msg_ids, again.msg_ids)
    )
    assert old.pop("client_uuid") != new.pop("client_uuid")
    assert old.pop("msg_id") != new.pop("msg_id")
    assert old == new


def test_several_tasks_run_again_in_their_order(rc: Client, lv: LoadBalancedView) -> None:
    ids = lv.map_async(divide, range(20), [1] * 20).msg_ids[::-1]
    again = rc.resubmit(ids, block=True)
    assert again.ready()
    assert again.get() == list(range(20))[::-1]
    assert again.msg_ids == rc.history[-20:]


def test_the_last_task_is_what_runs_again_if_none_is_named(
    rc: Client, lv: LoadBalancedView
) -> None:
    lv.apply_async(abs, -3).get(TIMEOUT_S)
    assert rc.resubmit().get(TIMEOUT_S) == 3


def test_large_arguments_travel_again(rc: Client, lv: LoadBalancedView) -> None:
    first = lv.apply_async(len, bytes(500_000))
    assert first.get(TIMEOUT_S) == 500_000
    assert rc.resubmit([first] * 20).get(TIMEOUT_S) == [500_000] * 20


def test_a_direct_task_runs_again_on_the_same_engine(rc: Client, tmp_path: Path) -> None:
    first = rc[rc.ids[1]].apply_async(note, str(tmp_path / "runs"))
    pid = first.get(TIMEOUT_S)
    again = rc.resubmit(first)
    assert again.get(TIMEOUT_S) == pid
    assert again.metadata["engine_id"] == rc.ids[1]  # type: ignore[call-overload]


def test_results_among_the_arguments_are_there_again(
    rc: Client, other: Client, tmp_path: Path
) -> None:
    view = other.view()
    source = view.apply_async(wait_for, str(tmp_path / "go"))
    theirs = view.apply_async(str.upper, source)
    (tmp_path / "go").touch()
    expected = theirs.get(TIMEOUT_S)
    assert rc.db_query({"msg_id": theirs.msg_ids[0]}, ["options"])[0]["options"] is not None
    assert rc.resubmit(theirs.msg_ids[0]).get(TIMEOUT_S) == expected


def test_what_cannot_run_again_is_said_before_anything_is_submitted(
    rc: Client, lv: LoadBalancedView
) -> None:
    good = lv.apply_async(abs, -1)
    large = lv.apply_async(len, bytes(PAYLOAD_BYTES_MAX + 1))
    assert large.get(TIMEOUT_S) == PAYLOAD_BYTES_MAX + 1
    count = len(rc.history)
    with pytest.raises(NotRecorded, match=r"1,048,\d+ bytes, were too large"):
        rc.resubmit([good, large])
    with pytest.raises(KeyError, match="nobody-0"):
        rc.resubmit([*good.msg_ids, "nobody-0"])
    assert len(rc.history) == count


# -- forgetting ----------------------------------------------------------------------------


def test_results_can_be_forgotten_here_only(rc: Client, lv: LoadBalancedView) -> None:
    result = lv.apply_async(abs, -1)
    assert result.get(TIMEOUT_S) == 1
    [task_id] = result.msg_ids
    assert task_id in rc.results
    rc.purge_local_results(result)
    assert task_id not in rc.results
    assert task_id not in rc.metadata
    assert result.get() == 1
    taken_up = rc.get_result(task_id)
    assert isinstance(taken_up, AsyncHubResult)
    assert taken_up.get(TIMEOUT_S) == 1


def test_results_can_be_forgotten_in_the_database_only(
    rc: Client, lv: LoadBalancedView
) -> None:
    result = lv.apply_async(abs, -1)
    assert result.get(TIMEOUT_S) == 1
    rc.purge_hub_results(result)
    assert rc.db_query({"msg_id": result.msg_ids[0]}) == []
    assert rc.get_result(result).get(TIMEOUT_S) == 1
    rc.purge_results(result)
    with pytest.raises(KeyError, match=result.msg_ids[0]):
        rc.get_result(result.msg_ids[0])


def test_tasks_that_have_not_ended_are_not_forgotten(
    rc: Client, other: Client, tmp_path: Path
) -> None:
    running = recorded(rc, rc.view().apply_async(wait_for, str(tmp_path / "go")))
    [task_id] = running.msg_ids
    for purge in (rc.purge_local_results, rc.purge_hub_results, rc.purge_results):
        with pytest.raises(RuntimeError, match=f"outstanding tasks: {task_id}"):
            purge(running)
    with pytest.raises(RuntimeError, match="outstanding"):
        other.purge_results(running)
    with pytest.raises(RuntimeError, match="outstanding"):
        rc.purge_everything()
    rc.purge_results("all")  # what has ended
    assert rc.hub_history() == running.msg_ids
    (tmp_path / "go").touch()
    assert running.get(TIMEOUT_S) == str(tmp_path / "go")
    for purge in (rc.purge_local_results, rc.purge_hub_results, rc.purge_results):
        with pytest.raises(ValueError, match="jobs or targets"):
            purge()


def test_results_of_one_engine_can_be_forgotten(rc: Client, dv: DirectView) -> None:
    result = dv.apply_async(divide, 1, 2)
    assert result.get(TIMEOUT_S) == [0.5, 0.5]
    rc.purge_results(targets=0)
    left = rc.db_query({"msg_id": {"$in": result.msg_ids}}, "engine_id")
    assert [record["engine_id"] for record in left] == [rc.ids[1]]
    rc.purge_results(result, targets=[rc.ids[1]])
    assert rc.db_query({"msg_id": {"$in": result.msg_ids}}) == []


def test_views_have_results_and_forget_them(rc: Client) -> None:
    view = rc[rc.ids[0]]
    others = rc[rc.ids[1]].apply_async(divide, 4, 2)
    assert others.get(TIMEOUT_S) == 2
    own = view.apply_async(divide, 1, 2)
    assert view.get_result(block=True).get(0) == 0.5
    assert view.get_result(others.msg_ids[0]).get(TIMEOUT_S) == 2
    view.purge_results("all")
    found = rc.db_query({"msg_id": {"$in": [*own.msg_ids, *others.msg_ids]}}, "msg_id")
    assert [record["msg_id"] for record in found] == others.msg_ids


def test_what_is_forgotten_already_is_passed_over(rc: Client, other: Client) -> None:
    view = rc.view()
    result = view.apply_async(abs, -1)
    assert result.get(TIMEOUT_S) == 1
    for owner in (rc, view, other):
        owner.purge_results([*result.msg_ids, "nobody-0"])
    with pytest.raises(KeyError, match=result.msg_ids[0]):
        rc.get_result(result.msg_ids[0])
    with pytest.raises(IndexError):
        view.purge_results(len(rc.history))


def test_everything_can_be_forgotten(rc: Client, lv: LoadBalancedView) -> None:
    assert lv.map_sync(abs, range(-10, 0))
    rc.purge_everything()
    assert (rc.history, rc.hub_history(), len(rc.results)) == ([], [], 0)
    with pytest.raises(IndexError):
        rc.get_result()
    result = lv.apply_async(abs, -1)
    assert result.get(TIMEOUT_S) == 1
    assert rc.history == rc.hub_history() == result.msg_ids
    assert rc.get_result(0).get(TIMEOUT_S) == 1
