"""A program as users write it, over the whole public API. It is checked, never run."""

from __future__ import annotations

import asyncio
import datetime
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import numpy as np

import parallelz
from parallelz import (
    AsyncMapResult,
    AsyncResult,
    Client,
    Cluster,
    CompositeError,
    Dependency,
    DirectView,
    EngineError,
    LoadBalancedView,
    Reference,
    RemoteError,
    TaskAborted,
    depend,
    dependent,
    interactive,
    plot_dag,
    register_serializer,
    require,
    submit_graph,
    validate_graph,
)
from parallelz import client as client_module


def add(x: int, y: int = 1) -> int:
    return x + y


def use_clients(path: Path) -> None:
    assert_type(client_module.Client(), Client)
    with Client(path, timeout=5, when_full="raise") as rc, Client(profile="mpi") as other:
        rc.wait_for_engines(2, timeout=30)
        assert_type(rc.ids, list[int])
        assert_type(rc[0], DirectView)
        assert_type(rc[-1], DirectView)
        assert_type(rc[::2], DirectView)
        assert_type(rc[0, 2], DirectView)
        for view in rc:
            assert_type(view, DirectView)
        assert_type(rc.view(), LoadBalancedView)
        assert_type(rc.view([0, 1]), DirectView)
        assert_type(rc.view("all"), DirectView)
        assert_type(rc.view([0, 1], balanced=True), LoadBalancedView)
        assert_type(rc.view(balanced=False), DirectView)
        assert_type(rc.direct_view(block=True), DirectView)
        assert_type(rc.load_balanced_view([0], retries=2), LoadBalancedView)
        rc.block = True
        rc.max_outstanding = 1000
        total: int = rc.apply(add, [1], {"y": 2}, block=True, targets=0)
        rc.push({"a": total}, targets="all", block=True)
        rc.pull(("a", "b"), targets=[0], block=True)
        rc.execute("a += 1", targets=slice(None)).get()
        rc.map(add, range(3), balanced=True)
        other.close()


def use_direct(dv: DirectView) -> None:
    dv["a"] = 27
    values: list[int] = dv["a"]
    dv.push({"b": np.zeros(3)}, block=True)
    dv.update({"c": values})
    dv.scatter("part", range(16), flatten=True).get()
    dv.gather("part", block=True)
    dv.apply_sync(lambda x: x + 1, 2)
    dv.apply_sync(Reference("a.method"), Reference("b"))
    assert_type(dv.apply_async(add, 1, y=2), AsyncResult)
    dv.apply_sync_bound(lambda ns, x: ns.update(a=x), 3)
    assert_type(dv.map_async(add, [1, 2], [3, 4], ordered=False), AsyncMapResult)
    assert_type(dv.reduce(operator.add, ["a", "b"]), str)
    assert_type(dv.reduce(lambda x, y: x * y, [1.5, 2.5], 1.0), float)
    with dv.sync_imports():
        import json
    with dv.temp_flags(block=True):
        dv.run(Path("script.py"))
    json.dumps(dv.queue_status())
    dv.clear()
    dv.shutdown(restart=True)


def use_balanced(lv: LoadBalancedView) -> None:
    first = lv.apply_async(add, 1)
    second = lv.apply_async(add, first, y=2)
    with lv.temp_flags(after=[first], follow=Dependency([second], all=False), timeout=60):
        third = lv.apply_async(max, first, second)
    lv.retries, lv.priority, lv.labels, lv.resources = 2, 1, ["gpu"], {"gpu": 1}
    lv.max_runtime = lv.retry_delay = 1.5
    for value in lv.imap(add, range(10), max_outstanding=4):
        print(value)
    items: list[int] = lv.map_sync(add, range(10), chunksize=2, return_exceptions=True)
    lv.set_flags(retries=0).cancel([third, "some-id"])
    lv.wait(first, timeout=1)
    print(items, lv.history, lv.outstanding)


def use_results(ar: AsyncResult) -> None:
    value: int = ar.get(timeout=1.5)
    same: int = ar.result()
    assert_type(ar.ready() and ar.done() and ar.successful(), bool)
    assert_type(ar.wait(0), bool)
    assert_type(ar.exception(), Exception | None)
    ar.add_done_callback(lambda done: print(done.msg_ids, done.metadata))
    assert_type(ar.cancel(grace=1), bool)
    assert_type(ar.get_dict(), dict[int, parallelz.client.results.Value])
    for item in ar:
        print(item, ar[0], ar["engine_id"])
    print(value, same, len(ar), ar.progress, ar.elapsed, ar.serial_time, ar.stdout)
    both = AsyncResult.join(ar, *ar.split())
    both.wait_interactive(interval=0.5)
    both.display_outputs("engine")


def see_errors(lv: LoadBalancedView) -> None:
    try:
        lv.apply_sync(add, 1)
    except CompositeError as error:
        print(error.elist)
    except RemoteError as error:
        print(error.ename, error.evalue, error.traceback, error.engine_info)
    except TaskAborted as error:
        print(error.msg_id)
    except EngineError as error:
        print(error)


def decorate(rc: Client, dv: DirectView, lv: LoadBalancedView) -> None:
    @lv.remote(block=True, retries=2)
    def area(radius: float, scale: float = 1.0) -> float:
        return radius * scale

    result: float = area(2.0, scale=3.0)
    assert_type(area.func(2.0), float)

    @rc.remote(targets="all")
    def name() -> str:
        return "engine"

    name().get()

    @dv.parallel(block=True)
    def doubled(part: list[int]) -> list[int]:
        return [2 * x for x in part]

    doubled(range(10))
    doubled.map([[1], [2]])
    assert_type(doubled.func([1]), list[int])

    @parallelz.remote(lv)
    def free(x: int) -> int:
        return x

    free(1).get()

    @require("numpy", add)
    @depend(lambda: True)
    def guarded(x: int) -> str:
        return str(x)

    assert_type(guarded(3), str)
    assert_type(dependent(add, lambda: True)(1, y=2), int)
    assert_type(interactive(add)(1), int)
    print(lv.apply_sync(guarded, 3), result)


class Signal:
    def __init__(self, samples: list[float]) -> None:
        self.samples = samples


def send_own_types() -> None:
    def samples_of(signal: Signal) -> list[float]:
        return signal.samples

    register_serializer(Signal, samples_of, Signal)


def run_graphs(lv: LoadBalancedView) -> None:
    graph = {"cake": ["dough", "oven"], "dough": [], "oven": []}
    jobs = {node: (lambda: 1) for node in graph}
    results = lv.submit_graph(graph, jobs)
    assert_type(results["cake"], AsyncResult)
    assert_type(submit_graph(lv, graph, jobs), dict[str, AsyncResult])
    validate_graph(graph, results)
    plot_dag(graph, results, "run.png")


def ask_the_past(rc: Client, ar: AsyncResult) -> None:
    an_hour_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    query = {"status": {"$in": ["ok", "error"]}, "submitted": {"$gt": an_hour_ago}}
    for record in rc.db_query(query, keys=["msg_id", "engine_id"]):
        print(record["msg_id"])
    print(rc.hub_history(), rc.result_status(ar.msg_ids), rc.why(ar), rc.story(ar))
    rc.get_result(ar.msg_ids).get()
    rc.resubmit(ar.msg_ids).get()
    rc.purge_results("all")
    results: Mapping[str, object] = rc.results
    print(results, rc.metadata, rc.queue_status(verbose=True), rc.dump("state.json"))


def use_clusters() -> None:
    with Cluster(n=4, profile="p", labels=["gpu"], memory_limit="2GB", restart=True) as rc:
        assert_type(rc, Client)
    cluster = Cluster(n=2, store="memory", shutdown_atexit=False)
    client = cluster.start_and_connect_sync()
    assert_type(client, Client)
    cluster.stop_cluster_sync()
    assert_type(Cluster.from_file(profile="p"), Cluster)


async def use_clusters_in_a_loop() -> None:
    async with Cluster(n=2) as rc:
        assert_type(rc, Client)
        value: int = await rc.view().apply_async(add, 1)
        print(value)
    cluster = Cluster(n=2)
    await cluster.start_cluster(n=3)
    assert_type(await cluster.connect_client(), Client)
    await cluster.stop_cluster()


asyncio.run(use_clusters_in_a_loop())
