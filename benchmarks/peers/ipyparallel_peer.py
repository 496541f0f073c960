"""ipyparallel: its hub and its schedulers are several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import ipyparallel
import numpy as np

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of, with_children
from benchmarks.peers.workload import make_array, noop, number_after


class IpyparallelPeer(Peer):
    def start(self) -> None:
        self.cluster = ipyparallel.Cluster(n=WORKER_COUNT, log_level=40)
        self.client = self.cluster.start_and_connect_sync()
        self.balanced = self.client.load_balanced_view()
        self.direct = self.client[:]
        self.first = self.client[0]
        self.is_made = False
        self.direct.apply_sync(noop, 0)

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()

    def versions(self) -> dict[str, str]:
        return versions_of("ipyparallel", "pyzmq", "tornado")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        apply_async = self.balanced.apply_async
        return [apply_async(function, item) for item in items]

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
        view = self.balanced
        results = []
        for node, earlier in enumerate(graph):
            with view.temp_flags(after=[results[each] for each in earlier]):
                results.append(view.apply_async(number_after, node))
        return self.collect(results)

    def push(self, array: np.ndarray) -> None:
        self.direct.push({"array": array}, block=True)

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        if not self.is_made:
            self.direct.push({"make_array": make_array}, block=True)
            self.direct.execute(f"made = make_array({byte_count})", block=True)
            self.is_made = True
        return self.direct.pull("made", block=True)

    def controller_pids(self) -> list[int]:
        return with_children([self.cluster.controller.pid])


PEER = IpyparallelPeer
