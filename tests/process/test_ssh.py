"""Engines on hosts that are logged in to, by a real OpenSSH server on this one."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from helpers_launchers import TIMEOUT_S, GraceSuite, LauncherSuite, wait_until
from helpers_processes import words_of
from helpers_sshd import SSHD

from parallelz import Cluster, ClusterError, EngineError

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("ssh_on_path")]


def options(hosts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"engines": "ssh", "launcher_options": {"hosts": hosts, **more}}


class TestSSH(LauncherSuite, GraceSuite):
    options: ClassVar[dict[str, Any]] = options({"there": 4})


class TestSSHWithoutTunnel(LauncherSuite):
    options: ClassVar[dict[str, Any]] = options({"there": 1, "jumped": 3}, tunnel=False)


def test_each_host_has_its_engines_with_options_of_its_own(tmp_path: Path) -> None:
    hosts = {"there": 2, "jumped": [1, ["--labels=gpu"]]}
    more = {
        "environment": {"COLOUR": "dark blue"},
        "directory": str(tmp_path),
        "setup": "export SET_UP=yes",
    }

    def facts() -> tuple[str, str, str]:
        import os

        return os.getcwd(), os.environ["COLOUR"], os.environ["SET_UP"]

    with Cluster(profile_dir=tmp_path / "profile", **options(hosts, **more)) as rc:
        assert rc[:].apply_sync(facts) == [(str(tmp_path), "dark blue", "yes")] * 3
        lv = rc.load_balanced_view().with_flags(labels=["gpu"])
        chosen = {lv.apply_sync(os.getpid) for _ in range(5)}
        assert len(chosen) == 1
        names = {path.name for path in (tmp_path / "profile" / "log" / "engines-1").iterdir()}
    assert names == {"there.log", "jumped.log"}


def test_a_host_that_is_down_is_told_and_costs_the_others_nothing(tmp_path: Path) -> None:
    cluster = Cluster(profile_dir=tmp_path, **options({"down": 1, "there": 2}))
    with cluster.start_cluster_sync().connect_client_sync() as rc:
        with pytest.raises(ClusterError) as caught:
            cluster.wait_for_engines_sync(rc, 3)
        assert "set 1 will not come: down: the login ended with exit code 255" in str(
            caught.value
        )
        assert "Connection refused" in str(caught.value)
        rc.wait_for_engines(2, timeout=TIMEOUT_S)
        assert rc[:].apply_sync(lambda: 1) == [1, 1]
        cluster.stop_cluster_sync()


def test_what_cannot_run_there_is_told(tmp_path: Path) -> None:
    cluster = Cluster(profile_dir=tmp_path, **options({"there": 1}, python="/no/such/python"))
    with pytest.raises(ClusterError, match=r"exit code 127.*no/such/python"), cluster:
        pass


def login_of(cluster: Cluster, host: str) -> psutil.Process:
    """Return the ssh that the keeper has started for a host."""
    keeper = psutil.Process(cluster.engine_sets["1"].to_facts().pid)
    (login,) = (each for each in keeper.children() if host in words_of(each))
    return login


def test_a_login_that_breaks_ends_the_engines_there(tmp_path: Path) -> None:
    def wait_long(timeout_s: float) -> None:
        import time

        time.sleep(timeout_s)

    cluster = Cluster(profile_dir=tmp_path, **options({"there": 1, "jumped": 1}))
    with cluster as rc:
        result = rc[:].apply_async(wait_long, TIMEOUT_S)
        login_of(cluster, "there").kill()
        wait_until(rc, lambda: len(rc.ids) == 1)
        (lost,) = {0, 1} - set(rc.ids)
        with pytest.raises(EngineError, match=f"engine {lost} "):
            result.get(TIMEOUT_S, return_when="FIRST_EXCEPTION")
        log = cluster.engine_sets["1"].log.read_text()
        assert "! there: the login was killed by signal 9 (SIGKILL)" in log
        rc[rc.ids[0]].shutdown()


def test_nothing_is_left_there_when_all_is_killed_here(tmp_path: Path) -> None:
    cluster = Cluster(profile_dir=tmp_path, **options({"there": 2}))
    with cluster as rc:
        ends = [os.pidfd_open(pid) for pid in rc[:].apply_sync(os.getpid)]
        cluster.engine_sets["1"].signal(signal.SIGKILL)  # the keeper
        for end in ends:
            assert select.select([end], [], [], TIMEOUT_S)[0]
            os.close(end)
        wait_until(rc, lambda: not list(Path("/tmp").glob("parallelz-*.sock")))


def test_a_key_and_a_user_are_given_to_ssh(sshd: SSHD, tmp_path: Path) -> None:
    login = {"user": psutil.Process().username(), "port": sshd.port, "key": str(sshd.key)}
    with Cluster(profile_dir=tmp_path, **options({"127.0.0.1": 1}, **login)) as rc:
        assert rc[0].apply_sync(lambda: 1) == 1
