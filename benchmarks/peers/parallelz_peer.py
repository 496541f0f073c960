"""parallelz itself, with the store that a cluster has by default."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import psutil

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import fetch, noop, number_after
from parallelz import Cluster, submit_graph


class ParallelzPeer(Peer):
    def start(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="parallelz-benchmark-")
        store = os.environ.get("BENCHMARK_STORE", "sqlite")
        self.cluster = Cluster(n=WORKER_COUNT, profile_dir=self.directory.name, store=store)
        self.client = self.cluster.start_and_connect_sync()
        self.balanced = self.client.load_balanced_view()
        self.direct = self.client[:]
        self.first = self.client[0]
        self.direct.apply_sync(noop, 0)

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()
        self.directory.cleanup()

    def versions(self) -> dict[str, str]:
        return versions_of("parallelz", "pyzmq")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        submit = self.balanced.apply_async
        return [submit(function, item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return [handle.get() for handle in handles]

    def call(self, x: int) -> object:
        return self.balanced.apply_sync(noop, x)

    def call_direct(self, x: int) -> object:
        return self.first.apply_sync(noop, x)

    def map_single(self, items: Sequence[int]) -> Sequence:
        return self.balanced.map_sync(noop, items)

    def map_chunked(self, items: Sequence[int], chunk_length: int) -> Sequence:
        return self.balanced.map_sync(noop, items, chunksize=chunk_length)

    def direct_map(self, items: Sequence[int]) -> Sequence:
        return self.direct.map_sync(noop, items)

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        def job(node: int) -> Callable[[], int]:
            return lambda: number_after(node)

        earlier = dict(enumerate(graph))
        results = submit_graph(self.balanced, earlier, {node: job(node) for node in earlier})
        return [results[node].get() for node in earlier]

    def push(self, array: np.ndarray) -> None:
        self.direct.push({"array": array}, block=True)

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        return self.direct.apply_sync(fetch, byte_count)

    def spin(self) -> None:
        self.client.spin()

    def controller_pids(self) -> list[int]:
        return [
            child.pid
            for child in psutil.Process().children(recursive=True)
            if "ipcontrollerz" in " ".join(child.cmdline())
        ]


PEER = ParallelzPeer
