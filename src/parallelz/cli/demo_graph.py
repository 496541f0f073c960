"""The graph of what imports what in Python's own library, as work for a cluster.

Made of what `demo_work.count_file` found in its files. Modules that import each other are one
node, so that there are no cycles and each node can be worked on after those it imports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath

import networkx

from parallelz.cli.demo_work import FileCounts, NodeSize, compile_node, module_name

TEST_DIRS = frozenset({"test", "tests", "idle_test"})


def import_graph(counts: Iterable[FileCounts]) -> networkx.DiGraph:
    """Return the graph of what imports what, without cycles, from the imported on.

    Its nodes are names; the attribute ``paths`` of a node is the list of its files: one, or
    several that import each other. Tests and what cannot be parsed are left out.
    """
    modules = {
        module_name(each.path): each
        for each in counts
        if each.is_parsed and not TEST_DIRS.intersection(PurePosixPath(each.path).parts)
    }
    full = networkx.DiGraph()
    full.add_nodes_from(sorted(modules))
    for name in sorted(modules):
        for imported in modules[name].imports:
            known = _longest_known(imported, modules)
            if known is not None and known != name:
                full.add_edge(known, name)
    graph = networkx.DiGraph()
    condensed = networkx.condensation(full)
    node_names = {}
    for number, members in condensed.nodes(data="members"):
        first, *others = sorted(members, key=lambda name: (len(name), name))
        node_names[number] = f"{first} + {len(others)}" if others else first
        paths = [modules[name].path for name in sorted(members)]
        graph.add_node(node_names[number], paths=paths)
    graph.add_edges_from((node_names[a], node_names[b]) for a, b in condensed.edges)
    return graph


def graph_jobs(
    graph: networkx.DiGraph, root: str, build_dir: str
) -> dict[str, partial[NodeSize]]:
    """Return the job of each node of an `import_graph`, by node."""
    numbers = {node: number for number, node in enumerate(graph)}
    return {
        node: partial(
            compile_node,
            root,
            build_dir,
            numbers[node],
            graph.nodes[node]["paths"],
            [numbers[needed] for needed in graph.predecessors(node)],
        )
        for node in graph
    }


def check_sizes(graph: networkx.DiGraph, sizes: Mapping[str, NodeSize]) -> None:
    """Check what the nodes found against the graph as a whole.

    Raises
    ------
    ValueError
        Naming the node whose sum is wrong.
    """
    for node in graph:
        ancestors = networkx.ancestors(graph, node)
        expected = sizes[node].own + sum(sizes[each].own for each in ancestors)
        if sizes[node].needed != expected:
            raise ValueError(f"{node}: needs {expected} bytes, not {sizes[node].needed}")


def _longest_known(name: str, known: Mapping[str, object]) -> str | None:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None
