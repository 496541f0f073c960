"""A controller on a host that is logged in to, by a real OpenSSH server on this one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from helpers_controllers import (
    TIMEOUT_S,
    ControllerSuite,
    controller_process,
    wait_for,
    wait_for_end,
)
from helpers_sshd import SSHD, running_sshd

from parallelz import Client, Cluster, ClusterError
from parallelz.transport.security import read_secrets, runtime_dir_of

pytestmark = [
    pytest.mark.service,
    pytest.mark.usefixtures("ssh_on_path"),
    # To come back takes a login, which takes its time on a slow machine.
    pytest.mark.filterwarnings("ignore:the controller has not answered:UserWarning"),
]


def options(host: str = "there", **more: Any) -> dict[str, Any]:
    return {"controller": "ssh", "controller_launcher_options": {"host": host, **more}}


class TestSSHController(ControllerSuite):
    options: ClassVar[dict[str, Any]] = options()
    section = "SSHController"


def tasks_survive(rc: Client, harm: Any) -> None:
    """Check that what runs goes on, on the same engines, after some harm was done."""

    def slow(number: int) -> int:
        import time

        time.sleep(0.05)
        return number

    pids = rc[:].apply_sync(os.getpid)
    result = rc.load_balanced_view().map_async(slow, range(60))
    assert next(iter(result)) == 0
    harm()
    assert result.get(TIMEOUT_S) == [*range(60)]
    assert rc[:].apply_sync(os.getpid) == pids
    assert len(rc.hub_history()) == 64


def keeper_of(cluster: Cluster) -> psutil.Process:
    assert cluster.controller is not None
    return psutil.Process(cluster.controller.pid)


def log_of(cluster: Cluster) -> str:
    assert cluster.controller is not None
    return cluster.controller.log.read_text()


def test_a_login_that_is_killed_is_made_again(tmp_path: Path) -> None:
    cluster = Cluster(2, profile_dir=tmp_path / "p", **options())
    with cluster as rc:
        (login,) = keeper_of(cluster).children()
        tasks_survive(rc, login.kill)
        assert "the login was killed by signal 9 (SIGKILL); logs in again" in log_of(cluster)


def test_a_keeper_that_is_killed_is_started_again(tmp_path: Path) -> None:
    cluster = Cluster(2, profile_dir=tmp_path / "p", **options())
    with cluster as rc:
        keeper = keeper_of(cluster)
        tasks_survive(rc, keeper.kill)
        assert keeper_of(cluster) != keeper


def test_a_controller_there_that_is_killed_is_started_again(tmp_path: Path) -> None:
    cluster = Cluster(2, profile_dir=tmp_path / "p", **options())
    with cluster as rc:
        controller = controller_process(tmp_path / "p")
        tasks_survive(rc, controller.kill)
        assert "! there: the controller was killed by signal 9 (SIGKILL)" in log_of(cluster)


@pytest.fixture
def own_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SSHD]:
    """Run a server that a test may stop."""
    (tmp_path / "sshd").mkdir()
    with running_sshd(tmp_path / "sshd") as own:
        monkeypatch.setenv("PATH", f"{own.path}:{os.environ['PATH']}")
        yield own


def test_a_host_that_is_away_for_a_while_costs_nothing(own_sshd: SSHD, tmp_path: Path) -> None:
    cluster = Cluster(2, profile_dir=tmp_path / "p", **options())
    with cluster as rc:
        (login,) = keeper_of(cluster).children()

        def cut_off() -> None:
            own_sshd.stop()
            login.kill()
            wait_for(lambda: "Connection refused" in log_of(cluster))
            own_sshd.start()

        tasks_survive(rc, cut_off)
        assert log_of(cluster).count("Connection refused") < 4  # it pauses in between


def test_the_directory_there_is_removed(tmp_path: Path) -> None:
    with Cluster(1, profile_dir=tmp_path, **options()) as rc:
        there = runtime_dir_of(read_secrets(tmp_path, ""))
        assert there.stat().st_mode & 0o077 == 0
        assert rc[0].apply_sync(abs, -1) == 1
    assert not there.exists()


def test_the_history_is_kept_over_there(tmp_path: Path) -> None:
    more = {
        "profile_dir": str(tmp_path / "far"),
        "directory": str(tmp_path),
        "setup": "echo noise; export SET_UP=yes",
        "environment": {"COLOUR": "dark blue"},
    }
    cluster = Cluster(1, profile_dir=tmp_path / "near", **options(**more))
    with cluster as rc:
        assert rc[0].apply_sync(abs, -1) == 1
        controller = controller_process(tmp_path / "far")
        assert controller.cwd() == str(tmp_path)
        variables = controller.environ()
        assert (variables["SET_UP"], variables["COLOUR"]) == ("yes", "dark blue")
        assert "= said over there: noise" in log_of(cluster)
    wait_for_end(controller)
    assert not (tmp_path / "near" / "parallelz.sqlite").exists()
    with sqlite3.connect(tmp_path / "far" / "parallelz.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert list((tmp_path / "far" / "security").iterdir()) == []


def test_engines_of_other_hosts_reach_it_through_both_logins(tmp_path: Path) -> None:
    engines = {"engines": "ssh", "launcher_options": {"hosts": {"jumped": 2}}}
    with Cluster(profile_dir=tmp_path / "p", **options(), **engines) as rc:
        assert rc[:].apply_sync(len, bytes(2_000_000)) == [2_000_000] * 2


def test_connection_files_stay_valid_if_they_are_reused(tmp_path: Path) -> None:
    config = {"Controller": {"reuse": True}}
    arguments = {"profile_dir": tmp_path, "controller_ip": "127.0.0.1", "config": config}
    with Cluster(1, **arguments, **options()) as rc:  # type: ignore[arg-type]
        before = read_secrets(tmp_path, "")
        rc[0].apply_sync(abs, -1)
    with Cluster(1, **arguments, **options()) as rc:  # type: ignore[arg-type]
        after = read_secrets(tmp_path, "")
        assert after.bind_urls == before.bind_urls
        assert after.infos["engine"].token == before.infos["engine"].token
        assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.parametrize(
    ("host", "more", "said"),
    [
        ("down", {}, r"down: the login ended with exit code 255"),
        ("there", {"python": "/no/such/python"}, r"/no/such/python"),
        ("there", {"setup": "exit 3"}, r"there: the controller ended with exit code 3"),
        ("there", {"profile_dir": "/proc/no"}, "/proc/no cannot be made a profile.s directory"),
    ],
    ids=["down", "no-python", "setup-fails", "no-directory"],
)
def test_why_it_cannot_be_started_is_told(
    tmp_path: Path, host: str, more: dict[str, Any], said: str
) -> None:
    cluster = Cluster(1, profile_dir=tmp_path, **options(host, **more))
    with pytest.raises(ClusterError, match=said):
        cluster.start_and_connect_sync()
    assert list((tmp_path / "security").iterdir()) == []


def test_a_host_that_forwards_no_sockets_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_sshd(tmp_path, "AllowStreamLocalForwarding no") as strict:
        monkeypatch.setenv("PATH", f"{strict.path}:{os.environ['PATH']}")
        with pytest.raises(ClusterError, match="there does not let sockets be forwarded"):
            Cluster(1, profile_dir=tmp_path / "p", **options()).start_and_connect_sync()
