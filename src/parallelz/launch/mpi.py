"""Engines as the ranks of one MPI program: ``MPI.COMM_WORLD`` spans them.

They are started, and live and die, together: MPI ends all ranks when one is gone. So there is
no supervisor, and single ones are not replaced.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import Place
from parallelz.launch.launcher_options import to_options
from parallelz.launch.local import NO_LAUNCHER_OPTIONS, NO_OPTIONS, LocalEngines


class MPIOptions(msgspec.Struct, frozen=True):
    """How the ranks are started.

    Attributes
    ----------
    mpiexec
        The program: ``mpiexec``, ``mpirun`` or ``srun``.
    args
        Its arguments besides ``-n``, such as ``["--hostfile", "hosts"]``.
    mpi
        Module that initialises MPI when it is imported: ``mpi4py`` means ``mpi4py.MPI``.
    python
        Interpreter of the engines; "": the one of this process.
    """

    mpiexec: str = "mpiexec"
    args: list[str] = []
    mpi: str = "mpi4py"
    python: str = ""


def mpi_command(
    place: Place, n: int, mpi: MPIOptions, *, log_dir: str, engine_options: EngineOptions
) -> list[str]:
    """Return the command line that starts `n` ranks, each of which is an engine."""
    file = settings.connection_file(place.profile_dir, place.cluster_id, "engine")
    return [
        mpi.mpiexec,
        "-n",
        str(n),
        *mpi.args,
        mpi.python or sys.executable,
        "-m",
        "parallelz.engine.process",
        "--mpi",
        mpi.mpi,
        "--file",
        str(file),
        "--wait-s",
        f"{engine_options.file_wait_s:g}",
        "--log-dir",
        log_dir,
        *engine_options.described,
    ]


class MPIEngines(LocalEngines):
    """A set of engines that are the ranks of one MPI program."""

    name = "mpi"
    Options = MPIOptions

    def __init__(
        self,
        place: Place,
        n: int,
        *,
        set_id: str = "1",
        options: EngineOptions = NO_OPTIONS,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
    ) -> None:
        self._mpi = to_options(MPIOptions, launcher_options, "mpi")
        if options.memory_limit or options.restart:
            raise ClusterError(
                "MPI ends all ranks when one ends: engines of the launcher mpi have no"
                " memory limit and are not restarted"
            )
        super().__init__(place, n, set_id=set_id, options=options)
        self.launcher_options = dict(launcher_options)
        self._name = f"MPI program {set_id}"

    def _command(self, log_dir: str) -> list[str]:
        program = self._mpi.mpiexec
        if shutil.which(program) is None:
            raise ClusterError(
                f"there is no program {program!r}: install an MPI, or name its mpiexec in the"
                " option mpiexec of the launcher mpi"
            )
        return mpi_command(
            self._place, self.n, self._mpi, log_dir=log_dir, engine_options=self.options
        )
