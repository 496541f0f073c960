"""Placement, refusal, inputs, giving up and asking why: from the user's call to the engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import parallelz
from parallelz import (
    AsyncResult,
    Client,
    Cluster,
    LoadBalancedView,
    depend,
    interactive,
    require,
)

pytestmark = pytest.mark.process

TIMEOUT_S = 30


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Client]:
    """Return a client of a cluster that a test may harm."""
    with Cluster(n=2, profile_dir=tmp_path / "profile") as rc:
        yield rc


def tasks() -> tuple[Callable[[Path, float], str], Callable[[Path], None]]:
    """Return functions that go by value, as engines cannot import this module."""

    def begin_and_wait(begun: Path, seconds: float) -> str:
        begun.touch()
        time.sleep(seconds)
        return "ran to the end"

    def begin_and_defy(begun: Path) -> None:
        begun.touch()
        give_up_s = time.monotonic() + 60
        while time.monotonic() < give_up_s:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                continue

    return begin_and_wait, begin_and_defy


begin_and_wait, begin_and_defy = tasks()


def wait_for(path: Path) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < give_up_s, f"{path} never came"


def wait_for_ids(rc: Client, ids: list[int]) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while rc.ids != ids:
        assert time.monotonic() < give_up_s, f"engines are {rc.ids}, not {ids}"
        rc.spin()


# -- results as arguments --------------------------------------------------------------------


def test_task_gets_the_values_of_results_on_their_way(lv: LoadBalancedView) -> None:
    a = lv.apply_async(lambda: time.sleep(0.1) or 1)
    b = lv.map_async(abs, [-1, -2, -3])
    total = lv.apply_async(lambda x, others: x + sum(others), a, others=b)
    assert total.get(TIMEOUT_S) == 7


def test_value_that_the_client_has_already_is_sent_with_the_call(lv: LoadBalancedView) -> None:
    a = lv.apply_async(abs, -5)
    a.get(TIMEOUT_S)
    assert lv.apply_async(pow, a, 2).get(TIMEOUT_S) == 25


def test_value_that_arrived_after_the_call_is_fetched_from_the_client(
    lv: LoadBalancedView,
) -> None:
    values = [lv.apply_async(abs, -number) for number in range(300)]
    totals = [lv.apply_async(pow, value, 2) for value in values]
    assert [total.get(TIMEOUT_S) for total in totals] == [n * n for n in range(300)]


def test_input_that_fails_makes_the_task_impossible(lv: LoadBalancedView) -> None:
    bad = lv.apply_async(lambda: time.sleep(0.1) or 1 / 0)
    with pytest.raises(parallelz.ImpossibleDependency, match="which failed"):
        lv.apply_async(abs, bad).get(TIMEOUT_S)


def test_large_inputs_travel_as_frames(lv: LoadBalancedView) -> None:
    big = lv.apply_async(lambda: time.sleep(0.1) or bytes(3_000_000))
    assert lv.apply_async(len, big).get(TIMEOUT_S) == 3_000_000


# -- dependencies on the past ----------------------------------------------------------------


def test_task_may_depend_on_a_task_of_another_client(
    rc: Client, cluster_profile_dir: Path
) -> None:
    with Client(profile_dir=cluster_profile_dir) as other:
        done = other.load_balanced_view().apply_async(abs, -1)
        failed = other.load_balanced_view().apply_async(lambda: 1 / 0)
        other.wait([done, failed], TIMEOUT_S)
        ids = done.msg_ids[0], failed.msg_ids[0]
    lv = rc.load_balanced_view()
    with lv.temp_flags(after=[ids[0]]):
        assert lv.apply_async(abs, -2).get(TIMEOUT_S) == 2
    with lv.temp_flags(after=[ids[1]]), pytest.raises(parallelz.ImpossibleDependency) as info:
        lv.apply_async(abs, -2).get(TIMEOUT_S)
    assert "which failed" in str(info.value)


def test_dependency_that_nobody_knows_is_impossible(lv: LoadBalancedView) -> None:
    with lv.temp_flags(after=["nobody-7"]):
        ar = lv.apply_async(abs, -2)
    with pytest.raises(parallelz.ImpossibleDependency, match="nobody knows"):
        ar.get(TIMEOUT_S)


# -- refusal and placement -------------------------------------------------------------------


def test_task_goes_where_its_condition_holds(rc: Client) -> None:
    rc[:].push({"licence": False}, block=True)
    rc[1].push({"licence": True}, block=True)
    lv = rc.load_balanced_view()

    @interactive
    def has_licence() -> bool:
        return licence  # type: ignore[name-defined]  # noqa: F821

    where = depend(has_licence)(os.getpid)
    pid = rc[1].apply_sync(os.getpid)
    assert {lv.apply_async(where).get(TIMEOUT_S) for _ in range(6)} == {pid}


def test_task_that_every_engine_refuses_is_impossible(lv: LoadBalancedView) -> None:
    @require("there_is_no_such_module")
    def f() -> None: ...

    with pytest.raises(parallelz.ImpossibleDependency, match="refused"):
        lv.apply_async(f).get(TIMEOUT_S)


def test_refusal_for_now_is_tried_again_later(lv: LoadBalancedView, tmp_path: Path) -> None:
    def when_free(path: Path) -> float:
        if not path.exists():
            path.touch()
            raise parallelz.UnmetDependency("busy now", retry_after_s=0.2)
        return time.time()

    begin_s = time.time()
    assert lv.apply_async(when_free, tmp_path / "asked").get(TIMEOUT_S) - begin_s >= 0.2


def test_engines_with_labels_get_the_tasks_that_need_them(own: Client) -> None:
    cluster = own.cluster
    assert isinstance(cluster, Cluster)
    lv = own.load_balanced_view(labels=["gpu"], resources={"memory": 2})
    ar = lv.apply_async(abs, -1)
    with pytest.warns(UserWarning, match="label 'gpu'"):
        ar.wait(0.5)
    assert "no engine has the label 'gpu'" in own.why(ar)
    cluster.start_engines_sync(1, labels="gpu,fast", resources="memory=4")
    assert ar.get(TIMEOUT_S) == 1
    assert ar.metadata["engine_id"] == 2


def test_retry_goes_to_another_engine(rc: Client) -> None:
    lv = rc.load_balanced_view(retries=1)

    def fails_on(pid: int) -> int:
        if os.getpid() == pid:
            raise OSError("not here")
        return os.getpid()

    pids = rc[:].apply_sync(os.getpid)
    for pid in pids:
        assert lv.apply_async(fails_on, pid).get(TIMEOUT_S) != pid


# -- giving up -------------------------------------------------------------------------------


def test_cancelled_task_is_interrupted_and_its_engine_lives(
    rc: Client, lv: LoadBalancedView, tmp_path: Path
) -> None:
    ids = rc.ids
    ar = lv.apply_async(begin_and_wait, tmp_path / "begun", 60)
    wait_for(tmp_path / "begun")
    assert ar.cancel()
    with pytest.raises(parallelz.TaskAborted, match="cancelled while it ran"):
        ar.get(TIMEOUT_S)
    assert rc.ids == ids
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_engine_of_a_task_that_defies_cancelling_is_killed_and_replaced(
    own: Client, tmp_path: Path
) -> None:
    lv = own.load_balanced_view(targets=[0])
    lv.map_sync(abs, range(50))  # now such tasks are known to be short
    stubborn = lv.apply_async(begin_and_defy, tmp_path / "begun")
    wait_for(tmp_path / "begun")
    both = own.load_balanced_view(targets=[0, 1])
    others = both.map_async(abs, range(20))
    own.cancel(stubborn, grace=0.3)
    with pytest.raises(parallelz.TaskAborted, match="cancelled"):
        stubborn.get(TIMEOUT_S)
    assert others.get(TIMEOUT_S) == list(range(20))
    wait_for_ids(own, [1, 2])
    assert own[2].apply_sync(abs, -3) == 3


def test_task_that_runs_too_long_is_stopped(rc: Client, tmp_path: Path) -> None:
    lv = rc.load_balanced_view(max_runtime=0.3)
    stopped = lv.apply_async(begin_and_wait, tmp_path / "begun", 60)
    with pytest.raises(parallelz.TaskTimeout, match="max_runtime"):
        stopped.get(TIMEOUT_S)
    assert 0.3 <= stopped.metadata["ran_s"] < 60
    assert lv.apply_async(begin_and_wait, tmp_path / "again", 0).get(TIMEOUT_S)


def test_drained_engine_ends_and_loses_nothing(own: Client, tmp_path: Path) -> None:
    lv = own.load_balanced_view()
    lv.map_sync(time.sleep, [0.001] * 20)
    results = lv.map_async(time.sleep, [0.01] * 100)
    own.drain(0)
    results.get(TIMEOUT_S)
    wait_for_ids(own, [1])
    assert lv.apply_sync(abs, -1) == 1


def test_shutdown_with_restart_replaces_engines(own: Client) -> None:
    pids = own[:].apply_sync(os.getpid)
    own.shutdown([0], restart=True)
    wait_for_ids(own, [1, 2])
    assert own[1].apply_sync(os.getpid) == pids[1]
    assert own[2].apply_sync(os.getpid) not in pids


def test_tasks_that_had_not_started_on_a_killed_engine_run_elsewhere(tmp_path: Path) -> None:
    with Cluster(n=1, hwm=10, profile_dir=tmp_path / "profile") as rc:
        lv = rc.load_balanced_view()
        pid = rc[0].apply_sync(os.getpid)
        started = lv.apply_async(begin_and_wait, tmp_path / "begun", 60)
        behind = [lv.apply_async(abs, -number) for number in range(5)]
        wait_for(tmp_path / "begun")
        while "behind" not in rc.why(behind[-1]):
            rc.spin()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(parallelz.EngineError, match="SIGKILL"):
            started.get(TIMEOUT_S)
        cluster = rc.cluster
        assert isinstance(cluster, Cluster)
        cluster.start_engines_sync(1)
        assert [ar.get(TIMEOUT_S) for ar in behind] == list(range(5))
        assert {ar.metadata["retries"] for ar in behind} == {0}


# -- asking ----------------------------------------------------------------------------------


def test_why_says_what_a_task_waits_for(
    rc: Client, lv: LoadBalancedView, tmp_path: Path
) -> None:
    running = [lv.apply_async(begin_and_wait, tmp_path / str(n), 60) for n in range(2)]
    wait_for(tmp_path / "0")
    wait_for(tmp_path / "1")
    waiting = lv.apply_async(abs, -1)
    with lv.temp_flags(after=[waiting]):
        after = lv.apply_async(abs, -1)
    direct = rc[0].apply_async(abs, -1)
    assert "running on engine" in rc.why(running[0])
    assert "is ready: the 2 engines all have something to do" in rc.why(waiting)
    assert f"waits: for {waiting.msg_ids[0]}, which is ready" in rc.why(after)
    assert "engine 0 has been running" in rc.why(direct)
    state = rc.dump(tmp_path / "state.json")
    assert state["tasks"] == {"placed": 2, "ready": 2, "waiting": 1}
    assert (tmp_path / "state.json").stat().st_size > 100
    rc.cancel(running)
    assert after.get(TIMEOUT_S) == 1
    assert "has ended" in rc.why(after)
    assert "placed" in str(rc.story(after))


def test_why_knows_tasks_of_yesterday_from_the_history(
    rc: Client, cluster_profile_dir: Path
) -> None:
    with Client(profile_dir=cluster_profile_dir) as other:
        ar: AsyncResult = other.load_balanced_view().apply_async(abs, -1)
        ar.get(TIMEOUT_S)
    assert "ok" in rc.why(ar.msg_ids[0]) or "well" in rc.why(ar.msg_ids[0])
    assert "nobody" in rc.why("nobody-7").lower() or "unknown" in rc.why("nobody-7").lower()
