"""Jobs that depend on each other: submit them, check that order held, draw the run.

A graph is a networkx ``DiGraph`` with edges from what comes first to what needs it, or a dict
of the predecessors of each node, ``{"cake": ["dough", "oven"], "dough": []}``. What is known
of a run is in the metadata of its results, so any mapping from nodes to something with such
``metadata`` can be checked and drawn, also of tasks that were submitted by hand. networkx is
not needed here, and matplotlib only to draw.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter
from typing import Any, NamedTuple, Protocol, TypeVar

from parallelz.client.balanced import LoadBalancedView
from parallelz.client.results import AsyncResult

N = TypeVar("N", bound=Hashable)


class DirectedGraph(Protocol[N]):
    """What is used of a networkx ``DiGraph``."""

    def __iter__(self) -> Iterator[N]:
        """Iterate over its nodes."""

    def predecessors(self, n: N, /) -> Iterable[N]:
        """Return the nodes with an edge to `n`."""


class HasMetadata(Protocol):
    """What is used of the result of one task."""

    @property
    def metadata(self) -> object:
        """A mapping; ``started`` and ``completed`` are datetimes once it has run."""


Graph = DirectedGraph[N] | Mapping[N, Iterable[N]]


class NodeRun(NamedTuple):
    """When and where the task of a node ran."""

    started: datetime
    completed: datetime
    engine_id: int


def submit_graph(
    view: LoadBalancedView, graph: Graph[N], jobs: Mapping[N, Callable[[], object]]
) -> dict[N, AsyncResult]:
    """Submit one task per node, each to run once those of its predecessors have succeeded.

    Parameters
    ----------
    view
        Its flags hold for all tasks, but ``after`` only for those of
        nodes without predecessors.
    graph
        Without cycles.
    jobs
        What to call at each node, without arguments. To give some, use `functools.partial`:
        the function is then sent once to an engine, however many jobs it has.

    Returns
    -------
    dict
        The AsyncResult of each node, in an order in which they could run. A task whose
        predecessor fails ends with `ImpossibleDependency`.

    Raises
    ------
    ValueError
        If there is a cycle (`graphlib.CycleError`) or a node without a job; nothing is
        submitted then.
    """
    predecessors = predecessors_of(graph)
    order = list(TopologicalSorter(predecessors).static_order())
    for node in order:
        if node not in jobs:
            raise ValueError(f"there is no job for node {node!r}")
    results: dict[N, AsyncResult] = {}
    for node in order:
        job, args, kwargs = _as_call(jobs[node])
        earlier = [results[each] for each in predecessors.get(node, ())]
        with view.temp_flags(**({"after": earlier} if earlier else {})):
            results[node] = view.apply_async(job, *args, **kwargs)
    return results


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


def predecessors_of(graph: Graph[N]) -> dict[N, list[N]]:
    """Return the predecessors of each node; of a dict's nodes that are no keys: none."""
    if isinstance(graph, Mapping):
        predecessors = {node: list(earlier) for node, earlier in graph.items()}
        for earlier in list(predecessors.values()):
            for node in earlier:
                predecessors.setdefault(node, [])
        return predecessors
    return {node: list(graph.predecessors(node)) for node in graph}


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


def _as_call(
    job: Callable[[], object],
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    # As a whole, each partial would be a function of its own to be sent.
    if isinstance(job, partial):
        return job.func, job.args, job.keywords
    return job, (), {}
