"""Real clusters: started, used, changed, stopped, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers_processes import processes_of

from parallelz import settings
from parallelz.cluster import Cluster, ClusterRunning, NoCluster
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError, RemoteError

pytestmark = pytest.mark.process


@pytest.fixture
def profile_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "p"
    yield directory
    if (directory / "security").exists():
        assert list((directory / "security").iterdir()) == []


@pytest.fixture
def cluster(profile_dir: Path) -> Iterator[Cluster]:
    cluster = Cluster(1, profile_dir=profile_dir, store="none")
    yield cluster
    cluster.stop_cluster_sync()


def test_a_cluster_in_a_with_statement_is_ready_and_leaves_nothing(profile_dir: Path) -> None:
    with Cluster(2, profile_dir=profile_dir) as rc:
        assert len(rc) == 2
        assert rc[:].apply_sync(os.getppid) != [os.getpid()] * 2
        assert processes_of(profile_dir)
    assert processes_of(profile_dir) == []


def test_a_cluster_ends_when_its_block_fails(profile_dir: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Cluster(1, profile_dir=profile_dir, store="none") as rc,
    ):
        assert len(rc) // 0
    assert processes_of(profile_dir) == []


def test_it_works_the_same_when_awaited(profile_dir: Path) -> None:
    async def main() -> None:
        async with Cluster(1, profile_dir=profile_dir, store="none") as rc:
            assert len(rc) == 1
        cluster = Cluster(1, profile_dir=profile_dir, store="none")
        assert await cluster.start_cluster() is cluster
        await cluster.stop_cluster()

    asyncio.run(main())
    assert processes_of(profile_dir) == []


def test_secrets_are_for_their_owner_only(cluster: Cluster, profile_dir: Path) -> None:
    cluster.start_controller_sync()
    security = profile_dir / "security"
    assert security.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in security.iterdir()} == {0o600}


def test_a_cluster_shows_its_state(cluster: Cluster, profile_dir: Path) -> None:
    assert repr(cluster) == f"<Cluster(cluster_id='', profile_dir={str(profile_dir)!r})>"
    cluster.start_cluster_sync()
    assert repr(cluster).endswith("controller=<running>, engine_sets=['1'])>")


def test_a_profile_is_shown_by_its_name() -> None:
    assert repr(Cluster(profile="mpi")) == "<Cluster(cluster_id='', profile='mpi')>"


def test_a_second_cluster_of_a_profile_gets_an_id_of_its_own(profile_dir: Path) -> None:
    with Cluster(1, profile_dir=profile_dir, store="none") as first:
        second = Cluster(1, profile_dir=profile_dir, store="none")
        with second as other:
            assert second.cluster_id == "2"
            assert first[0].apply_sync(os.getpid) != other[0].apply_sync(os.getpid)


def test_an_id_that_was_asked_for_is_not_changed(cluster: Cluster, profile_dir: Path) -> None:
    cluster.start_controller_sync()
    with pytest.raises(ClusterRunning, match="runs already"):
        Cluster(profile_dir=profile_dir, cluster_id="").start_controller_sync()


def test_engines_come_and_go_by_sets(cluster: Cluster) -> None:
    with cluster.start_and_connect_sync() as rc:
        assert cluster.start_engines_sync(2) == "2"
        cluster.wait_for_engines_sync(rc, 3)
        cluster.stop_engines_sync("1")
        assert list(cluster.engine_sets) == ["2"]
        with pytest.raises(ClusterError, match="no engine set '1'; there is: 2"):
            cluster.stop_engines_sync("1")


def test_restarted_engines_are_others(cluster: Cluster) -> None:
    with cluster.start_and_connect_sync() as rc:
        before = rc.ids
        cluster.restart_engines_sync()
        rc.wait_for_engines(1, timeout=10)
        assert cluster.engine_sets["1"].state == "running"
        cluster.stop_cluster_sync()
        assert before == [0]


def test_a_cluster_is_taken_up_again(cluster: Cluster, profile_dir: Path) -> None:
    with cluster.start_and_connect_sync():
        other = Cluster.from_file(profile_dir=profile_dir)
        assert repr(other) == repr(cluster)
        assert other.to_dict() == cluster.to_dict()
        with other.connect_client_sync() as rc:
            assert len(rc) == 1
            assert other.start_engines_sync(1) == "2"
    other.stop_cluster_sync()
    assert processes_of(profile_dir) == []
    with pytest.raises(NoCluster):
        Cluster.from_file(profile_dir=profile_dir)


def test_engines_keep_their_options_when_another_process_restarts_them(
    profile_dir: Path,
) -> None:
    cluster = Cluster(1, profile_dir=profile_dir, store="none", labels="gpu", restart=True)
    cluster.start_cluster_sync()
    cluster.start_engines_sync(1, labels=[], memory_limit="1GB")
    other = Cluster.from_file(profile_dir=profile_dir)
    other.restart_engines_sync()
    options = {set_id: engines.options for set_id, engines in other.engine_sets.items()}
    assert options == {
        "1": EngineOptions(labels=("gpu",), restart=True),
        "2": EngineOptions(memory_limit=1_000_000_000, restart=True),
    }
    cluster.stop_cluster_sync()
    assert processes_of(profile_dir) == []


def test_options_that_make_no_sense_are_refused_at_once(profile_dir: Path) -> None:
    with pytest.raises(ClusterError, match="is not a size of memory"):
        Cluster(1, profile_dir=profile_dir, memory_limit="much")


def test_engines_that_others_added_are_stopped_too(cluster: Cluster, profile_dir: Path) -> None:
    cluster.start_cluster_sync()
    Cluster.from_file(profile_dir=profile_dir).start_engines_sync(1)
    cluster.stop_cluster_sync()
    assert processes_of(profile_dir) == []


def test_a_controller_that_cannot_start_says_why(profile_dir: Path) -> None:
    cluster = Cluster(1, profile_dir=profile_dir, controller_ip="192.0.2.1")
    with pytest.raises(ClusterError, match=r"cannot listen on '192\.0\.2\.1': "):
        cluster.start_and_connect_sync()
    assert processes_of(profile_dir) == []


def test_no_engines_are_no_cluster(profile_dir: Path) -> None:
    with pytest.raises(ClusterError, match="n must be 1 or more"):
        Cluster(profile_dir=profile_dir).start_cluster_sync(0)
    assert not profile_dir.exists()


def test_stopping_twice_does_nothing(cluster: Cluster) -> None:
    cluster.start_controller_sync()
    cluster.stop_cluster_sync()
    cluster.stop_cluster_sync()


OWNER = """
import sys
from parallelz.cluster import Cluster
cluster = Cluster(2, profile_dir=sys.argv[1])
client = cluster.start_and_connect_sync()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["exit", "SIGINT", "SIGTERM", "SIGKILL"])
def test_a_cluster_ends_with_its_owner(profile_dir: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(profile_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        started = [each for each in processes_of(profile_dir) if each.pid != owner.pid]
        assert started
        if how == "exit":
            owner.communicate(b"\n")
        else:
            owner.send_signal(getattr(signal, how))
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_what_is_not_to_end_with_us_does_not(profile_dir: Path) -> None:
    code = OWNER.replace("(2, ", "(1, shutdown_atexit=False, ")
    subprocess.run(
        [sys.executable, "-c", code, str(profile_dir)], input=b"\n", check=True, timeout=30
    )
    cluster = Cluster.from_file(profile_dir=profile_dir)
    with cluster.connect_client_sync() as rc:
        assert len(rc) == 1
    cluster.stop_cluster_sync()
    assert processes_of(profile_dir) == []


def test_a_killed_controller_leaves_its_id_to_the_next(profile_dir: Path) -> None:
    cluster = Cluster(1, profile_dir=profile_dir, cluster_id="", store="none")
    cluster.start_cluster_sync()
    assert cluster.controller is not None
    os.kill(cluster.controller.pid, signal.SIGKILL)
    cluster.stop_cluster_sync()
    assert not settings.cluster_file(profile_dir, "").exists()
    with Cluster(1, profile_dir=profile_dir, cluster_id="", store="none") as rc:
        assert len(rc) == 1


# -- single engines ----------------------------------------------------------------------------

TIMEOUT_S = 30


def test_one_engine_is_stopped_and_the_others_go_on(profile_dir: Path) -> None:
    cluster = Cluster(2, profile_dir=profile_dir, store="none")
    with cluster as rc:
        cluster.stop_engine_sync(0)
        rc.connection.wait(lambda: rc.ids == [1], TIMEOUT_S)
        assert rc.ids == [1]
        assert rc[1].apply_sync(lambda: 7) == 7
        with pytest.raises(IndexError, match="No such engine: 0"):
            cluster.stop_engine_sync(0)


def test_one_engine_is_replaced_by_another(profile_dir: Path) -> None:
    cluster = Cluster(2, profile_dir=profile_dir, store="none")
    with cluster as rc:
        pids = rc[:].apply_sync(os.getpid)
        new_id = cluster.restart_engine_sync(1)
        rc.connection.wait(lambda: rc.ids == [0, new_id], TIMEOUT_S)
        assert rc.ids == [0, new_id]
        new_pids = rc[:].apply_sync(os.getpid)
        assert new_pids[0] == pids[0]
        assert new_pids[1] != pids[1]
        assert cluster.engine_set.state == "running"


def test_one_engine_gets_a_signal(profile_dir: Path, tmp_path: Path) -> None:
    mark = tmp_path / "started"

    def work(path: str) -> None:
        import pathlib
        import time

        pathlib.Path(path).touch()
        time.sleep(60)

    cluster = Cluster(1, profile_dir=profile_dir, store="none")
    with cluster as rc:
        running = rc[0].apply_async(work, str(mark))
        assert rc.connection.wait(mark.exists, TIMEOUT_S)
        cluster.signal_engine_sync(signal.SIGINT, 0)
        with pytest.raises(RemoteError, match="KeyboardInterrupt"):
            running.get(TIMEOUT_S)
        cluster.signal_engine_sync(signal.SIGKILL, 0)
        assert rc.connection.wait(lambda: rc.ids == [], TIMEOUT_S)


def test_single_engines_can_be_awaited(profile_dir: Path) -> None:
    async def main() -> None:
        cluster = Cluster(1, profile_dir=profile_dir, store="none")
        async with cluster:
            new_id = await cluster.restart_engine(0)
            await cluster.signal_engine(signal.SIGINT, new_id)
            await cluster.stop_engine(new_id)

    asyncio.run(main())


# -- configuration ----------------------------------------------------------------------------


def test_a_cluster_is_as_its_profile_says_unless_told_otherwise(profile_dir: Path) -> None:
    profile_dir.mkdir()
    text = "c.Cluster.n = 3\nc.History.store = 'none'\nc.Engine.labels = ['blue']\n"
    (profile_dir / "ipclusterz_config.py").write_text(text)
    assert Cluster(profile_dir=profile_dir).n == 3
    assert Cluster(1, profile_dir=profile_dir).n == 1
    assert Cluster(profile_dir=profile_dir, load_profile=False).n is None
    assert Cluster(profile_dir=profile_dir, config={"Cluster": {"n": 2}}).n == 2
    with Cluster(1, profile_dir=profile_dir):
        assert not (profile_dir / "parallelz.sqlite").exists()
        added = Cluster.from_file(profile_dir=profile_dir)
        set_id = added.start_engines_sync(1, labels=["red"])
        assert added.engine_sets["1"].options.labels == ("blue",)
        assert added.engine_sets[set_id].options.labels == ("red",)


def test_a_configuration_that_does_not_exist_is_refused(profile_dir: Path) -> None:
    with pytest.raises(ClusterError, match=r"Slurm\.quue: .*did you mean queue"):
        Cluster(profile_dir=profile_dir, config={"Slurm": {"quue": "x"}})
