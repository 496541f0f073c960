"""Does memory stay flat? ``python -m benchmarks.soak``: millions of no-ops, in windows.

No-ops are submitted one by one, so that at most a window of them is outstanding, and each
result is dropped when it has come. Meanwhile the resident memory of every process is looked
at: what lives is bounded by the window, so what grows with the number of tasks that have been
is a leak, or something that should have a limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.__main__ import RESULTS_DIR
from benchmarks.machine import describe_machine
from benchmarks.profile import processes_of
from parallelz import Client, Cluster

TASKS_COUNT = 2_000_000
WINDOW_COUNT = 20_000
WARM_UP_COUNT = 140_000  # then the cache that the database is read through is full
PERIOD_S = 1.0
ENGINE_COUNT = 2
GROWTH_MAX_MB = 8.0
"""By how much a process may grow in the second half, as allocators breathe.

With 2,000,000 tasks that is 8 bytes for each: one word that is kept of each would be seen.
"""
MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEAR = 0.1
"""What is shown for a mark is the least of so much of the tasks before and behind it.

What is above that is in use for a moment: a backlog that the recorder takes in at once, say.
"""


class Sample(NamedTuple):
    """What was resident when so many tasks had ended."""

    elapsed_s: float
    done_count: int
    resident_mb: dict[str, float]  # by process


@dataclass
class Soak:
    """What was seen."""

    tasks_count: int
    window_count: int
    store: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.samples[0].resident_mb)

    @property
    def tasks_per_s(self) -> float:
        first, last = self.samples[0], self.samples[-1]
        return (last.done_count - first.done_count) / (last.elapsed_s - first.elapsed_s)

    def resident_mb(self, name: str, mark: float) -> float:
        """Return the memory of a process about when this part of the tasks had ended."""
        done = mark * self.tasks_count
        near = NEAR * self.tasks_count
        values = [s.resident_mb[name] for s in self.samples if abs(s.done_count - done) <= near]
        if not values:
            closest = min(self.samples, key=lambda sample: abs(sample.done_count - done))
            values = [closest.resident_mb[name]]
        return min(values)

    def growth_mb(self, name: str) -> float:
        """Return what a process has grown by in the second half."""
        return self.resident_mb(name, 1.0) - self.resident_mb(name, 0.5)

    def growing(self) -> list[str]:
        """Return the processes whose memory is not flat."""
        return [name for name in self.names if self.growth_mb(name) > GROWTH_MAX_MB]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the table; return 1 if the memory of a process is not flat."""
    args = build_parser().parse_args(argv)
    begun = datetime.now(UTC)
    soak = run(args.tasks, args.window, store=args.store, period_s=args.period)
    print(render(soak))
    if args.plot:
        plot(soak, args.plot)
        print(args.plot)
    if args.json:
        RESULTS_DIR.mkdir(exist_ok=True)
        path = RESULTS_DIR / f"soak-{begun:%Y-%m-%dT%H-%M-%SZ}.json"
        path.write_text(json.dumps(entry(soak, begun), indent=1) + "\n")
        print(path)
    return 1 if soak.growing() else 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS_COUNT)
    parser.add_argument("--window", type=int, default=WINDOW_COUNT, help="outstanding at most")
    parser.add_argument("--store", default="sqlite", help="sqlite (default), memory, none ...")
    parser.add_argument("--period", type=float, default=PERIOD_S, help="s between samples")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw it")
    parser.add_argument("--json", action="store_true", help="also write results/")
    return parser


def noop(x: object) -> object:
    return x


def run(tasks_count: int, window_count: int, *, store: str, period_s: float) -> Soak:
    """Run the tasks on a cluster of its own, whose database is deleted afterwards."""
    soak = Soak(tasks_count, window_count, store)
    with (
        tempfile.TemporaryDirectory(prefix="soak") as directory,
        Cluster(n=ENGINE_COUNT, profile_dir=directory, store=store) as rc,
    ):
        for _ in ended_in_windows(rc, WARM_UP_COUNT, window_count):
            pass
        if store != "none":
            rc.db_query({"msg_id": ""})  # answered when all before is recorded
        with Watch(rc, soak, period_s) as watch:
            for count in ended_in_windows(rc, tasks_count, window_count):
                watch.done_count = count
    return soak


def ended_in_windows(rc: Client, tasks_count: int, window_count: int) -> Iterator[int]:
    """Submit no-ops; yield how many have ended after each one."""
    apply_async = rc.load_balanced_view().apply_async
    outstanding: deque[object] = deque()
    done_count = 0
    for number in range(tasks_count):
        outstanding.append(apply_async(noop, number))
        if len(outstanding) >= window_count:
            outstanding.popleft().get()  # type: ignore[attr-defined]
            done_count += 1
            yield done_count
    while outstanding:
        outstanding.popleft().get()  # type: ignore[attr-defined]
        done_count += 1
        yield done_count


class Watch:
    """Looks at all processes every `period_s`, at the begin and at the end of the block."""

    def __init__(self, rc: Client, soak: Soak, period_s: float) -> None:
        assert isinstance(rc.cluster, Cluster)
        assert rc.cluster.controller is not None
        named = processes_of(rc.cluster.controller.pid)
        self._processes = {name: psutil.Process(pid) for name, pid in named.items()}
        self._soak = soak
        self._period_s = period_s
        self._begin_s = time.perf_counter()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done_count = 0

    def __enter__(self) -> Watch:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._is_over.wait(self._period_s):
            self._look()

    def _look(self) -> None:
        count = self.done_count
        resident = {n: p.memory_info().rss / 1e6 for n, p in self._processes.items()}
        elapsed_s = time.perf_counter() - self._begin_s
        self._soak.samples.append(Sample(elapsed_s, count, resident))


# -- showing it ------------------------------------------------------------------------------


def render(soak: Soak) -> str:
    """Return a table with a line for each process, and the verdict."""
    shown = ["start", *(f"{mark:.0%}" for mark in MARKS[1:-1]), "end"]
    lines = [
        f"{soak.tasks_count:,} no-ops, at most {soak.window_count:,} outstanding, store"
        f" {soak.store}: {soak.tasks_per_s:,.0f} tasks/s",
        "",
        "least MB      " + "".join(f"{text:>9}" for text in shown) + "   second half",
    ]
    for name in soak.names:
        values = "".join(f"{soak.resident_mb(name, mark):9.1f}" for mark in MARKS)
        lines.append(f"{name:<14}{values}   {soak.growth_mb(name):+11.1f}")
    growing = soak.growing()
    verdict = (
        f"NOT FLAT: {', '.join(growing)} grew by more than {GROWTH_MAX_MB:g} MB"
        if growing
        else f"flat: nothing grew by more than {GROWTH_MAX_MB:g} MB"
    )
    return "\n".join([*lines, "", f"{verdict} in the second half"])


def entry(soak: Soak, begun: datetime) -> Mapping[str, object]:
    """Return all that somebody needs to compare this run with a later one."""
    return {
        "date": begun.isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "tasks": soak.tasks_count,
        "window": soak.window_count,
        "store": soak.store,
        "tasks_per_s": soak.tasks_per_s,
        "resident_mb": {n: [soak.resident_mb(n, mark) for mark in MARKS] for n in soak.names},
        "second_half_mb": {name: soak.growth_mb(name) for name in soak.names},
    }


def plot(soak: Soak, path: Path) -> None:
    """Draw the memory of each process over the number of tasks that had ended."""
    from matplotlib.figure import Figure  # only who draws must have it

    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    million = [sample.done_count / 1e6 for sample in soak.samples]
    last_mb = {name: soak.samples[-1].resident_mb[name] for name in soak.names}
    heights = _apart(last_mb, gap=max(last_mb.values()) / 18)
    for index, name in enumerate(soak.names):
        colour = f"C{index}"
        values = [sample.resident_mb[name] for sample in soak.samples]
        top.plot(million, values, color=colour, linewidth=1.6)
        top.annotate(
            f"{name}  {soak.growth_mb(name):+.1f} MB",
            (million[-1], heights[name]),
            xytext=(8, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
    top.axvline(soak.tasks_count / 2e6, color="0.8", linewidth=1, zorder=0)
    top.set_ylim(0, 1.1 * max(max(s.resident_mb.values()) for s in soak.samples))
    top.set_ylabel("resident memory, MB")
    top.set_title(
        f"{soak.tasks_count:,} no-ops, at most {soak.window_count:,} outstanding, store"
        f" {soak.store}\nbeside each process: its growth in the second half",
        loc="left",
        fontsize=11,
    )
    pairs = list(zip(soak.samples, soak.samples[1:], strict=False))
    rates = [
        (b.done_count - a.done_count) / max(b.elapsed_s - a.elapsed_s, 1e-9) / 1e3
        for a, b in pairs
    ]
    bottom.plot([b.done_count / 1e6 for _, b in pairs], rates, color="0.35", linewidth=1.2)
    bottom.set_ylim(0, 1.15 * max(rates))
    bottom.set_ylabel("1,000 tasks/s")
    bottom.set_xlabel("million tasks that have ended")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlim(0, million[-1])
    figure.savefig(path, dpi=130)


def _apart(values: Mapping[str, float], gap: float) -> dict[str, float]:
    """Return heights for labels near these values, which do not cover each other."""
    heights: dict[str, float] = {}
    lowest = float("-inf")
    for name in sorted(values, key=values.__getitem__):
        lowest = max(values[name], lowest + gap)
        heights[name] = lowest
    return heights


if __name__ == "__main__":
    sys.exit(main())
