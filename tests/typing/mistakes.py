"""Wrong uses: each line that ends with `error` and a code must be reported, and no other."""

from __future__ import annotations

import parallelz
from parallelz import (
    AsyncResult,
    Client,
    Cluster,
    DirectView,
    LoadBalancedView,
    Reference,
    depend,
    register_serializer,
)

parallelz.NoSuchName()  # error: attr-defined
Client(timeout="soon")  # error: arg-type
Client(when_full="explode")  # error: arg-type
Client(porfile="mpi")  # error: call-arg
Cluster("four")  # error: arg-type
Cluster(n=4, store=4)  # error: arg-type
Reference(3)  # error: arg-type


def use_views(rc: Client, dv: DirectView, lv: LoadBalancedView) -> None:
    rc["zero"]  # error: index
    rc.view().push({"a": 1})  # error: attr-defined
    rc.view("all").imagine(abs)  # error: attr-defined
    rc.apply(abs, 1)  # error: arg-type
    dv.push([("a", 1)])  # error: arg-type
    dv[0] = 1  # error: index
    dv.apply_sync("abs", -1)  # error: arg-type
    dv.scatter("a", 7)  # error: arg-type
    lv.map_sync(abs, 7)  # error: arg-type
    lv.map_async(abs, [1], chunksize="all")  # error: arg-type
    lv.retries = "many"  # error: assignment
    lv.labels = 7  # error: assignment
    lv.reduce(str.upper, ["a", "b"])  # error: arg-type
    lv.submit_graph({"a": []}, {"a": 1})  # error: dict-item
    lv.wait({"a"}, "soon")  # error: arg-type


def use_results(ar: AsyncResult) -> None:
    ar.get("soon")  # error: arg-type
    ar.add_done_callback(print, 1)  # error: call-arg
    ar.wait_interactive(timeout="long")  # error: arg-type
    ar.display_outputs("colour")  # error: arg-type


def decorate(lv: LoadBalancedView) -> None:
    @lv.remote(block=True)
    def area(radius: float) -> float:
        return radius

    area("wide")  # error: arg-type
    area(1.0, 2.0)  # error: call-arg

    @depend(lambda: True)
    def guarded(x: int) -> int:
        return x

    guarded("three")  # error: arg-type
    guarded(3).upper()  # error: attr-defined


register_serializer(int, str.upper, int)  # error: arg-type


async def forget_to_await() -> None:
    cluster = Cluster(n=2)
    client = cluster.connect_client()
    print(client.ids)  # error: attr-defined
    with cluster.start_cluster():  # error: attr-defined
        pass
