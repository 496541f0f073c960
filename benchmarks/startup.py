"""How long a cluster takes to start: ``python -m benchmarks.startup``.

From the call that starts it until all engines have joined and one task has come back from
each. The package is imported already, each cluster is a new one without history.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.parts import Figures, measure_parts
from parallelz import Cluster

MUST_REACH_S = {2: 0.35, 16: 1.0, 64: 4.0}  # by the number of engines
ROUNDS = 5
SLURM_ENGINES = 2
SLURM_ROUNDS = 3
TESTS_DIR = Path(__file__).parents[1] / "tests"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts that are named, or all; return the exit status."""
    return measure_parts("startup", PARTS, argv)


class Start(NamedTuple):
    """What one start cost."""

    took_s: float  # until all engines had answered
    cpu_s: float  # of all processes of this machine, to their end: others do not disturb it


def start(n: int, engines: str = "local") -> Start:
    """Start a cluster and stop it."""
    before_s = _cpu_s()
    with tempfile.TemporaryDirectory(prefix="startup") as directory:
        begin_s = time.perf_counter()
        with Cluster(n=n, profile_dir=directory, engines=engines) as rc:
            assert len(set(rc[:].apply_sync(os.getpid))) == n
            took_s = time.perf_counter() - begin_s
    return Start(took_s, _cpu_s() - before_s)


def _cpu_s() -> float:
    """Return the CPU time of this process and of all that it has waited for, and so on."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def local() -> Figures:
    """seconds until 2, 16 and 64 engines on this machine have answered"""
    figures: Figures = {"load of the machine before": psutil.getloadavg()[0]}
    for n, must_reach_s in MUST_REACH_S.items():
        figures[f"{n} engines, must reach"] = must_reach_s
        figures |= _summary(f"{n} engines", partial(start, n), ROUNDS)
    return figures


def slurm() -> Figures:
    """seconds until 2 engines have answered that are a job of a Slurm without other jobs"""
    sys.path.insert(0, str(TESTS_DIR))
    import helpers_slurm
    from helpers_daemons import obstacle_to

    if obstacle := obstacle_to(helpers_slurm.PROGRAMS, helpers_slurm.PACKAGES):
        return {"skipped": obstacle}
    figures: Figures = {"load of the machine before": psutil.getloadavg()[0]}
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as directory,
        helpers_slurm.running_slurm(Path(directory)) as running,
    ):
        os.environ.update(running.environment)
        try:
            call = partial(start, SLURM_ENGINES, "slurm")
            return figures | _summary(f"{SLURM_ENGINES} engines", call, SLURM_ROUNDS)
        finally:
            for name in running.environment:
                del os.environ[name]


def _summary(title: str, measure: Callable[[], Start], rounds: int) -> Figures:
    starts = [measure() for _ in range(rounds)]
    return {
        f"{title}, median": statistics.median(each.took_s for each in starts),
        f"{title}, best": min(each.took_s for each in starts),
        f"{title}, CPU time with the end, best": min(each.cpu_s for each in starts),
    }


PARTS: dict[str, Callable[[], Figures]] = {"local": local, "slurm": slurm}


if __name__ == "__main__":
    sys.exit(main())
