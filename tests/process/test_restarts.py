"""A controller that is killed is started again by whoever has started it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_processes import processes_of

from parallelz import Client, Cluster

pytestmark = pytest.mark.process

TIMEOUT_S = 20
BACK_TIMEOUT_S = 10.0  # less than anybody has patience for who is away


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(2, profile_dir=tmp_path / "p", store="none")
    yield cluster
    cluster.stop_cluster_sync()
    assert processes_of(tmp_path / "p") == []
    assert list((tmp_path / "p" / "security").iterdir()) == []


@pytest.fixture
def rc(cluster: Cluster) -> Iterator[Client]:
    with cluster.start_and_connect_sync() as rc:
        yield rc


def controller_pid(cluster: Cluster) -> int:
    assert cluster.controller is not None
    return cluster.controller.pid


def kill_controller(cluster: Cluster) -> None:
    os.kill(controller_pid(cluster), signal.SIGKILL)


def wait_until_back(cluster: Cluster) -> None:
    """Wait until engines have come back to the controller that was started again."""
    with cluster.connect_client_sync() as other:
        other.wait_for_engines(2, timeout=TIMEOUT_S)


def test_engines_keep_their_ids_and_names_when_the_controller_is_killed(
    cluster: Cluster, rc: Client
) -> None:
    rc[:].scatter("number", [10, 20], block=True)
    pids = rc[:].apply_sync(os.getpid)
    before = controller_pid(cluster)
    kill_controller(cluster)
    killed_s = time.monotonic()
    wait_until_back(cluster)
    assert time.monotonic() - killed_s < BACK_TIMEOUT_S
    assert controller_pid(cluster) != before
    for client in (rc, cluster.connect_client_sync()):
        with client:
            assert client.ids == [0, 1]
            assert client[:].apply_sync(os.getpid) == pids
            assert client[:].gather("number", block=True) == [10, 20]


def test_the_restart_is_told_once(
    cluster: Cluster, rc: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        kill_controller(cluster)
        wait_until_back(cluster)
    pid = controller_pid(cluster)
    assert caplog.messages == [
        f"the controller was killed by signal 9 (SIGKILL); started again (pid {pid})"
    ]


def test_a_controller_that_dies_too_often_is_given_up_with_an_explanation(
    cluster: Cluster, rc: Client, caplog: pytest.LogCaptureFixture
) -> None:
    controller = cluster.controller
    assert controller is not None
    while not controller.has_failed:
        pid = controller.pid
        os.kill(pid, signal.SIGKILL)
        while controller.pid == pid and not controller.wait(0.01):
            pass
    assert [text for text in caplog.messages if "started again (pid" not in text] == [
        controller.explain_end()
    ]
    assert "It died 6 times within 60 s and is not started again." in caplog.messages[-1]
    assert repr(cluster).endswith("controller=<after>, engine_sets=['1'])>")


def test_a_cluster_from_a_file_knows_the_new_controller(cluster: Cluster, rc: Client) -> None:
    other = Cluster.from_file(profile_dir=cluster.profile_dir)
    assert other.controller is not None
    kill_controller(cluster)
    assert other.controller.wait(TIMEOUT_S)
    wait_until_back(cluster)
    assert other.controller.pid == controller_pid(cluster)
    assert other.controller.state == "running"
    other.stop_cluster_sync()


def test_a_stop_right_after_the_kill_leaves_nothing(cluster: Cluster, rc: Client) -> None:
    kill_controller(cluster)
    cluster.stop_cluster_sync()
    assert processes_of(cluster.profile_dir) == []


def test_a_stop_by_another_process_right_after_the_kill_leaves_nothing(
    cluster: Cluster, rc: Client
) -> None:
    other = Cluster.from_file(profile_dir=cluster.profile_dir)
    controller = cluster.controller
    assert controller is not None
    kill_controller(cluster)
    other.stop_cluster_sync()
    assert controller.wait(TIMEOUT_S)
    assert not controller.has_failed
    assert processes_of(cluster.profile_dir) == []


def test_a_controller_that_a_client_shut_down_stays_away(cluster: Cluster, rc: Client) -> None:
    controller = cluster.controller
    assert controller is not None
    rc.shutdown(hub=True)
    assert controller.wait(TIMEOUT_S)
    assert controller.poll() == 0


OWNER = """
import os, signal, sys
from parallelz.cluster import Cluster
cluster = Cluster(1, profile_dir=sys.argv[1], store="none", shutdown_atexit={ends})
cluster.start_and_connect_sync().close()
os.kill(cluster.controller.pid, signal.SIGKILL)
"""


@pytest.mark.parametrize("ends", [True, False])
def test_an_interpreter_that_ends_right_after_the_kill_leaves_no_stranger(
    tmp_path: Path, ends: bool
) -> None:
    profile_dir = tmp_path / "p"
    code = OWNER.format(ends=ends)
    ran = subprocess.run(
        [sys.executable, "-c", code, str(profile_dir)], timeout=TIMEOUT_S, check=True
    )
    assert ran.returncode == 0
    if not ends:
        Cluster.from_file(profile_dir=profile_dir).stop_cluster_sync()
    assert processes_of(profile_dir) == []
    assert list((profile_dir / "security").iterdir()) == []
