"""Engines are killed and frozen at random in the middle of a graph whose answer is known."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parallelz import AsyncResult, Client, Cluster, validate_graph

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROUNDS = 20
ENGINES = 3
NODES = 60
TIMEOUT_S = 60


@pytest.fixture
def rc(tmp_path: Path) -> Iterator[Client]:
    with Cluster(n=ENGINES, profile_dir=tmp_path) as rc:
        yield rc


def random_graph(chance: random.Random) -> dict[int, list[int]]:
    return {
        node: sorted(chance.sample(range(node), min(node, chance.randrange(4))))
        for node in range(NODES)
    }


def answer(graph: dict[int, list[int]]) -> dict[int, int]:
    values: dict[int, int] = {}
    for node, earlier in graph.items():
        values[node] = (node + sum(values[each] for each in earlier)) % 1_000_003
    return values


def make_job() -> Callable[..., int]:
    def job(node: int, seconds: float, *earlier: int) -> int:
        time.sleep(seconds)
        return (node + sum(earlier)) % 1_000_003

    return job


def test_graph_is_right_whatever_happens_to_engines(rc: Client) -> None:
    chance = random.Random(3)
    cluster = rc.cluster
    assert isinstance(cluster, Cluster)
    job = make_job()
    frozen: list[int] = []
    for _ in range(ROUNDS):
        graph = random_graph(chance)
        lv = rc.load_balanced_view(retries=10)
        results: dict[int, AsyncResult] = {}
        for node, earlier in graph.items():
            inputs = [results[each] for each in earlier]
            results[node] = lv.apply_async(job, node, chance.uniform(0, 0.01), *inputs)
        results[chance.randrange(NODES // 2)].wait(TIMEOUT_S)
        victim = chance.choice(rc.ids)
        pid = rc.connection.ledger.engines[victim].peer.pid  # type: ignore[index]
        is_kill = chance.random() < 0.7
        os.kill(pid, signal.SIGKILL if is_kill else signal.SIGSTOP)
        if not is_kill:
            frozen.append(pid)
        values = {node: result.get(TIMEOUT_S) for node, result in results.items()}
        assert values == answer(graph)
        validate_graph(graph, results)
        give_up_s = time.monotonic() + TIMEOUT_S
        while victim in rc.ids:
            assert time.monotonic() < give_up_s, "the loss was never noticed"
            rc.spin()
        cluster.start_engines_sync(1)
        rc.wait_for_engines(ENGINES, TIMEOUT_S)
    assert frozen, "no engine was frozen: choose another seed"
    check_that_frozen_ones_come_back(rc, frozen)
    assert rc.queue_status()["unassigned"] == 0


def check_that_frozen_ones_come_back(rc: Client, pids: list[int]) -> None:
    """An engine that was given up and lives is an engine again."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    give_up_s = time.monotonic() + TIMEOUT_S
    while not set(pids) <= {e.peer.pid for e in rc.connection.ledger.engines.values()}:
        assert time.monotonic() < give_up_s, "one did not come back"
        rc.connection.wait(lambda: False, 0.1)
    assert rc.load_balanced_view().map_sync(abs, range(-100, 0)) == list(range(100, 0, -1))
