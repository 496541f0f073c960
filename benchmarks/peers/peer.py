"""What a peer is: how to start it, and how to ask it for each kind of work.

The methods do one thing each and measure nothing: the clock is in `measure`, the same for
all. What a system has no notion of stays as it is here and raises `Unsupported`.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

import numpy as np
import psutil

from benchmarks.peers.workload import fetch, meet, noop

WORKER_COUNT = 2


class Unsupported(Exception):
    """The peer has no such thing; says why in a few words."""


class Peer:
    """A system with two workers on this machine."""

    def start(self) -> None:
        """Start it; return once both workers have answered."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all that was started."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Return the versions of what is measured, by package."""
        return {}

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        """Submit one balanced task per item, each by a call of its own; do not wait."""
        raise NotImplementedError

    def collect(self, handles: Sequence) -> list:
        """Wait for what `submit` has returned; return the results in order."""
        raise NotImplementedError

    def call(self, x: int) -> object:
        """Run one balanced no-op and wait for it."""
        return self.collect(self.submit(noop, [x]))[0]

    def call_direct(self, x: int) -> object:
        """Run a no-op on the first worker and wait for it."""
        raise Unsupported("workers have no names")

    def map_single(self, items: Sequence[int]) -> Sequence:
        """Map the no-op, one task per item, by one call; return the results."""
        raise Unsupported("no map of single items")

    def map_chunked(self, items: Sequence[int], chunk_length: int) -> Sequence:
        """Map the no-op, many items per task."""
        raise Unsupported("no chunks")

    def direct_map(self, items: Sequence[int]) -> Sequence:
        """Map the no-op, one part per named worker."""
        raise Unsupported("no such map")

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        """Run a task per node after those of the nodes named in it; return all results."""
        raise Unsupported("no dependencies")

    def push(self, array: np.ndarray) -> None:
        """Have the array arrive at both workers."""
        raise Unsupported("workers have no names")

    def pull(self, byte_count: int) -> Sequence[np.ndarray]:
        """Return an array from each of two workers, made there on the first call."""
        return self.collect(self.submit(fetch, [byte_count] * WORKER_COUNT))

    def meet(self) -> None:
        """Wait until both workers run a task at the same time: neither has done both."""
        with tempfile.TemporaryDirectory(prefix="meet") as directory:
            self.collect(self.submit(meet, [(directory, WORKER_COUNT)] * WORKER_COUNT))

    def spin(self) -> None:
        """Do what the system does only while somebody waits for results."""

    def controller_pids(self) -> list[int]:
        """Return the processes that keep the tasks."""
        raise Unsupported("no controller")

    def controller_note(self) -> str:
        """Return what is special about those processes."""
        return ""


class ExecutorPeer(Peer):
    """Anything that is a `concurrent.futures.Executor`."""

    executor: Executor

    def make_executor(self) -> Executor:
        raise NotImplementedError

    def start(self) -> None:
        self.executor = self.make_executor()
        self.meet()

    def stop(self) -> None:
        self.executor.shutdown()

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        submit = self.executor.submit
        return [submit(function, item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return [handle.result() for handle in handles]

    def call(self, x: int) -> object:
        return self.executor.submit(noop, x).result()

    def map_single(self, items: Sequence[int]) -> Sequence:
        return list(self.executor.map(noop, items, chunksize=1))

    def map_chunked(self, items: Sequence[int], chunk_length: int) -> Sequence:
        return list(self.executor.map(noop, items, chunksize=chunk_length))


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    return {name: importlib.metadata.version(name) for name in packages}


def with_children(pids: Iterable[int]) -> list[int]:
    """Return these processes and all that descend from them."""
    parents = [psutil.Process(pid) for pid in pids]
    return [
        process.pid
        for parent in parents
        for process in (parent, *parent.children(recursive=True))
    ]
