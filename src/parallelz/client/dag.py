"""Jobs that depend on each other: submit them, check that order held, draw the run.

A graph is a networkx ``DiGraph`` with edges from what comes first to what needs it, or a dict
of the predecessors of each node, ``{"cake": ["dough", "oven"], "dough": []}``. What is known
of a run is in the metadata of its results, so any mapping from nodes to something with such
``metadata`` can be checked and drawn, also of tasks that were submitted by hand. networkx is
not needed here, and matplotlib only to draw.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from parallelz.client.balanced import LoadBalancedView
from parallelz.client.graphs import Graph, predecessors_of
from parallelz.client.results import AsyncResult

N = TypeVar("N", bound=Hashable)


class HasMetadata(Protocol):
    """What is used of the result of one task."""

    @property
    def metadata(self) -> object:
        """A mapping; ``started`` and ``completed`` are datetimes once it has run."""


class NodeRun(NamedTuple):
    """When and where the task of a node ran."""

    started: datetime
    completed: datetime
    engine_id: int


def submit_graph(
    view: LoadBalancedView, graph: Graph[N], jobs: Mapping[N, Callable[[], object]]
) -> dict[N, AsyncResult]:
    """Submit one task per node of a graph; see `LoadBalancedView.submit_graph`."""
    return view.submit_graph(graph, jobs)


def validate_graph(graph: Graph[N], results: Mapping[N, HasMetadata]) -> None:
    """Check that each node's task started after those of its predecessors had completed.

    Parameters
    ----------
    results
        As from `submit_graph`; all tasks have ended. Times are by the engines' clocks, so
        on several hosts this is as exact as those agree.

    Raises
    ------
    ValueError
        Naming the first node that has not run, or ran too early and how much.
    """
    runs = runs_of(graph, results)
    for node, earlier in predecessors_of(graph).items():
        for each in (node, *earlier):
            if each not in runs:
                raise ValueError(f"node {each!r} has not run")
        for each in earlier:
            early_s = (runs[each].completed - runs[node].started).total_seconds()
            if early_s > 0:
                raise ValueError(
                    f"node {node!r} started {early_s:.6f} s before"
                    f" its predecessor {each!r} had completed"
                )


def plot_dag(
    graph: Graph[N],
    results: Mapping[N, HasMetadata],
    path: str | os.PathLike[str] | None = None,
) -> Any:  # noqa: ANN401 - a Figure, but matplotlib need not be there
    """Draw when the nodes' tasks started (x), how long they ran (y) and on which engine.

    Edges go from predecessors to what needs them: if order held, all of them point to the
    right. One that does not hold is red. Nodes that have not run are left out.

    Parameters
    ----------
    path
        Where to save the picture; its suffix says the format. None: nowhere.

    Returns
    -------
    matplotlib.figure.Figure
        Not one of pyplot's: there is nothing to close, and no display is needed.
    """
    from parallelz.client.dag_plot import draw

    figure = draw(predecessors_of(graph), runs_of(graph, results))
    if path is not None:
        figure.savefig(path)
    return figure


def runs_of(graph: Graph[N], results: Mapping[N, HasMetadata]) -> dict[N, NodeRun]:
    """Return the runs of those nodes whose tasks have run to their end."""
    runs = {}
    for node in predecessors_of(graph):
        metadata = results[node].metadata if node in results else None
        if not isinstance(metadata, Mapping):
            continue
        match metadata.get("started"), metadata.get("completed"), metadata.get("engine_id"):
            case datetime() as started, datetime() as completed, int(engine_id):
                runs[node] = NodeRun(started, completed, engine_id)
            case _:
                pass
    return runs
