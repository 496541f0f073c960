"""ipyparallel, the nearest relative, as `Cluster` starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import ipyparallel
import numpy as np
import psutil

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of, with_children
from benchmarks.peers.workload import fetch, noop, number_after


class IpyparallelPeer(Peer):
    def start(self) -> None:
        self.cluster = ipyparallel.Cluster(n=WORKER_COUNT, log_level=40)
        self.client = self.cluster.start_and_connect_sync()
        self.balanced = self.client.load_balanced_view()
        self.direct = self.client[:]
        self.first = self.client[0]
        self.direct.apply_sync(noop, 0)

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()

    def versions(self) -> dict[str, str]:
        return versions_of("ipyparallel")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        return [self.balanced.apply_async(function, item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return [handle.get() for handle in handles]

    def call_direct(self, x: int) -> object:
        return self.first.apply_sync(noop, x)

    def map_single(self, items: Sequence[int]) -> Sequence:
        return self.balanced.map_sync(noop, items)

    def map_chunked(self, items: Sequence[int], chunk_length: int) -> Sequence:
        return self.balanced.map_sync(noop, items, chunksize=chunk_length)

    def direct_map(self, items: Sequence[int]) -> Sequence:
        return self.direct.map_sync(noop, items)

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        results: list[object] = []
        for node, earlier in enumerate(graph):
            with self.balanced.temp_flags(after=[results[each] for each in earlier]):
                results.append(self.balanced.apply_async(number_after, node))
        return self.collect(results)

    def push(self, array: np.ndarray) -> None:
        self.direct.push({"array": array}, block=True)

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        return self.direct.apply_sync(fetch, byte_count)

    def controller_pids(self) -> list[int]:
        return with_children(
            child.pid
            for child in psutil.Process().children(recursive=True)
            if "ipyparallel.controller" in " ".join(child.cmdline())
        )


PEER = IpyparallelPeer
