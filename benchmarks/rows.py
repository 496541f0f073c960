"""What is measured: the rows of the table, and what parallelz must reach in each.

Only the standard library is imported here, so that everything can read it.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    key
        Names it on the command line, in the ledger and in `benchmarks.peers.measure`.
    is_lower_better
        Of times and bytes; rates are better when higher.
    is_apart
        Needs a cluster that has done nothing before, and is slow: measured once per run.
    """

    key: str
    title: str
    unit: str
    must_reach: float
    is_lower_better: bool = False
    is_apart: bool = False

    def gain(self, value: float, reference: float) -> float:
        """Return how many times better than `reference` a value is; below 1 it is worse.

        A value of 0 or less, as memory that did not grow, is infinitely better where lower is.
        """
        if not self.is_lower_better:
            return value / reference
        if value <= 0:
            return float("inf")
        return max(reference, 0.0) / value


ROWS = (
    Row("start", "start 2 engines", "s", 0.35, is_lower_better=True),
    Row("round_trip", "round trip of a no-op, balanced", "µs", 400, is_lower_better=True),
    Row("direct_round_trip", "round trip, one named engine", "µs", 400, is_lower_better=True),
    Row("submit", "separately submitted no-ops", "tasks/s", 30_000),
    Row("map_single", "map, one item per task", "tasks/s", 60_000),
    Row("map_chunked", "map, 1,000 items per task", "items/s", 3_000_000),
    Row("direct_map", "direct map of 100,000", "items/s", 5_000_000),
    Row("dag", "DAG, 2,000 tasks, up to 3 dependencies", "tasks/s", 15_000),
    Row("push", "push one array to 2 engines", "MB/s", 4_000),
    Row("pull", "pull an array from each of 2 engines", "MB/s", 2_000),
    Row("submit_only", "submit only", "tasks/s", 100_000),
    Row(
        "memory_waiting",
        "controller memory per waiting task",
        "kB",
        1.5,
        is_lower_better=True,
        is_apart=True,
    ),
    Row(
        "memory_ended",
        "controller growth by a million ended tasks",
        "MB",
        10,
        is_lower_better=True,
        is_apart=True,
    ),
)
ROW_BY_KEY = {row.key: row for row in ROWS}
