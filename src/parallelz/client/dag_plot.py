"""The picture of a graph of tasks that have run; needs matplotlib."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from parallelz.client.dag import NodeRun

N = TypeVar("N", bound=Hashable)

SIZE_INCHES = (12, 7)
RESOLUTION_DPI = 150
LOG_FROM_RATIO = 30.0  # of the longest run to the shortest
ARROWS_MAX = 200  # with more, only lines can be told apart
NAMES_MAX = 30  # with more nodes, only those that ran longest are named
NAMED_OF_MANY = 8
NAME_WIDTH, NAME_HEIGHT = 0.1, 0.03  # room for a name, of the whole picture
LEGEND_ENGINES_MAX = 16
RED = "#d62728"


class Spot(NamedTuple):
    """Where a node is drawn, in seconds since the first start and milliseconds of running."""

    start_s: float
    run_ms: float


def draw(predecessors: Mapping[N, Sequence[N]], runs: Mapping[N, NodeRun]) -> Figure:
    """Draw the nodes that ran and the edges between them."""
    figure = Figure(figsize=SIZE_INCHES, dpi=RESOLUTION_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlabel("start (s after the first)")
    axes.set_ylabel("run time (ms)")
    axes.grid(alpha=0.25, linewidth=0.5)
    if not runs:
        axes.set_title("nothing has run")
        return figure
    first = min(run.started for run in runs.values())
    spots = {
        node: Spot(
            (run.started - first).total_seconds(),
            max((run.completed - run.started).total_seconds() * 1e3, 1e-3),
        )
        for node, run in runs.items()
    }
    run_times = [spot.run_ms for spot in spots.values()]
    if max(run_times) / min(run_times) > LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    edges = [
        (earlier, node)
        for node, before in predecessors.items()
        for earlier in before
        if node in runs and earlier in runs
    ]
    _draw_edges(axes, edges, spots, runs)
    _draw_nodes(axes, spots, runs)
    _draw_names(axes, spots)
    _set_titles(axes, runs, edges)
    return figure


def _set_titles(axes: Axes, runs: Mapping[N, NodeRun], edges: Sequence[tuple[N, N]]) -> None:
    first = min(run.started for run in runs.values())
    last_s = max((run.completed - first).total_seconds() for run in runs.values())
    engine_count = len({run.engine_id for run in runs.values()})
    axes.set_title(
        f"tasks: {len(runs):,}, dependencies: {len(edges):,},"
        f" engines: {engine_count}, time: {last_s:.2f} s",
        loc="left",
    )
    wrong_count = sum(not _held(edge, runs) for edge in edges)
    axes.set_title(
        f"{wrong_count:,} tasks ran too early (red)"
        if wrong_count
        else "each line leads from a task to one that waited for it, to the right",
        loc="right",
        fontsize="small",
    )


def _held(edge: tuple[N, N], runs: Mapping[N, NodeRun]) -> bool:
    earlier, later = edge
    return runs[earlier].completed <= runs[later].started


def _draw_edges(
    axes: Axes,
    edges: Sequence[tuple[N, N]],
    spots: Mapping[N, Spot],
    runs: Mapping[N, NodeRun],
) -> None:
    held = [edge for edge in edges if _held(edge, runs)]
    wrong = [edge for edge in edges if not _held(edge, runs)]
    alpha = min(0.6, max(0.08, 150 / max(len(edges), 1)))
    for some, color, strength in ((held, "0.35", alpha), (wrong, RED, 0.9)):
        if len(edges) > ARROWS_MAX:
            lines = [(spots[earlier], spots[node]) for earlier, node in some]
            axes.add_collection(
                LineCollection(lines, colors=color, alpha=strength, linewidths=0.6, zorder=1)
            )
            continue
        for earlier, node in some:
            style = {"arrowstyle": "->", "color": color, "alpha": strength, "shrinkB": 4}
            axes.annotate("", spots[node], spots[earlier], arrowprops=style, zorder=1)


def _draw_nodes(axes: Axes, spots: Mapping[N, Spot], runs: Mapping[N, NodeRun]) -> None:
    engine_ids = sorted({run.engine_id for run in runs.values()})
    few = len(engine_ids) <= 10
    colors = matplotlib.colormaps["tab10" if few else "turbo"]
    for index, engine_id in enumerate(engine_ids):
        own = [spot for node, spot in spots.items() if runs[node].engine_id == engine_id]
        axes.scatter(
            [spot.start_s for spot in own],
            [spot.run_ms for spot in own],
            s=36 if len(spots) <= ARROWS_MAX else 14,
            color=colors(index if few else index / (len(engine_ids) - 1)),
            label=f"engine {engine_id}: {len(own):,} tasks",
            edgecolors="white",
            linewidths=0.3,
            zorder=2,
        )
    if len(engine_ids) <= LEGEND_ENGINES_MAX:
        figure = axes.figure
        assert isinstance(figure, Figure)
        figure.legend(loc="outside lower center", ncols=8, frameon=False, fontsize="small")


def _draw_names(axes: Axes, spots: Mapping[N, Spot]) -> None:
    """Name nodes, those that ran longest first, where there is room."""
    wanted_count = len(spots) if len(spots) <= NAMES_MAX else NAMED_OF_MANY
    taken: list[tuple[float, float]] = []
    for node in sorted(spots, key=lambda node: -spots[node].run_ms):
        if len(taken) == wanted_count:
            return
        display = axes.transData.transform(spots[node])
        x, y = axes.transAxes.inverted().transform(display)
        if any(abs(x - a) < NAME_WIDTH and abs(y - b) < NAME_HEIGHT for a, b in taken):
            continue
        taken.append((x, y))
        axes.annotate(
            str(node), spots[node], (4, 4), textcoords="offset points", fontsize="small"
        )
