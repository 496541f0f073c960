"""A cluster that was stopped and started again knows the tasks of before."""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from parallelz import AsyncHubResult, Client, Cluster, EngineError, RemoteError, TaskLost
from parallelz.ids import TaskId

pytestmark = [pytest.mark.process, pytest.mark.slow]

TIMEOUT_S = 30


def make_functions() -> tuple[Callable[..., object], ...]:
    # By value: engines cannot import what is beside the tests.
    def divide(x: float, y: float) -> float:
        return x / y

    def begin(path: str) -> None:
        import pathlib
        import time

        pathlib.Path(path).touch()
        time.sleep(600)

    return divide, begin


divide, begin = make_functions()


class Yesterday(NamedTuple):
    good: TaskId
    bad: TaskId
    direct: list[TaskId]
    running: TaskId
    late: TaskId  # waits to be tried once more
    engine_uuids: set[object]


@pytest.fixture
def start(tmp_path: Path) -> Callable[[int], Cluster]:
    """Return what starts a cluster that follows on those before it."""
    return functools.partial(Cluster, profile_dir=tmp_path / "profile")


@pytest.fixture
def yesterday(start: Callable[..., Cluster], tmp_path: Path) -> Yesterday:
    """Return the tasks of a cluster that has ended."""
    with start(n=2) as rc:
        view = rc.view()
        good = view.apply_async(divide, 1, 2)
        bad = view.apply_async(divide, 1, 0)
        direct = rc[:].apply_async(divide, 3, 2)
        assert rc.wait(timeout=TIMEOUT_S)
        late = rc.load_balanced_view(retries=1, retry_delay=3600).apply_async(divide, 1, 0)
        running = view.apply_async(begin, str(tmp_path / "begun"))
        wait_until_there(rc, tmp_path / "begun")
        infos = rc.connection.ledger.engines.values()
        return Yesterday(
            good.msg_ids[0],
            bad.msg_ids[0],
            direct.msg_ids,
            running.msg_ids[0],
            late.msg_ids[0],
            {info.session_id for info in infos},
        )


def wait_until_there(rc: Client, path: Path) -> None:
    while not path.exists():
        rc.connection.wait(path.exists, 0.02)


def test_results_of_an_earlier_day_are_there(
    start: Callable[..., Cluster], yesterday: Yesterday
) -> None:
    with start(n=1) as rc:
        result = rc.get_result([yesterday.good, *yesterday.direct])
        assert isinstance(result, AsyncHubResult)
        assert result.get(TIMEOUT_S) == [0.5, 1.5, 1.5]
        assert result["engine_id"][1:] == [0, 1]
        assert set(result["engine_uuid"]) <= yesterday.engine_uuids  # not today's engine 0
        assert all(result["host"])
        with pytest.raises(ZeroDivisionError):
            rc.get_result(yesterday.bad).get(TIMEOUT_S)
        status = rc.result_status([yesterday.good, yesterday.bad])
        assert status["completed"] == [yesterday.good, yesterday.bad]
        assert yesterday.good in rc.hub_history()
        assert rc.queue_status(0)["completed"] == 0


def test_what_had_not_ended_when_its_cluster_did_is_lost(
    start: Callable[..., Cluster], yesterday: Yesterday
) -> None:
    with start(n=1) as rc:
        with pytest.raises(EngineError):
            rc.get_result(yesterday.running).get(TIMEOUT_S)
        with pytest.raises(
            TaskLost, match=f"{yesterday.late} got lost: the cluster was stopped"
        ):
            rc.get_result(yesterday.late).get(TIMEOUT_S)


def test_tasks_of_an_earlier_day_run_again(
    start: Callable[..., Cluster], yesterday: Yesterday
) -> None:
    first, second = yesterday.direct
    with start(n=1) as rc:
        again = rc.resubmit([yesterday.good, first])
        assert again.get(TIMEOUT_S) == [0.5, 1.5]
        assert again["engine_uuid"][1] not in yesterday.engine_uuids
        with pytest.raises(EngineError, match="engine 1 is gone"):
            rc.resubmit([yesterday.good, second])
        assert len(rc.history) == 2


def test_without_a_history_what_needs_one_says_so(start: Callable[..., Cluster]) -> None:
    with start(n=1, store="none") as rc:
        result = rc.view().apply_async(divide, 1, 2)
        [task_id] = result.msg_ids
        assert result.get(TIMEOUT_S) == 0.5
        assert rc.get_result(task_id).get(TIMEOUT_S) == 0.5
        for ask in (rc.hub_history, rc.resubmit, functools.partial(rc.db_query, {})):
            with pytest.raises(RemoteError, match="keeps no history"):
                ask()
        with pytest.raises(RemoteError, match="keeps no history"):
            rc.get_result("nobody-0")
        assert rc.queue_status(0, verbose=True) == {"queue": [], "completed": 1, "tasks": []}
        assert "keeps no history" in rc.why("nobody-0")


def test_tasks_of_an_earlier_day_can_be_forgotten(
    start: Callable[..., Cluster], yesterday: Yesterday
) -> None:
    with start(n=1) as rc:
        assert rc.view().apply_sync(divide, 1, 4) == 0.25
        rc.purge_results([yesterday.good, yesterday.bad])
        with pytest.raises(KeyError, match=yesterday.good):
            rc.get_result(yesterday.good)
        assert set(yesterday.direct) < set(rc.hub_history())


def test_what_is_asked_while_the_controller_is_away_is_answered_by_the_next(
    start: Callable[..., Cluster],
) -> None:
    with start(n=1) as rc:
        results = [rc.view().apply_async(divide, number, 1) for number in range(100)]
        assert rc.wait(timeout=TIMEOUT_S)
        assert isinstance(rc.cluster, Cluster)
        assert rc.cluster.controller is not None
        os.kill(rc.cluster.controller.pid, signal.SIGKILL)
        late = rc.view().apply_async(divide, 1, 2)
        status = rc.result_status([*results, late])
        assert len(status["pending"]) + len(status["completed"]) == 101  # type: ignore[arg-type]
        assert rc.resubmit(results[:10]).get(TIMEOUT_S) == list(range(10))
        assert late.get(TIMEOUT_S) == 0.5


def test_who_waits_for_a_result_of_others_outwaits_trouble_of_the_database(
    start: Callable[..., Cluster], tmp_path: Path
) -> None:
    with (
        start(n=1) as rc,
        Client(profile_dir=tmp_path / "profile") as other,
        closing(sqlite3.connect(tmp_path / "profile" / "parallelz.sqlite")) as db,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        theirs = other.view().apply_async(divide, 1, 2)
        assert theirs.get(TIMEOUT_S) == 0.5
        result = rc.get_result(theirs.msg_ids[0])  # which has not looked for the value yet
        db.execute("BEGIN IMMEDIATE")  # nobody else can write
        locked = other.view().apply_async(divide, 1, 4)
        assert locked.get(TIMEOUT_S) == 0.25
        assert rc.connection.wait(lambda: bool(rc.connection.pump.notices), TIMEOUT_S)
        assert not result.wait(0)
        db.rollback()
        assert result.get(TIMEOUT_S) == 0.5
        assert rc.get_result(locked.msg_ids[0]).get(TIMEOUT_S) == 0.25
    assert any("nothing is recorded" in str(warning.message) for warning in caught)
