"""What scheduling costs and how well it is done: ``python -m benchmarks.scheduling``.

The parts `core` and `million` play a cluster around the core alone, without sockets and
processes: they are about the decisions. The others are about a real cluster on this machine.
"""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

import psutil

from benchmarks.parts import Figures, measure_parts
from parallelz import Client, Cluster
from parallelz.core.events import EngineArrived, PlaceTask
from parallelz.core.placement import SCHEMES
from parallelz.core.scheduler import Scheduler
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo, PeerInfo, SubmitMap, TaskFinished

ENGINE_COUNTS = (1, 10, 100, 1_000, 10_000)
CORE_TASK_COUNT = 100_000
MAP_LENGTH = 500
MIXED_COUNT = 400
MIXED_MAX_S = 0.4
MIXED_SEED = 7
GRAPH_SIZE = 100_000
GRAPH_EARLIER_MAX = 3
WAITING_COUNT = 1_000_000
FEW_COUNT = 10
FAIR_COUNT = 200_000


def noop(x: object) -> object:
    return x


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts that are named, or all; return the exit status."""
    return measure_parts("scheduling", PARTS, argv)


# -- the core alone --------------------------------------------------------------------------


class PlayedCluster:
    """Engines that end each task as soon as they are asked to, in the order of placement."""

    def __init__(self, engine_count: int) -> None:
        self.core = Scheduler()
        self.now_s = 0.0
        self.client = SessionId("client")
        self.sessions = [SessionId(f"engine-{number}") for number in range(engine_count)]
        self.placed: deque[PlaceTask] = deque()
        self.event_count = 0
        for number, session in enumerate(self.sessions):
            info = EngineInfo(EngineId(number), session, PeerInfo("host", "host", number))
            self.core.handle(EngineArrived(info), session, self.now_s)

    def submit(self, first: int, count: int) -> None:
        event = SubmitMap(first, Digest(b"noop"), 0.0, [b""] * count)
        self._take(self.core.handle(event, self.client, self.now_s))
        self.event_count += count

    def finish_one(self) -> None:
        action = self.placed.popleft()
        self.now_s += 1e-6
        event = TaskFinished(TaskId(action.task_id), "ok", 0.0, 1e-5)
        session = self.sessions[action.engine_id]
        self._take(self.core.handle(event, session, self.now_s))
        self.event_count += 1

    def _take(self, actions: Sequence[object]) -> None:
        self.placed.extend(action for action in actions if type(action) is PlaceTask)


def core() -> Figures:
    """events per second (a submission or an end), by number of engines"""
    figures: Figures = {}
    for engine_count in ENGINE_COUNTS:
        cluster = PlayedCluster(engine_count)
        begin_s = time.perf_counter()
        for first in range(0, CORE_TASK_COUNT, MAP_LENGTH):
            cluster.submit(first, MAP_LENGTH)
        while cluster.placed:
            cluster.finish_one()
        took_s = time.perf_counter() - begin_s
        assert not cluster.core.tasks
        figures[f"events/s with {engine_count:,} engines"] = cluster.event_count / took_s
    return figures


def million() -> Figures:
    """10,000 engines and a million tasks: events per second in each tenth of them"""
    cluster = PlayedCluster(10_000)
    memory_before = psutil.Process().memory_info().rss
    begin_s = time.perf_counter()
    figures: Figures = {}
    for tenth in range(10):
        tenth_begin_s, count_before = time.perf_counter(), cluster.event_count
        for first in range(tenth * 100_000, (tenth + 1) * 100_000, MAP_LENGTH):
            cluster.submit(first, MAP_LENGTH)
            for _ in range(MAP_LENGTH):
                cluster.finish_one()
        took_s = time.perf_counter() - tenth_begin_s
        figures[f"events/s, tenth {tenth + 1}"] = (cluster.event_count - count_before) / took_s
    while cluster.placed:
        cluster.finish_one()
    figures["seconds in all"] = time.perf_counter() - begin_s
    grown = psutil.Process().memory_info().rss - memory_before
    figures["MB more after all have ended"] = grown / 1e6
    assert not cluster.core.tasks
    return figures


# -- a real cluster --------------------------------------------------------------------------


def best_makespan_s(durations_s: Sequence[float], engine_count: int) -> float:
    """Return a time below which it cannot be done, by any schedule."""
    return max(sum(durations_s) / engine_count, max(durations_s))


def makespan() -> Figures:
    """400 sleeping tasks of 0 to 0.4 s on 4 engines: time over the best possible"""
    chance = random.Random(MIXED_SEED)
    durations_s = [chance.uniform(0, MIXED_MAX_S) for _ in range(MIXED_COUNT)]
    best_s = best_makespan_s(durations_s, 4)
    figures: Figures = {"best possible, s": best_s}
    for scheme in SCHEMES:
        with Cluster(n=4, scheme=scheme, cluster_id="makespan") as rc:
            lv = rc.load_balanced_view()
            lv.map_sync(noop, range(1000))
            begin_s = time.perf_counter()
            lv.map_sync(time.sleep, durations_s)
            took_s = time.perf_counter() - begin_s
            figures[f"{scheme}: % over the best possible"] = 100 * (took_s / best_s - 1)
    with Cluster(n=4, cluster_id="makespan") as rc:
        lv = rc.load_balanced_view()
        lv.map_sync(time.sleep, [0.0] * 1000)  # now they are known as short, which is wrong
        begin_s = time.perf_counter()
        lv.map_sync(time.sleep, durations_s)
        took_s = time.perf_counter() - begin_s
        figures["leastload, misled: % over the best possible"] = 100 * (took_s / best_s - 1)
    return figures


def graph() -> Figures:
    """a graph of 100,000 nodes with up to 3 predecessors each, in one call"""
    chance = random.Random(1)
    nodes = {
        node: sorted(chance.sample(range(max(0, node - 1000), node), min(node, earlier)))
        for node in range(GRAPH_SIZE)
        for earlier in [chance.randrange(GRAPH_EARLIER_MAX + 1)]
    }
    jobs = dict.fromkeys(nodes, _job)
    with Cluster(n=2, cluster_id="graph") as rc:
        lv = rc.load_balanced_view()
        lv.map_sync(noop, range(1000))
        begin_s = time.perf_counter()
        results = lv.submit_graph(nodes, jobs)
        submitted_s = time.perf_counter()
        rc.wait()
        took_s = time.perf_counter() - begin_s
        assert all(result.successful() for result in results.values())
    return {
        "seconds until all is submitted": submitted_s - begin_s,
        "seconds until all has ended": took_s,
        "tasks/s": GRAPH_SIZE / took_s,
    }


def _job() -> None:
    return None


def waiting() -> Figures:
    """1,000,000 no-ops that wait, then end: memory of the controller"""
    with Cluster(n=2, cluster_id="waiting") as rc:
        lv = rc.load_balanced_view()
        lv.map_sync(noop, range(10_000))
        controller = _controller(rc)
        before = controller.memory_info().rss
        blockers = rc[:].apply_async(time.sleep, 3600)
        results = lv.map_async(noop, range(WAITING_COUNT))
        _wait_until(lambda: _waiting_count(rc) >= WAITING_COUNT)
        held = controller.memory_info().rss - before
        begin_s = time.perf_counter()
        blockers.cancel()
        results.get()
        took_s = time.perf_counter() - begin_s
        rc.db_query({"status": "pending"}, ["msg_id"])  # answered when all is recorded
        time.sleep(12)  # the controller gives memory back 1 s and 10 s after a wave
        after = controller.memory_info().rss - before
    return {
        "kB for each that waits": held / WAITING_COUNT / 1e3,
        "tasks/s when they are let go": WAITING_COUNT / took_s,
        "MB more after all have ended": after / 1e6,
    }


def fairness() -> Figures:
    """ten tasks of a client behind 200,000 of another: seconds until the ten have ended"""
    with Cluster(n=2, cluster_id="fairness") as rc:
        lv = rc.load_balanced_view()
        lv.map_sync(noop, range(1000))
        begin_s = time.perf_counter()
        many = lv.map_async(noop, range(FAIR_COUNT))
        with Client(cluster_id="fairness") as other:
            _wait_until(lambda: _waiting_count(rc) > FAIR_COUNT // 10)
            few_begin_s = time.perf_counter()
            other.load_balanced_view().map_sync(noop, range(FEW_COUNT))
            few_s = time.perf_counter() - few_begin_s
        many.get()
        many_s = time.perf_counter() - begin_s
    return {"the ten, s": few_s, "the 200,000, s": many_s}


def _controller(rc: Client) -> psutil.Process:
    assert isinstance(rc.cluster, Cluster)
    assert rc.cluster.controller is not None
    return psutil.Process(rc.cluster.controller.pid)


def _waiting_count(rc: Client) -> int:
    count = rc.queue_status()["unassigned"]
    assert isinstance(count, int)
    return count


def _wait_until(is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < give_up_s, "it took too long"
        time.sleep(0.02)


PARTS: dict[str, Callable[[], Figures]] = {
    "core": core,
    "million": million,
    "makespan": makespan,
    "graph": graph,
    "waiting": waiting,
    "fairness": fairness,
}


if __name__ == "__main__":
    sys.exit(main())
