"""Engines that die, freeze or hold the GIL, in the middle of known work."""

from __future__ import annotations

import ctypes
import operator
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import parallelz
from parallelz import Client, Cluster

pytestmark = pytest.mark.process

TIMEOUT_S = 30


@pytest.fixture
def rc(tmp_path: Path) -> Iterator[Client]:
    with Cluster(n=3, profile_dir=tmp_path) as rc:
        yield rc


def wait_until_gone(rc: Client, engine_id: int) -> float:
    """Return after how many seconds the client knew."""
    begin_s = time.monotonic()
    while engine_id in rc.ids:
        assert time.monotonic() - begin_s < TIMEOUT_S, "the loss was never noticed"
        rc.spin()
    return time.monotonic() - begin_s


def test_killed_engine_ends_its_task_with_the_cause(rc: Client) -> None:
    pid = rc[1].apply_sync(os.getpid)
    ar = rc[1].apply_async(time.sleep, 60)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(parallelz.EngineError, match="SIGKILL") as info:
        ar.get(TIMEOUT_S)
    assert str(pid) in str(info.value)
    assert rc.ids == [0, 2]
    with pytest.raises(IndexError, match="No such engine"):
        rc[5]


def test_exit_code_of_an_engine_is_told(rc: Client) -> None:
    with pytest.raises(parallelz.EngineError, match="exit code 7"):
        rc[0].apply_sync(os._exit, 7)


def test_stopped_engine_is_known_within_seconds(rc: Client) -> None:
    pid = rc[1].apply_sync(os.getpid)
    ar = rc[1].apply_async(abs, 1)
    ar.get(TIMEOUT_S)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert wait_until_gone(rc, 1) < 5.0
        assert rc[:].apply_sync(abs, -1) == [1, 1]
    finally:
        os.kill(pid, signal.SIGKILL)


def test_engine_that_holds_the_gil_is_not_taken_for_dead(rc: Client) -> None:
    def hold_gil(seconds: int) -> str:
        ctypes.PyDLL(None).sleep(seconds)  # a C function that does not release the GIL
        return "alive"

    assert rc[0].apply_sync(hold_gil, 6) == "alive"
    assert rc.ids == [0, 1, 2]


def test_interrupt_raises_in_the_running_task_only(rc: Client, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def work(path: str) -> None:
        import pathlib
        import time

        pathlib.Path(path).touch()
        time.sleep(60)

    ar = rc[0].apply_async(work, str(begun))
    while not begun.exists():  # placed is not yet running, and only what runs is interrupted
        rc.spin()
    rc.interrupt(0)
    with pytest.raises(parallelz.RemoteError, match="KeyboardInterrupt"):
        ar.get(TIMEOUT_S)
    assert rc[0].apply_sync(abs, -1) == 1


def test_shutdown_of_one_engine(rc: Client) -> None:
    rc.shutdown(2, block=True)
    wait_until_gone(rc, 2)
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_tasks_with_retries_survive_the_death_of_their_engine(rc: Client) -> None:
    lv = rc.load_balanced_view()
    pids = rc[:].apply_sync(os.getpid)
    with lv.temp_flags(retries=3):
        results = [lv.apply_async(operator.mul, n, n) for n in range(300)]
        slow = [lv.apply_async(time.sleep, 0.05) for _ in range(20)]
    os.kill(random.Random(1).choice(pids), signal.SIGKILL)
    assert [ar.get(TIMEOUT_S) for ar in results] == [n * n for n in range(300)]
    assert [ar.get(TIMEOUT_S) for ar in slow] == [None] * 20


def test_cluster_leaves_no_process(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        pids = rc[:].apply_sync(os.getpid)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert list((tmp_path / "security").glob("ipcontrollerz*")) == []
