"""How engines are started by MPI."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelz import Cluster
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import Place
from parallelz.launch.mpi import MPIEngines, MPIOptions, mpi_command

PLACE = Place(Path("/p"), "7", 42)


def test_each_rank_is_an_engine() -> None:
    mpi = MPIOptions(mpiexec="srun", args=["--mpi=pmix"], python="/opt/python")
    options = EngineOptions(labels=("big",), file_wait_s=90.0)
    command = mpi_command(PLACE, 4, mpi, log_dir="/logs", engine_options=options)
    assert command == [
        *["srun", "-n", "4", "--mpi=pmix", "/opt/python", "-m", "parallelz.engine.process"],
        *["--mpi", "mpi4py", "--file", "/p/security/ipcontrollerz-7-engine.json"],
        *["--wait-s", "90", "--log-dir", "/logs", "--labels=big"],
    ]


def test_what_makes_no_sense_is_refused_when_the_cluster_is_made_to_start(
    tmp_path: Path,
) -> None:
    def launch(**launcher_options: object) -> None:
        MPIEngines(PLACE, 2, launcher_options=launcher_options)

    with pytest.raises(ClusterError, match=r"no option 'mpiexc'; did you mean mpiexec\?"):
        launch(mpiexc="x")
    with pytest.raises(ClusterError, match="no option 'zzz'; there are mpiexec, args, "):
        launch(zzz=1)
    with pytest.raises(ClusterError, match="cannot use its option args='x': Expected `array`"):
        launch(args="x")
    with pytest.raises(ClusterError, match="no memory limit and are not restarted"):
        MPIEngines(PLACE, 2, options=EngineOptions(restart=True))


def test_a_missing_mpiexec_is_told_of_and_nothing_is_left(tmp_path: Path) -> None:
    cluster = Cluster(
        n=2, profile_dir=tmp_path, engines="mpi", launcher_options={"mpiexec": "no-mpiexec"}
    )
    with pytest.raises(ClusterError, match="there is no program 'no-mpiexec': install an MPI"):
        cluster.start_cluster_sync()
    assert cluster.controller is None
