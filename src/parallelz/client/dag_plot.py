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
    edges = [
        (earlier, node)
        for node, before in predecessors.items()
        for earlier in before
        if node in runs and earlier in runs
    ]
    _draw_edges(axes, edges, spots, runs)
    _draw_nodes(axes, spots, runs)
    _draw_names(axes, spots)
    last_s = max((run.completed - first).total_seconds() for run in runs.values())
    engine_count = len({run.engine_id for run in runs.values()})
    axes.set_title(
        f"{len(runs):,} tasks with {len(edges):,} dependencies"
        f" on {engine_count} engines in {last_s:.2f} s"
    )
    return figure


def _draw_edges(
    axes: Axes,
    edges: Sequence[tuple[N, N]],
    spots: Mapping[N, Spot],
    runs: Mapping[N, NodeRun],
) -> None:
    held = [edge for edge in edges if runs[edge[0]].completed <= runs[edge[1]].started]
    wrong = [edge for edge in edges if runs[edge[0]].completed > runs[edge[1]].started]
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
        axes.legend(loc="best", framealpha=0.9, fontsize="small")


def _draw_names(axes: Axes, spots: Mapping[N, Spot]) -> None:
    by_run_time = sorted(spots, key=lambda node: -spots[node].run_ms)
    named = by_run_time if len(spots) <= NAMES_MAX else by_run_time[:NAMED_OF_MANY]
    for node in named:
        axes.annotate(
            str(node), spots[node], (4, 4), textcoords="offset points", fontsize="small"
        )
