"""Parsl's high-throughput executor. Its kernel in the client keeps the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import parsl
import psutil
from parsl.app.python import PythonApp
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.peers.peer import WORKER_COUNT, Peer, versions_of
from benchmarks.peers.workload import number_after


class ParslPeer(Peer):
    def start(self) -> None:
        executor = HighThroughputExecutor(
            label="htex",
            address="127.0.0.1",
            max_workers_per_node=WORKER_COUNT,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        config = Config(executors=[executor], usage_tracking=0, strategy="none")
        self.kernel = parsl.load(config)
        self.apps: dict[Callable[..., object], PythonApp] = {}
        self.meet()

    def stop(self) -> None:
        self.kernel.cleanup()
        parsl.clear()

    def versions(self) -> dict[str, str]:
        return versions_of("parsl")

    def submit(self, function: Callable[..., object], items: Iterable[object]) -> Sequence:
        app = self._app(function)
        return [app(item) for item in items]

    def collect(self, handles: Sequence) -> list:
        return [handle.result() for handle in handles]

    def dag(self, graph: Sequence[tuple[int, ...]]) -> list:
        app = self._app(number_after)
        results = []
        for node, earlier in enumerate(graph):
            results.append(app(node, *[results[each] for each in earlier]))
        return self.collect(results)

    def controller_pids(self) -> list[int]:
        own = psutil.Process()
        interchange = [
            child.pid
            for child in own.children(recursive=True)
            if "interchange" in " ".join(child.cmdline())
        ]
        return [own.pid, *interchange]

    def controller_note(self) -> str:
        return "with the client, which keeps the tasks"

    def _app(self, function: Callable[..., object]) -> PythonApp:
        if function not in self.apps:
            self.apps[function] = parsl.python_app(function)
        return self.apps[function]


PEER = ParslPeer
