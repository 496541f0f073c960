"""Ray on one machine. Workers have names as actors only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import ray

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import noop, number_after


@ray.remote
class Actor:
    def noop(self, x: int) -> int:
        return x


@ray.remote
def take(array: np.ndarray) -> int:
    return len(array)


class RayPeer(Peer):
    def start(self) -> None:
        ray.init(num_cpus=WORKER_COUNT, include_dashboard=False, log_to_driver=False)
        self.remotes: dict[Callable[..., object], object] = {}
        self.actor: object = None
        self.collect(self.submit(noop, range(WORKER_COUNT)))

    def stop(self) -> None:
        ray.shutdown()

    def versions(self) -> dict[str, str]:
        return versions_of("ray")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        remote = self._remote(function)
        return [remote.remote(item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return ray.get(list(handles))

    def call_direct(self, x: int) -> object:
        if self.actor is None:
            self.actor = Actor.options(num_cpus=0).remote()
        return ray.get(self.actor.noop.remote(x))

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        remote = self._remote(number_after)
        results: list[object] = []
        for node, earlier in enumerate(graph):
            results.append(remote.remote(node, *[results[each] for each in earlier]))
        return self.collect(results)

    def push(self, array: np.ndarray) -> None:
        reference = ray.put(array)
        ray.get([take.remote(reference) for _ in range(WORKER_COUNT)])

    def _remote(self, function: Callable[..., object]):
        if function not in self.remotes:
            self.remotes[function] = ray.remote(function)
        return self.remotes[function]


PEER = RayPeer
