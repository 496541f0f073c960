"""mpi4py's executor, with workers that MPI spawns on demand."""

from __future__ import annotations

from concurrent.futures import Executor

from mpi4py import MPI
from mpi4py.futures import MPIPoolExecutor

from benchmarks.peers.peer import WORKER_COUNT, ExecutorPeer, versions_of


class Mpi4pyPeer(ExecutorPeer):
    def make_executor(self) -> Executor:
        return MPIPoolExecutor(WORKER_COUNT)

    def versions(self) -> dict[str, str]:
        library = MPI.Get_library_version().splitlines()[0].replace("\t", " ")
        return {**versions_of("mpi4py"), "MPI": library[:60].strip()}


PEER = Mpi4pyPeer
