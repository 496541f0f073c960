"""A sum over all engines by MPI: numbers are scattered, each rank adds up its own.

``view.run`` runs `psum_ranks.py` on all engines, which defines `psum` there; ``execute`` calls
it in their namespaces, on what was scattered to them. All engines have to call it at the same
time, as with anything that all ranks of an MPI program do together.

It needs an MPI (``mpiexec``) and mpi4py: ``pip install 'parallelz[demo,mpi]'``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np

RANKS = Path(__file__).with_name("psum_ranks.py")
ERROR_MAX = 1e-9


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument(
        "--numbers", type=common.positive, default=1_000_000, help="how many (default: 1000000)"
    )
    parser.add_argument(
        "--mpiexec-args",
        default="--oversubscribe",
        help="arguments of mpiexec, separated by spaces (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    numbers = np.random.default_rng(0).random(args.numbers)
    options = {"args": args.mpiexec_args.split()}
    with common.connected(args, engines="mpi", launcher_options=options) as rc:
        dv = rc[:]
        dv.block = True
        dv.run(RANKS)
        dv.scatter("values", numbers)
        dv.execute("total = psum(values)")
        totals = dv["total"]
        counts = dv.apply_sync(lambda: len(values))  # noqa: F821 - what was scattered there
        ranks = dv.apply_sync(lambda: MPI.COMM_WORLD.Get_rank())  # noqa: F821 - of psum_ranks.py

    exact = math.fsum(numbers)
    for total in totals:
        difference = abs(total - exact) / exact
        common.check(f"the sum differs by {difference:.1e}", difference <= ERROR_MAX)
    common.print_table(
        ("rank", "numbers", "sum of all"),
        [
            (rank, f"{count:,}", f"{total:.6f}")
            for rank, count, total in sorted(zip(ranks, counts, totals, strict=True))
        ],
    )
    print(f"\nAdded up here: {exact:.6f}")


if __name__ == "__main__":
    common.run(main)
