"""Graphs of jobs: what comes before what, and an order in which they can run.

A graph is a networkx ``DiGraph`` with edges from what comes first to what needs it, or a dict
of the predecessors of each node. Nothing here recurses: a graph may be as deep as it is large.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Protocol, TypeVar

CYCLE_LENGTH_SHOWN = 10

N = TypeVar("N", bound=Hashable)


class DirectedGraph(Protocol[N]):
    """What is used of a networkx ``DiGraph``."""

    def __iter__(self) -> Iterator[N]:
        """Iterate over its nodes."""

    def predecessors(self, n: N, /) -> Iterable[N]:
        """Return the nodes with an edge to `n`."""


Graph = DirectedGraph[N] | Mapping[N, Iterable[N]]


def predecessors_of(graph: Graph[N]) -> dict[N, list[N]]:
    """Return the predecessors of each node; of a dict's nodes that are no keys: none."""
    if isinstance(graph, Mapping):
        predecessors = {node: list(earlier) for node, earlier in graph.items()}
        for earlier in list(predecessors.values()):
            for node in earlier:
                predecessors.setdefault(node, [])
        return predecessors
    return {node: list(graph.predecessors(node)) for node in graph}


def order_of(predecessors: Mapping[N, Sequence[N]]) -> list[N]:
    """Return the nodes in an order in which none comes before its predecessors.

    Raises
    ------
    graphlib.CycleError
        If there is none; names the nodes of a cycle.
    """
    try:
        return list(TopologicalSorter(predecessors).static_order())
    except CycleError as error:
        cycle = [repr(node) for node in error.args[1]]
        if len(cycle) > CYCLE_LENGTH_SHOWN:
            left_out = f"({len(cycle) - CYCLE_LENGTH_SHOWN} more)"
            cycle[CYCLE_LENGTH_SHOWN - 1 : -1] = [left_out]
        raise CycleError(f"the graph has a cycle: {' -> '.join(cycle)}") from None


def as_call(
    job: Callable[[], object],
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """Return the function and the arguments of a job."""
    # As a whole, each partial would be a function of its own to be sent.
    if isinstance(job, partial):
        return job.func, job.args, job.keywords
    return job, (), {}
