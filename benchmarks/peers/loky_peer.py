"""loky's reusable executor, which joblib uses."""

from __future__ import annotations

from concurrent.futures import Executor

from loky import get_reusable_executor

from benchmarks.peers.peer import WORKER_COUNT, ExecutorPeer, versions_of


class LokyPeer(ExecutorPeer):
    def make_executor(self) -> Executor:
        return get_reusable_executor(WORKER_COUNT)

    def versions(self) -> dict[str, str]:
        return versions_of("loky")


PEER = LokyPeer
