"""The clock: one function per row, the same for all peers.

Each returns one figure. A row measured by rate first tries a small count, then as many tasks
as take about a second, so that neither a fast peer is lost in noise nor a slow one in time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil

from benchmarks.peers import workload
from benchmarks.peers.peer import WORKER_COUNT, Peer, Unsupported

CHUNK_LENGTH = 1_000
DIRECT_MAP_LENGTH = 100_000
MILLION = 1_000_000


class Effort(NamedTuple):
    """How much is measured."""

    run_s: float  # about so long per row
    array_bytes: int
    array_count: int
    dag_length: int
    waiting_count: int
    ended_count: int
    ended_s: float  # at most so long for as many


FULL = Effort(1.0, 100 << 20, 3, 2_000, 20_000, MILLION, 40.0)
QUICK = Effort(0.2, 16 << 20, 2, 300, 2_000, 50_000, 3.0)


class Figure(NamedTuple):
    """What came out, and what a reader should know of it."""

    value: float
    note: str = ""


def start(peer: Peer, effort: Effort) -> Figure:
    begin_s = time.perf_counter()
    peer.start()
    return Figure(time.perf_counter() - begin_s)


def round_trip(peer: Peer, effort: Effort) -> Figure:
    return Figure(_median_call_s(peer.call, effort) * 1e6)


def direct_round_trip(peer: Peer, effort: Effort) -> Figure:
    return Figure(_median_call_s(peer.call_direct, effort) * 1e6)


def submit(peer: Peer, effort: Effort) -> Figure:
    def run(count: int) -> None:
        _check(peer.collect(peer.submit(workload.noop, range(count))), count)

    return Figure(_rate(run, effort, count_min=200, count_max=30_000))


def map_single(peer: Peer, effort: Effort) -> Figure:
    def run(count: int) -> None:
        _check(peer.map_single(range(count)), count)

    return Figure(_rate(run, effort, count_min=200, count_max=100_000))


def map_chunked(peer: Peer, effort: Effort) -> Figure:
    def run(count: int) -> None:
        _check(peer.map_chunked(range(count), CHUNK_LENGTH), count)

    return Figure(_rate(run, effort, count_min=20 * CHUNK_LENGTH, count_max=3 * MILLION))


def direct_map(peer: Peer, effort: Effort) -> Figure:
    items = range(DIRECT_MAP_LENGTH)
    _check(peer.direct_map(items), len(items))
    times_s = _repeated(lambda: peer.direct_map(items), effort.run_s)
    return Figure(len(items) / statistics.median(times_s))


def dag(peer: Peer, effort: Effort) -> Figure:
    graph = workload.random_graph(effort.dag_length)
    peer.dag(graph[:100])
    begin_s = time.perf_counter()
    results = peer.dag(graph)
    elapsed_s = time.perf_counter() - begin_s
    _check(results, len(graph))
    return Figure(len(graph) / elapsed_s)


def push(peer: Peer, effort: Effort) -> Figure:
    peer.push(workload.make_array(effort.array_bytes))
    times_s = []
    for _ in range(effort.array_count):
        array = workload.make_array(effort.array_bytes)  # a new one: nobody knows it yet
        begin_s = time.perf_counter()
        peer.push(array)
        times_s.append(time.perf_counter() - begin_s)
    return Figure(_megabytes(effort) / statistics.median(times_s))


def pull(peer: Peer, effort: Effort) -> Figure:
    for _ in range(WORKER_COUNT):  # unnamed workers: both have likely made theirs then
        peer.pull(effort.array_bytes)
    times_s = []
    for _ in range(effort.array_count):
        begin_s = time.perf_counter()
        arrays = peer.pull(effort.array_bytes)
        times_s.append(time.perf_counter() - begin_s)
        steps = [round(float(array[1] - array[0]), 6) for array in arrays]
        if steps != [1.0] * WORKER_COUNT:
            raise ValueError("these are not the arrays that were asked for")
        del arrays  # where they share memory, it is free again
    return Figure(_megabytes(effort) / statistics.median(times_s))


def submit_only(peer: Peer, effort: Effort) -> Figure:
    def run(count: int) -> float:
        begin_s = time.perf_counter()
        handles = peer.submit(workload.noop, range(count))
        elapsed_s = time.perf_counter() - begin_s
        _check(peer.collect(handles), count)
        return elapsed_s

    pilot, count_max = 200, 20_000
    run(pilot)
    begin_s = time.perf_counter()
    run(pilot)
    whole_s = time.perf_counter() - begin_s  # they all have to be run, too
    count = int(max(pilot, min(count_max, pilot * effort.run_s / whole_s)))
    return Figure(count / run(count))


def memory_waiting(peer: Peer, effort: Effort) -> Figure:
    pids = peer.controller_pids()
    with tempfile.NamedTemporaryFile(prefix="gate") as gate:
        peer.collect(peer.submit(workload.noop, range(WORKER_COUNT)))
        holders = peer.submit(workload.hold, [gate.name] * WORKER_COUNT)
        before = _settled_bytes(peer, pids)
        handles = peer.submit(workload.noop, range(effort.waiting_count))
        after = _settled_bytes(peer, pids)
        del holders, handles  # nobody waits for them: the cluster ends now
    per_task = (after - before) / effort.waiting_count
    return Figure(per_task / 1e3, peer.controller_note())


def memory_ended(peer: Peer, effort: Effort) -> Figure:
    pids = peer.controller_pids()

    def run(count: int) -> float:
        begin_s = time.perf_counter()
        try:
            peer.map_single(range(count))
        except Unsupported:
            peer.collect(peer.submit(workload.noop, range(count)))
        return time.perf_counter() - begin_s

    pilot = 500
    run(pilot)
    batch = int(max(pilot, min(50_000, pilot * effort.run_s / run(pilot))))
    run(batch)  # what is kept of the latest tasks only is full then
    before = _settled_bytes(peer, pids)
    done, begin_s = 0, time.perf_counter()
    while done < effort.ended_count and time.perf_counter() - begin_s < effort.ended_s:
        run(batch)
        done += batch
    growth = _settled_bytes(peer, pids) - before
    notes = [f"from {done:,}"] if done < MILLION else []
    notes += [peer.controller_note()] if peer.controller_note() else []
    return Figure(growth / done * MILLION / 1e6, "; ".join(notes))


MEASURES: dict[str, Callable[[Peer, Effort], Figure]] = {
    measure.__name__: measure
    for measure in (
        start,
        round_trip,
        direct_round_trip,
        submit,
        map_single,
        map_chunked,
        direct_map,
        dag,
        push,
        pull,
        submit_only,
        memory_waiting,
        memory_ended,
    )
}


def _repeated(run: Callable[[], object], limit_s: float, count_max: int = 1_000) -> list[float]:
    """Return how long each run took, of as many as fit in the time; at least one."""
    times_s: list[float] = []
    end_s = time.perf_counter() + limit_s
    while not times_s or (time.perf_counter() < end_s and len(times_s) < count_max):
        begin_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - begin_s)
    return times_s


def _median_call_s(call: Callable[[int], object], effort: Effort) -> float:
    _repeated(lambda: call(1), effort.run_s / 4)
    return statistics.median(_repeated(lambda: call(1), effort.run_s))


def _rate(
    run: Callable[[int], object], effort: Effort, *, count_min: int, count_max: int
) -> float:
    run(count_min)
    begin_s = time.perf_counter()
    run(count_min)
    pilot_s = time.perf_counter() - begin_s
    count = int(max(count_min, min(count_max, count_min * effort.run_s / pilot_s)))
    begin_s = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - begin_s)


def _check(results: Sequence, count: int) -> None:
    if len(results) != count or results[0] != 0 or results[-1] != count - 1:
        raise ValueError(f"the results of {count} tasks are not what they should be")


def _megabytes(effort: Effort) -> float:
    return WORKER_COUNT * effort.array_bytes / 1e6


def _settled_bytes(peer: Peer, pids: Sequence[int]) -> int:
    """Return the resident memory once it has been the same for a while."""
    processes = [psutil.Process(pid) for pid in pids]
    latest, same_count = -1, 0
    end_s = time.perf_counter() + 30
    while same_count < 5 and time.perf_counter() < end_s:
        time.sleep(0.1)
        peer.spin()
        current = sum(process.memory_info().rss for process in processes)
        same_count = same_count + 1 if current == latest else 0
        latest = current
    return latest
