"""dask.distributed: one thread in each worker process, the scheduler in the client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from distributed import Client, LocalCluster

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import noop, number_after


class DaskPeer(Peer):
    def start(self) -> None:
        self.cluster = LocalCluster(
            n_workers=WORKER_COUNT, threads_per_worker=1, dashboard_address=None
        )
        self.client = Client(self.cluster)
        self.collect(self.submit(noop, range(WORKER_COUNT)))

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

    def versions(self) -> dict[str, str]:
        return versions_of("distributed")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        return [self.client.submit(function, item, pure=False) for item in items]

    def collect(self, handles: Sequence) -> list:
        return self.client.gather(list(handles))

    def map_single(self, items: Sequence[int]) -> Sequence:
        return self.collect(self.client.map(noop, items, pure=False))

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        futures: list[object] = []
        for node, earlier in enumerate(graph):
            inputs = [futures[each] for each in earlier]
            futures.append(self.client.submit(number_after, node, *inputs, pure=False))
        return self.collect(futures)

    def push(self, array: np.ndarray) -> None:
        self.kept = self.client.scatter(array, broadcast=True)

    def controller_pids(self) -> list[int]:
        return [os.getpid()]

    def controller_note(self) -> str:
        return "with its client"


PEER = DaskPeer
