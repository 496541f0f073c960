"""Tasks that wait for each other: a random graph of jobs, each of which takes a random time.

Two ways to say what comes before what:

1. node by node, with ``after=`` the results of the predecessors. This needs nothing but
   `apply_async`, and the order of submission must be one in which the jobs could run;
2. the whole graph in one call of `submit_graph`.

Afterwards the times at which the engines started and ended the jobs tell whether order held,
and the second run is drawn: an arrow leads from each job to those that waited for it, and as
time goes to the right, so does every arrow.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial

import common
import networkx as nx

from parallelz import AsyncResult, LoadBalancedView, plot_dag, submit_graph, validate_graph


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument("--nodes", type=common.positive, default=40, help="default: 40")
    parser.add_argument("--edges", type=common.positive, default=100, help="default: 100")
    parser.add_argument(
        "--wait", type=float, default=0.1, help="s; the longest of a job (default: 0.1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another graph (default: 1)")
    args = parser.parse_args(argv)
    if args.edges > args.nodes * (args.nodes - 1) // 2:
        parser.error(f"{args.nodes} nodes cannot have {args.edges} edges without a cycle")

    graph = random_dag(args.nodes, args.edges, args.seed)
    # Each node has the job to wait for so long.
    choose = random.Random(args.seed)
    waits_s = {node: choose.uniform(0.1, 1) * args.wait for node in graph}

    with common.connected(args) as rc:
        lv = rc.load_balanced_view()
        rows = []
        for way, submit in (
            ("node by node, after=", submit_by_hand),
            ("submit_graph", submit_at_once),
        ):
            results = submit(lv, graph, waits_s)
            everything = AsyncResult.join(*results.values())
            common.watch(everything)
            everything.get()  # raises what went wrong, if anything did
            validate_graph(graph, results)  # raises if a job started too early
            rows.append(
                (
                    way,
                    len(results),
                    f"{everything.wall_time:.2f}",
                    f"{everything.serial_time:.2f}",
                    f"{everything.serial_time / everything.wall_time:.2f}",
                )
            )
        engine_count = len(rc)

    figure = plot_dag(graph, results)
    common.save(figure, args.output, "dag_of_waits.png")
    common.print_table(("submitted", "jobs", "took s", "ran s", "ratio"), rows)
    print()
    print(f"{args.edges} dependencies, all of them in order; {engine_count} engines.")
    print(f"The longest chain needs {longest_chain_s(graph, waits_s):.2f} s, with any number.")


def random_dag(node_count: int, edge_count: int, seed: int) -> nx.DiGraph:
    """Return a graph whose edges all go from a lower number to a higher one: no cycles."""
    choose = random.Random(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(node_count))
    while graph.number_of_edges() < edge_count:
        graph.add_edge(*sorted(choose.sample(range(node_count), 2)))
    return graph


def submit_by_hand(
    lv: LoadBalancedView, graph: nx.DiGraph, waits_s: dict[int, float]
) -> dict[int, AsyncResult]:
    """Submit the jobs one after the other, predecessors first."""
    results: dict[int, AsyncResult] = {}
    for node in nx.topological_sort(graph):
        predecessors = [results[each] for each in graph.predecessors(node)]
        with lv.temp_flags(after=predecessors):
            results[node] = lv.apply_async(time.sleep, waits_s[node])
    return results


def submit_at_once(
    lv: LoadBalancedView, graph: nx.DiGraph, waits_s: dict[int, float]
) -> dict[int, AsyncResult]:
    """Submit the graph, and a job without arguments for each node."""
    jobs = {node: partial(time.sleep, wait_s) for node, wait_s in waits_s.items()}
    return submit_graph(lv, graph, jobs)


def longest_chain_s(graph: nx.DiGraph, waits_s: dict[int, float]) -> float:
    """Return how long the jobs take that can only run one after the other."""
    end_s: dict[int, float] = {}
    for node in nx.topological_sort(graph):
        begin_s = max((end_s[each] for each in graph.predecessors(node)), default=0.0)
        end_s[node] = begin_s + waits_s[node]
    return max(end_s.values())


if __name__ == "__main__":
    common.run(main)
