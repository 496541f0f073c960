"""Engines as ranks of an MPI program, under a real MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers_launchers import TIMEOUT_S, LauncherSuite

from parallelz import Cluster, ClusterError

pytestmark = pytest.mark.service

OPTIONS = {"engines": "mpi", "launcher_options": {"args": ["--oversubscribe"]}}


@pytest.fixture(autouse=True)
def _mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if shutil.which("mpiexec") is None:
        if os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
            pytest.fail("there is no mpiexec: install openmpi-bin")
        pytest.skip("there is no mpiexec")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")


class TestMPI(LauncherSuite):
    options: ClassVar[dict[str, Any]] = OPTIONS
    dies_together = True


def test_one_communicator_spans_the_engines(tmp_path: Path) -> None:
    def ranks() -> tuple[int, int, int]:
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        return world.Get_rank(), world.Get_size(), world.allreduce(world.Get_rank())

    with Cluster(n=3, profile_dir=tmp_path, **OPTIONS) as rc:  # type: ignore[arg-type]
        assert sorted(rc[:].apply_sync(ranks)) == [(0, 3, 3), (1, 3, 3), (2, 3, 3)]
    logs = sorted(path.name for path in (tmp_path / "log" / "engines-1").iterdir())
    assert logs == [f"ipenginez-rank-{rank}.log" for rank in range(3)]


def test_ranks_started_by_hand_join_a_cluster(tmp_path: Path) -> None:
    with Cluster(n=1, profile_dir=tmp_path) as rc:
        command = ["mpiexec", "--oversubscribe", "-n", "2", sys.executable, "-m"]
        command += ["parallelz.cli.ipenginez", "--mpi=mpi4py", f"--profile-dir={tmp_path}"]
        with subprocess.Popen(command) as mpiexec:
            rc.wait_for_engines(3, timeout=TIMEOUT_S)
            assert rc[:].apply_sync(lambda: 1) == [1, 1, 1]
            rc[1:].shutdown()
            assert mpiexec.wait(TIMEOUT_S) == 0


def test_what_mpiexec_says_is_in_the_error(tmp_path: Path) -> None:
    cluster = Cluster(
        n=2,
        profile_dir=tmp_path,
        engines="mpi",
        launcher_options={"args": ["--no-such-option"]},
        engine_timeout=TIMEOUT_S,
    )
    with pytest.raises(ClusterError, match="MPI program 1 ended with exit code"), cluster:
        pass


def test_a_module_that_is_no_mpi_is_told_of(tmp_path: Path) -> None:
    options = {"args": ["--oversubscribe"], "mpi": "no_such_mpi"}
    cluster = Cluster(n=2, profile_dir=tmp_path, engines="mpi", launcher_options=options)
    with pytest.raises(ClusterError, match="--mpi=no_such_mpi cannot be imported"), cluster:
        pass
