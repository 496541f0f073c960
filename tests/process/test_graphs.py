"""Graphs of jobs, on real engines."""

from __future__ import annotations

import graphlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import networkx
import pytest

from parallelz import LoadBalancedView, depend, interactive, require
from parallelz.client.dag import plot_dag, submit_graph, validate_graph
from parallelz.errors import ImpossibleDependency

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def diamonds(count: int) -> networkx.DiGraph:
    """Return a row of diamonds, each after the one before."""
    graph = networkx.DiGraph()
    for first in range(0, 3 * count, 3):
        for middle in (first + 1, first + 2):
            graph.add_edge(first, middle)
            graph.add_edge(middle, first + 3)
    return graph


def jobs_of(graph: networkx.DiGraph) -> dict[int, Callable[[], object]]:
    return {node: partial(pow, node, 2) for node in graph}


def test_each_node_runs_after_its_predecessors(lv: LoadBalancedView, tmp_path: Path) -> None:
    graph = diamonds(10)
    results = submit_graph(lv, graph, jobs_of(graph))
    assert {node: each.get(TIMEOUT_S) for node, each in results.items()} == {
        node: node**2 for node in graph
    }
    validate_graph(graph, results)
    plot_dag(graph, results, tmp_path / "run.png")


def test_a_dict_of_predecessors_will_do(lv: LoadBalancedView) -> None:
    results = submit_graph(lv, {"b": ["a"]}, {"a": list, "b": dict})
    assert [results[node].get(TIMEOUT_S) for node in ("a", "b")] == [[], {}]


def test_what_needs_a_failed_node_does_not_run(lv: LoadBalancedView) -> None:
    graph = {"c": ["b"], "b": ["a"]}
    results = submit_graph(lv, graph, {"a": partial(divmod, 1, 0), "b": list, "c": list})
    for node, error in (
        ("a", ZeroDivisionError),
        ("b", ImpossibleDependency),
        ("c", ImpossibleDependency),
    ):
        with pytest.raises(error):
            results[node].get(TIMEOUT_S)
    assert [results[node].metadata["label"] for node in "abc"] == ["a", "b", "c"]  # type: ignore[index]
    with pytest.raises(ValueError, match="has not run"):
        validate_graph(graph, results)


def test_the_flags_of_a_view_hold_for_its_graph(lv: LoadBalancedView) -> None:
    first = lv.apply_async(list)
    with lv.temp_flags(after=[first], label="graph"):
        results = submit_graph(lv, {"b": ["a"]}, {"a": list, "b": list})
        assert lv.after == [first]
    results["b"].get(TIMEOUT_S)
    validate_graph({"a": ["first"]}, {"first": first, **results})


def test_a_cycle_or_a_missing_job_submits_nothing(lv: LoadBalancedView) -> None:
    submitted = list(lv.history)
    with pytest.raises(graphlib.CycleError, match="'a'"):
        submit_graph(lv, {"a": ["b"], "b": ["a"]}, {"a": list, "b": list})
    with pytest.raises(ValueError, match="no job for node 'a'"):
        submit_graph(lv, {"b": ["a"]}, {"b": list})
    assert list(lv.history) == submitted


def test_a_large_graph_is_one_batch(lv: LoadBalancedView) -> None:
    graph = {n: {n // 2, n // 3} - {n} for n in range(5000)}
    results = lv.submit_graph(graph, {n: partial(abs, -n) for n in graph})
    assert [results[n].get(TIMEOUT_S) for n in range(5000)] == list(range(5000))
    validate_graph(graph, results)


def test_functions_with_conditions_run_where_those_hold(lv: LoadBalancedView) -> None:
    def limit() -> int:
        return 7

    @require("json", "os.path", limit)
    @depend(lambda: True)
    @interactive
    def report() -> str:
        return json.dumps([limit(), os.path.basename("a/b")])  # type: ignore[name-defined]  # noqa: F821

    assert lv.apply_sync(report) == '[7, "b"]'
    assert lv.map_sync(depend(abs, 1)(abs), [-1, -2]) == [1, 2]
