"""`concurrent.futures.ProcessPoolExecutor`: no controller, no names, one host."""

from __future__ import annotations

from concurrent.futures import Executor, ProcessPoolExecutor

from benchmarks.peers.peer import WORKER_COUNT, ExecutorPeer


class PoolPeer(ExecutorPeer):
    def make_executor(self) -> Executor:
        return ProcessPoolExecutor(WORKER_COUNT)


PEER = PoolPeer
