"""What every launcher of engines must do; each has a test file that runs this with it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallelz import Client, Cluster, EngineError, RemoteError

TIMEOUT_S = 60
N = 2


def wait_until(rc: Client, is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        rc.connection.wait(is_so, 0.2)


class LauncherSuite:
    """Inherited by the tests of each launcher, which say what a cluster is made with.

    Attributes
    ----------
    options
        Arguments of `Cluster`.
    dies_together
        Whether the death of one engine ends its whole set.
    """

    options: dict[str, Any]
    dies_together = False

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Cluster:
        return Cluster(n=N, profile_dir=tmp_path / "my profile", **self.options)

    def test_engines_are_started_used_added_and_stopped(self, cluster: Cluster) -> None:
        with cluster as rc:
            assert rc[:].apply_sync(lambda: 1) == [1] * N
            first = list(rc.ids)
            added = cluster.start_engines_sync(1)
            cluster.wait_for_engines_sync(rc, N + 1)
            assert rc[:].apply_sync(lambda: 1) == [1] * (N + 1)
            cluster.stop_engines_sync(added)
            wait_until(rc, lambda: rc.ids == first)
            assert list(cluster.engine_sets) == ["1"]
            assert rc.load_balanced_view().map_sync(abs, range(-9, 0)) == [*range(9, 0, -1)]

    def test_engines_are_what_they_were_told_to_be(self, tmp_path: Path) -> None:
        told = "text = 'with \"quotes\" and $HOME'\nnumber = 7"
        cluster = Cluster(
            n=N,
            profile_dir=tmp_path / "profile",
            labels=["big"],
            startup_code=told,
            **self.options,
        )
        with cluster as rc:
            assert (
                rc[:].pull(("text", "number"), block=True)
                == [['with "quotes" and $HOME', 7]] * N
            )
            assert rc.load_balanced_view(labels=["big"]).apply_sync(abs, -1) == 1

    def test_a_set_is_restarted_with_the_same_options(self, cluster: Cluster) -> None:
        with cluster as rc:
            before = rc[:].apply_sync(os.getpid)
            cluster.restart_engines_sync()
            wait_until(rc, lambda: len(rc.ids) == N and rc.ids[0] >= N)
            assert set(rc[:].apply_sync(os.getpid)).isdisjoint(before)

    def test_a_signal_reaches_what_engines_do(self, cluster: Cluster, tmp_path: Path) -> None:
        def wait_long(directory: str, pid_of: Any) -> None:
            Path(directory, f"begun-{pid_of()}").touch()
            time.sleep(TIMEOUT_S)

        with cluster as rc:
            result = rc[:].apply_async(wait_long, str(tmp_path), os.getpid)
            wait_until(rc, lambda: len(list(tmp_path.glob("begun-*"))) == N)
            cluster.signal_engines_sync(signal.SIGINT)
            with pytest.raises(RemoteError, match="KeyboardInterrupt"):
                result.get(TIMEOUT_S)
            assert rc[:].apply_sync(lambda: 1) == [1] * N

    def test_another_process_takes_a_cluster_up_and_stops_it(self, tmp_path: Path) -> None:
        profile_dir = tmp_path / "my profile"
        cluster = Cluster(n=N, profile_dir=profile_dir, shutdown_atexit=False, **self.options)
        cluster.start_cluster_sync()
        try:
            other = Cluster.from_file(profile_dir=profile_dir)
            with other.connect_client_sync() as rc:
                other.wait_for_engines_sync(rc, N)
                ends = [os.pidfd_open(pid) for pid in rc[:].apply_sync(os.getpid)]
                assert [each.n for each in other.engine_sets.values()] == [N]
            other.stop_cluster_sync()
            for end in ends:
                assert select.select([end], [], [], TIMEOUT_S)[0]
                os.close(end)
        finally:
            cluster.stop_cluster_sync()

    def test_an_engine_that_is_killed_is_told_of(self, cluster: Cluster) -> None:
        with cluster as rc:
            victim = rc.ids[0]
            pid = rc[victim].apply_sync(os.getpid)
            result = rc[victim].apply_async(time.sleep, TIMEOUT_S)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineError, match=f"engine {victim} "):
                result.get(TIMEOUT_S)
            if self.dies_together:
                launched = cluster.engine_sets["1"]
                assert launched.wait(TIMEOUT_S)
                assert "MPI program 1" in launched.explain_end()
            else:
                assert rc[rc.ids[-1]].apply_sync(lambda: 1) == 1


class GraceSuite:
    """For launchers whose engines are ended by a supervisor that we ask to."""

    options: dict[str, Any]

    def test_what_cleans_up_when_it_is_ended_has_the_time_that_is_configured(
        self, tmp_path: Path
    ) -> None:
        def work(directory: str) -> None:
            def clean_up(*_: object) -> None:
                time.sleep(4)
                Path(directory, "cleaned").touch()
                os._exit(0)

            signal.signal(signal.SIGTERM, clean_up)
            Path(directory, "begun").touch()
            time.sleep(TIMEOUT_S)

        profile_dir = tmp_path / "profile"
        grace = {"Cluster": {"stop_grace_s": 60.0}}
        with Cluster(n=1, profile_dir=profile_dir, config=grace, **self.options) as rc:
            rc[0].apply_async(work, str(tmp_path))
            wait_until(rc, (tmp_path / "begun").exists)
            Cluster.from_file(profile_dir=profile_dir).stop_engines_sync()
            assert (tmp_path / "cleaned").exists()
