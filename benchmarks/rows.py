"""What is measured, in which unit, and what parallelz must reach."""

from __future__ import annotations

from typing import NamedTuple

PEERS = ("parallelz", "pool", "loky", "mpi4py", "ray", "parsl", "dask", "ipyparallel")


class Row(NamedTuple):
    """One line of the table. `key` is the name of the function in `peers.measure`."""

    key: str
    title: str
    unit: str
    must: float
    more_is_better: bool

    def ratio(self, value: float, other: float) -> float:
        """Return how many times better `value` is than `other`."""
        if not value or not other:
            return 0.0
        return value / other if self.more_is_better else other / value


ROWS = (
    Row("start", "start 2 engines", "s", 0.35, more_is_better=False),
    Row("round_trip", "round trip of a no-op, balanced", "µs", 400, more_is_better=False),
    Row("direct_round_trip", "round trip, one named engine", "µs", 400, more_is_better=False),
    Row("submit", "separately submitted no-ops", "tasks/s", 30_000, more_is_better=True),
    Row("map_single", "map, one item per task", "tasks/s", 60_000, more_is_better=True),
    Row("map_chunked", "map, 1,000 items per task", "items/s", 3e6, more_is_better=True),
    Row("direct_map", "DirectView map of 100,000", "items/s", 5e6, more_is_better=True),
    Row("dag", "DAG, up to 3 dependencies", "tasks/s", 15_000, more_is_better=True),
    Row("push", "push an array to 2 engines", "MB/s", 4_000, more_is_better=True),
    Row("pull", "pull it from 2 engines", "MB/s", 2_000, more_is_better=True),
    Row("submit_only", "submit only", "tasks/s", 100_000, more_is_better=True),
    Row("memory_waiting", "memory per waiting task", "kB", 1.5, more_is_better=False),
    Row("memory_ended", "memory after a million ended", "MB more", 50, more_is_better=False),
)
