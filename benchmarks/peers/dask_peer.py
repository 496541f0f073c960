"""dask.distributed by its LocalCluster. The scheduler is a thread of the client's process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import psutil
from distributed import Client, Future, LocalCluster, wait

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import make_array, noop, number_after


class DaskPeer(Peer):
    def start(self) -> None:
        self.cluster = LocalCluster(
            n_workers=WORKER_COUNT, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self.client = Client(self.cluster)
        self.client.wait_for_workers(WORKER_COUNT)
        self.workers = list(self.client.scheduler_info()["workers"])
        self.made: list[Future] = []
        self.client.run(noop, 0)

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()

    def versions(self) -> dict[str, str]:
        return versions_of("dask", "distributed")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        submit = self.client.submit
        return [submit(function, item, pure=False) for item in items]

    def collect(self, handles: Sequence) -> list:
        return self.client.gather(handles)

    def call_direct(self, x: int) -> object:
        return self.client.submit(noop, x, pure=False, workers=self.workers[:1]).result()

    def map_single(self, items: Sequence[int]) -> Sequence:
        return self.client.gather(self.client.map(noop, items, pure=False))

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        results: list[Future] = []
        for node, earlier in enumerate(graph):
            inputs = [results[each] for each in earlier]
            results.append(self.client.submit(number_after, node, *inputs, pure=False))
        return self.client.gather(results)

    def push(self, array: np.ndarray) -> None:
        wait(self.client.scatter(array, broadcast=True, hash=False))

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        if not self.made:
            self.made = [
                self.client.submit(make_array, byte_count, pure=False, workers=[worker])
                for worker in self.workers
            ]
            wait(self.made)
        return self.client.gather(self.made)

    def controller_pids(self) -> list[int]:
        return [psutil.Process().pid]

    def controller_note(self) -> str:
        return "with the client, in one process"


PEER = DaskPeer
