"""What a graph becomes: one batch, all or none."""

from __future__ import annotations

import graphlib
import threading
from functools import partial

import pytest
from helpers_client import TIMEOUT_S
from helpers_script import scripted

from parallelz import LoadBalancedView, SerializationError
from parallelz.client.graphs import order_of
from parallelz.protocol.messages import Dependency, SubmitTask, TaskOptions


def test_each_node_waits_for_its_predecessors_and_is_labelled() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view(label="run", retries=2, after="other-1-1", priority=3)
        results = lv.submit_graph({"c": ["a", "b"]}, dict.fromkeys("abc", list))
        assert list(results) == ["a", "b", "c"]
        options = {}
        for message, _ in controller.wait_for(SubmitTask, 3):
            assert isinstance(message, SubmitTask)
            options[message.task_id] = message.options
        ids = {node: result.msg_ids[0] for node, result in results.items()}
        common = {"retries": 2, "priority": 3}
        assert options == {
            ids["a"]: TaskOptions(Dependency(["other-1-1"]), label="run: a", **common),
            ids["b"]: TaskOptions(Dependency(["other-1-1"]), label="run: b", **common),
            ids["c"]: TaskOptions(Dependency([ids["a"], ids["b"]]), label="run: c", **common),
        }
        assert lv.history == list(ids.values())
        assert results["c"].metadata["after"] == [ids["a"], ids["b"]]


def test_jobs_may_have_results_among_their_arguments() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        before = lv.apply_async(abs, -1)
        results = lv.submit_graph({"b": ["a"]}, {"a": list, "b": partial(abs, before)})
        message, _ = controller.wait_for(SubmitTask, 3)[2]
        assert isinstance(message, SubmitTask)
        after = Dependency(results["a"].msg_ids)
        assert message.options == TaskOptions(after, label="b", inputs=before.msg_ids)


@pytest.mark.parametrize(
    ("jobs", "error", "words"),
    [
        ({"a": list}, ValueError, "no job for node 'b'"),
        ({"a": list, "b": 5}, TypeError, "node 'b' must be callable, not 5"),
        (
            {"a": list, "b": partial(print, threading.Lock())},
            SerializationError,
            "node 'b': argument 0.*lock",
        ),
    ],
)
def test_what_is_wrong_names_the_node_and_nothing_is_submitted(
    lv: LoadBalancedView, jobs: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        lv.submit_graph({"b": ["a"]}, jobs)  # type: ignore[arg-type]
    assert lv.history == []
    assert not lv.outstanding


def test_a_cycle_is_named() -> None:
    with pytest.raises(graphlib.CycleError, match=r"cycle: (1 -> 2 -> 1|2 -> 1 -> 2)"):
        order_of({1: [2], 2: [1], 3: []})
    ring = {n: [(n + 1) % 50_000] for n in range(50_000)}
    with pytest.raises(graphlib.CycleError, match=r"\(49991 more\)") as info:
        order_of(ring)
    assert len(str(info.value)) < 300


def test_a_chain_may_be_as_long_as_the_graph_is_large() -> None:
    assert order_of({n: [n + 1] for n in range(100_000)}) == list(range(100_000, -1, -1))


def test_a_graph_runs(lv: LoadBalancedView) -> None:
    graph = {n: [n // 2] if n else [] for n in range(300)}
    results = lv.submit_graph(graph, {n: partial(pow, n, 2) for n in graph})
    assert {n: result.get(TIMEOUT_S) for n, result in results.items()} == {
        n: n**2 for n in graph
    }
