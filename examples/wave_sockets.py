"""The wave equation on all engines at once, which talk to each other over sockets of their own.

The grid is cut into rectangles, one per engine. Before each step an engine needs the outermost
cells of its neighbours. To send them through the controller would work, but they have no
business there: here each pair of neighbours has a socket. The client only

1. runs `wave_solver.py` on all engines,
2. lets each of them listen, and pulls the addresses,
3. pushes all addresses to all of them, and lets them connect,
4. says how many steps to go, and pulls the parts when it wants to see them.

All engines must run at the same time, so calls go to each of them by a direct view. The same
solver runs here on the whole grid, and the two must agree. `wave_mpi.py` does the same with MPI
in place of sockets.

These sockets are not encrypted: use them where you trust the network.
"""

from __future__ import annotations

import argparse
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
import wave_solver
import zmq
from matplotlib.figure import Figure

from parallelz import Client, DirectView

WIDTH = 1.5  # of the grid, whose height is 1
SOLVER = Path(__file__).with_name("wave_solver.py")
NEIGHBOUR_TIMEOUT_MS = 30_000
DIFFERENCE_MAX = 1e-12
FRAMES = 6

Place = tuple[int, int]  # row and column among the parts
Names = Any  # the namespace of an engine: a dict whose items are attributes as well
Neighbours = Callable[
    [Client, Mapping[Place, wave_solver.Part]], AbstractContextManager[DirectView]
]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    args = new_parser(__doc__).parse_args(argv)
    compare(args, connected_engines, begin, go_on, "wave.png")


def new_parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that are about the equation."""
    parser = common.new_parser(text)
    parser.add_argument(
        "--rows", type=common.positive, default=400, help="of the grid (default: 400)"
    )
    parser.add_argument(
        "--steps",
        type=common.positive,
        help=f"in {FRAMES - 1} runs (default: as many as the pulse needs to get to the right)",
    )
    return parser


def compare(
    args: argparse.Namespace,
    neighbours: Neighbours,
    begin: Callable[[Names, int], None],
    go_on: Callable[[Names, int], None],
    picture: str,
    **cluster: Any,  # noqa: ANN401 - of `Cluster`
) -> None:
    """Solve the equation on engines and in this process; compare, draw, and say how long.

    Parameters
    ----------
    neighbours
        Gives a view of engines that know their parts of the grid and each other.
    begin, go_on
        What they do, with their namespaces.
    cluster
        What a cluster of our own is made with.
    """
    row_count, column_count = args.rows, round(WIDTH * args.rows)
    end = 1.25 * args.rows / wave_solver.STEP_PER_CELL
    steps_per_frame = max(1, (args.steps or round(end)) // (FRAMES - 1))

    with common.connected(args, **cluster) as rc:
        rows, columns = nearly_square(len(rc))
        if row_count < rows or column_count < columns:
            raise common.ExampleError(f"--rows {row_count}: not a cell for each engine")
        parts = wave_solver.cut(row_count, column_count, rows, columns)
        with neighbours(rc, parts) as dv:
            dv.apply_sync_bound(begin, row_count)
            started_s = time.perf_counter()
            frames = [assembled(parts, dv["wave.inner"])]
            for _ in range(FRAMES - 1):
                dv.apply_sync_bound(go_on, steps_per_frame)
                frames.append(assembled(parts, dv["wave.inner"]))
            parallel_s = time.perf_counter() - started_s

    whole = wave_solver.Part(0, row_count, 0, column_count)
    wave = wave_solver.Wave(row_count, whole, wave_solver.Ghosts())
    started_s = time.perf_counter()
    difference = 0.0
    for frame in frames:
        difference = max(difference, np.abs(frame - wave.inner).max())
        if frame is not frames[-1]:
            wave.run(steps_per_frame)
    serial_s = time.perf_counter() - started_s
    common.check(f"the solutions differ by {difference:.1e}", difference <= DIFFERENCE_MAX)

    times = [n * steps_per_frame * wave.step_length for n in range(FRAMES)]
    common.save(draw(frames, times, parts), args.output, picture)
    step_count = (FRAMES - 1) * steps_per_frame
    cells = row_count * column_count * step_count / 1e6
    solved = (
        ("engines", f"{rows} x {columns}", parallel_s),
        ("this process", "1 x 1", serial_s),
    )
    common.print_table(
        ("solved by", "parts", "seconds", "million cells/s"),
        [(who, cut, f"{took_s:.2f}", f"{cells / took_s:.0f}") for who, cut, took_s in solved],
    )
    exchanged = 2 * 8 * ((rows - 1) * column_count + (columns - 1) * row_count)
    print(f"\n{row_count} x {column_count} cells, {step_count:,} steps;", end=" ")
    print(f"{exchanged / 1e3:.1f} kB from engine to engine per step.")
    print(f"The largest difference between the two solutions is {difference:.1e}.")


def distribute(dv: DirectView, parts: Mapping[Place, wave_solver.Part]) -> None:
    """Let the engines have the solver, and each its place and its part of the grid."""
    dv.block = True
    dv.run(SOLVER)
    dv.scatter("place", list(parts), flatten=True)
    dv.scatter("part", [tuple(part) for part in parts.values()], flatten=True)


def nearly_square(count: int) -> tuple[int, int]:
    """Return two factors of a number that are as close as can be, the smaller one first."""
    rows = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    return rows, count // rows


@contextmanager
def connected_engines(
    rc: Client, parts: Mapping[Place, wave_solver.Part]
) -> Iterator[DirectView]:
    """Give a view of engines, each of which has a part of the grid and its neighbours."""
    dv = rc[:]
    distribute(dv, parts)
    hosts = set(dv.apply_sync(socket.gethostname))
    address = "127.0.0.1" if len(hosts) == 1 else None
    try:
        listening = dv.apply_sync_bound(listen, set(parts), address)
        dv["addresses"] = {side: url for each in listening for side, url in each.items()}
        dv.apply_sync_bound(connect)
        yield dv
    finally:
        dv.apply_async_bound(disconnect).wait(NEIGHBOUR_TIMEOUT_MS / 1000)


def assembled(
    parts: Mapping[Place, wave_solver.Part], blocks: Sequence[np.ndarray]
) -> np.ndarray:
    """Put the cells of all engines together."""
    last = parts[max(parts)]
    whole = np.empty((last.end_row, last.end_column))
    for part, block in zip(parts.values(), blocks, strict=True):
        whole[part.first_row : part.end_row, part.first_column : part.end_column] = block
    return whole


# -- what the engines do ------------------------------------------------------------------
# Their first argument is the engine's namespace, with what was pushed and wave_solver.py.


class SocketGhosts:
    """Ghost cells by sockets.

    Parameters
    ----------
    sockets
        To the neighbour on each side that has one.
    inner, outer
        By side, where the cells are that it gets and those that it gives.
    """

    def __init__(
        self, sockets: dict[str, zmq.Socket], inner: dict[str, Any], outer: dict[str, Any]
    ) -> None:
        self.sockets, self.inner, self.outer = sockets, inner, outer

    def exchange(self, u: np.ndarray) -> None:
        """Send to all sides, then receive from all: what was sent is on its way by itself."""
        for side, neighbour in self.sockets.items():
            neighbour.send(np.ascontiguousarray(u[self.inner[side]]))
        for side, neighbour in self.sockets.items():
            u[self.outer[side]] = np.frombuffer(neighbour.recv())


def listen(ns: Names, places: set[Place], address: str | None) -> dict[tuple[Place, str], str]:
    """Listen for the neighbours below and to the right; return the addresses by side."""
    row, column = ns.place
    ns.context = zmq.Context()
    ns.sockets = {}
    urls = {}
    for side, place in (("below", (row + 1, column)), ("right", (row, column + 1))):
        if place in places:
            ns.sockets[side] = new_socket(ns)
            host = address or socket.getfqdn()
            port = ns.sockets[side].bind_to_random_port(f"tcp://{address or '*'}")
            urls[ns.place, side] = f"tcp://{host}:{port}"
    return urls


def connect(ns: Names) -> None:
    """Connect to the neighbours above and to the left."""
    row, column = ns.place
    listeners = {"above": ((row - 1, column), "below"), "left": ((row, column - 1), "right")}
    for side, listener in listeners.items():
        if listener in ns.addresses:
            ns.sockets[side] = new_socket(ns)
            ns.sockets[side].connect(ns.addresses[listener])


def new_socket(ns: Names) -> zmq.Socket:
    """Return a socket for one neighbour; who waits for one that has died gets an error."""
    made = ns.context.socket(zmq.PAIR)
    made.linger = 0
    made.rcvtimeo = NEIGHBOUR_TIMEOUT_MS
    return made


def begin(ns: Names, row_count: int) -> None:
    """Make the part of the wave that is ours."""
    ghosts = SocketGhosts(ns.sockets, ns.INNER, ns.OUTER)
    ns.wave = ns.Wave(row_count, ns.Part(*ns.part), ghosts)


def go_on(ns: Names, step_count: int) -> None:
    """Go on in time."""
    ns.wave.run(step_count)


def disconnect(ns: Names) -> None:
    """Close all sockets."""
    ns.context.destroy()


# -- the picture --------------------------------------------------------------------------


def draw(
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    parts: Mapping[Place, wave_solver.Part],
) -> Figure:
    """Draw the wave at some times, the wall, and where the grid was cut."""
    figure = Figure(figsize=(14, 6.9), layout="constrained")
    row_count, column_count = frames[0].shape
    y, x = (np.arange(row_count) + 0.5) / row_count, (np.arange(column_count) + 0.5) / row_count
    solid = np.where(wave_solver.wall(x, y), 1.0, np.nan)
    extent = (0, column_count / row_count, 1, 0)
    for axes, frame, at in zip(figure.subplots(2, 3).flat, frames, times, strict=True):
        image = axes.imshow(frame, extent=extent, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
        axes.imshow(solid, extent=extent, cmap="gray", vmin=0, vmax=4)
        line = {"color": "0.4", "linewidth": 0.6, "dashes": (4, 4)}
        for part in parts.values():
            if part.first_row:
                axes.axhline(part.first_row / row_count, **line)
            if part.first_column:
                axes.axvline(part.first_column / row_count, **line)
        axes.set_title(f"time {at:.2f}", loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(
        image, ax=figure.axes, label="height of the wave", shrink=0.8, extend="both"
    )
    figure.suptitle("A pulse and two slits; dashed lines: where one engine's cells end")
    return figure


if __name__ == "__main__":
    common.run(main)
