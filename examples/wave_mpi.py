"""The wave equation on engines that are the ranks of an MPI program.

It is `wave_sockets.py` with another way for neighbours to exchange their cells: each engine is
a rank of one MPI program, and ``MPI.COMM_WORLD`` spans them. The client needs no MPI. Which
rank has which part of the grid is asked for, as engines join in any order.

It needs an MPI (``mpiexec``) and mpi4py: ``pip install 'parallelz[demo,mpi]'``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import common
import numpy as np
import wave_solver
from wave_sockets import Names, Place, compare, distribute, new_parser

from parallelz import Client, DirectView

OPPOSITE = {"above": "below", "below": "above", "left": "right", "right": "left"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "--mpiexec-args",
        default="--oversubscribe",
        help="arguments of mpiexec, separated by spaces (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    options = {"args": args.mpiexec_args.split()}
    compare(
        args,
        ranks_of_engines,
        begin,
        go_on,
        "wave_mpi.png",
        engines="mpi",
        launcher_options=options,
    )


@contextmanager
def ranks_of_engines(
    rc: Client, parts: Mapping[Place, wave_solver.Part]
) -> Iterator[DirectView]:
    """Give a view of engines, each of which has a part of the grid and knows all ranks."""
    dv = rc[:]
    distribute(dv, parts)
    dv["ranks"] = dict(zip(parts, dv.apply_sync(rank), strict=True))
    yield dv


# -- what the engines do ------------------------------------------------------------------


def rank() -> int:
    """Return who this is among all."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.Get_rank())


class MPIGhosts:
    """Ghost cells by MPI.

    Parameters
    ----------
    ranks
        Of the neighbour on each side that has one.
    inner, outer
        By side, where the cells are that it gets and those that it gives.
    opposite
        The other side of each.
    """

    def __init__(
        self,
        ranks: dict[str, int],
        inner: dict[str, Any],
        outer: dict[str, Any],
        opposite: dict[str, str],
    ) -> None:
        self.ranks, self.inner, self.outer = ranks, inner, outer
        self.sides = list(ranks)
        self.opposite = opposite

    def exchange(self, u: np.ndarray) -> None:
        """Send to all sides and receive from all, at the same time."""
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        received = {side: np.empty_like(u[self.outer[side]]) for side in self.sides}
        # A message is known by the side that its receiver gets it from.
        requests = [
            world.Irecv(received[side], self.ranks[side], self.sides_tag(side))
            for side in self.sides
        ]
        sent = [np.ascontiguousarray(u[self.inner[side]]) for side in self.sides]
        for side, cells in zip(self.sides, sent, strict=True):
            tag = self.sides_tag(self.opposite[side])
            requests.append(world.Isend(cells, self.ranks[side], tag))
        MPI.Request.Waitall(requests)
        for side, cells in received.items():
            u[self.outer[side]] = cells

    def sides_tag(self, side: str) -> int:
        """Return the number of a side."""
        return list(self.opposite).index(side)


def begin(ns: Names, row_count: int) -> None:
    """Make the part of the wave that is ours."""
    row, column = ns.place
    places = {
        "above": (row - 1, column),
        "below": (row + 1, column),
        "left": (row, column - 1),
        "right": (row, column + 1),
    }
    ranks = {side: ns.ranks[place] for side, place in places.items() if place in ns.ranks}
    ghosts = MPIGhosts(ranks, ns.INNER, ns.OUTER, OPPOSITE)
    ns.wave = ns.Wave(row_count, ns.Part(*ns.part), ghosts)


def go_on(ns: Names, step_count: int) -> None:
    """Go on in time."""
    ns.wave.run(step_count)


if __name__ == "__main__":
    common.run(main)
