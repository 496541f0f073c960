"""Ray. Whoever submits a task keeps it, so its controller is also the client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import psutil
import ray

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import make_array, number_after


class Holder:
    """A named engine, in Ray's words an actor."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def noop(self, x: int) -> int:
        return x

    def take(self, array: np.ndarray) -> int:
        self.array = array
        return len(array)

    def fetch(self, byte_count: int) -> np.ndarray:
        if self.array.nbytes != byte_count:
            self.array = make_array(byte_count)
        return self.array


class RayPeer(Peer):
    def start(self) -> None:
        ray.init(
            num_cpus=WORKER_COUNT,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=3 << 30,
        )
        self.remotes: dict = {}
        self.holders: list = []
        self.meet()

    def stop(self) -> None:
        ray.shutdown()

    def versions(self) -> dict[str, str]:
        return versions_of("ray")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        if function not in self.remotes:
            self.remotes[function] = ray.remote(function)
        submit = self.remotes[function].remote
        return [submit(item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return ray.get(list(handles))

    def call_direct(self, x: int) -> object:
        return ray.get(self._named()[0].noop.remote(x))

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        run = ray.remote(number_after)
        results: list = []
        for node, earlier in enumerate(graph):
            results.append(run.remote(node, *[results[each] for each in earlier]))
        return ray.get(results)

    def push(self, array: np.ndarray) -> None:
        reference = ray.put(array)
        ray.get([holder.take.remote(reference) for holder in self._named()])

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        return ray.get([holder.fetch.remote(byte_count) for holder in self._named()])

    def controller_pids(self) -> list[int]:
        own = psutil.Process()
        servers = [
            child.pid
            for child in own.children(recursive=True)
            if child.name() in ("raylet", "gcs_server")
        ]
        return [own.pid, *servers]

    def controller_note(self) -> str:
        return "with the client, which keeps the tasks"

    def _named(self) -> list:
        if not self.holders:
            holder = ray.remote(num_cpus=0)(Holder)  # as well as the balanced workers
            self.holders = [holder.remote() for _ in range(WORKER_COUNT)]
            ray.get([each.noop.remote(0) for each in self.holders])
        return self.holders


PEER = RayPeer
