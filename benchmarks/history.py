"""What does it cost that everything is remembered? ``python -m benchmarks.history``

A cluster for each kind of store stands ready; they take turns at submitting no-ops one by one,
so that what slows the machine for a while slows all of them. Each turn ends when all results
are there; how much later all was recorded is shown beside, and not counted, but waited for
before the next turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import psutil

from benchmarks.__main__ import RESULTS_DIR
from benchmarks.machine import describe_machine
from parallelz import Client, Cluster

TASKS_COUNT = 30_000
ROUNDS = 7
ENGINE_COUNT = 2
STORES = ("none", "memory", "sqlite")
MUST_REACH = 0.8  # of the throughput without a store
PARTS = ("client", "controller", "recorder", "engines")


class Turn(NamedTuple):
    """One turn of one cluster."""

    tasks_per_s: float
    recorded_s: float  # from the last result until all was recorded
    cpu_us: dict[str, float]  # per task, by part of the cluster; with what came after


class Measured(NamedTuple):
    """A cluster that takes turns."""

    store: str
    client: Client
    processes: dict[str, psutil.Process]
    turns: list[Turn]

    @property
    def tasks_per_s(self) -> float:
        return statistics.median(turn.tasks_per_s for turn in self.turns)

    @property
    def best(self) -> float:
        return max(turn.tasks_per_s for turn in self.turns)

    @property
    def recorded_s(self) -> float:
        return statistics.median(turn.recorded_s for turn in self.turns)

    def cpu_us(self, part: str) -> float:
        return statistics.median(turn.cpu_us[part] for turn in self.turns)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table; return 1 if SQLite costs too much."""
    args = build_parser().parse_args(argv)
    begun = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        measured = [stack.enter_context(running(store)) for store in args.stores]
        for number in range(args.rounds + 1):
            for each in measured if number % 2 else reversed(measured):
                turn = take_turn(each, args.tasks)
                if number:  # the first round is for warming up
                    each.turns.append(turn)
    print(render(measured, args.tasks))
    if args.json:
        RESULTS_DIR.mkdir(exist_ok=True)
        path = RESULTS_DIR / f"history-{begun:%Y-%m-%dT%H-%M-%SZ}.json"
        path.write_text(json.dumps(entry(measured, args.tasks, begun), indent=1) + "\n")
        print(path)
    reached = ratios(measured).get("sqlite", 1.0)
    return 0 if reached >= MUST_REACH else 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS_COUNT, help="in each turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--stores",
        type=lambda text: text.split(","),
        default=list(STORES),
        help=f"default: {','.join(STORES)}; also the URL of a PostgreSQL server",
    )
    parser.add_argument("--json", action="store_true", help="also write results/")
    return parser


def noop(x: object) -> object:
    return x


@contextlib.contextmanager
def running(store: str) -> Iterator[Measured]:
    """Run a cluster with a store; its database is deleted afterwards, if it is a file."""
    with (
        tempfile.TemporaryDirectory(prefix="history") as directory,
        Cluster(n=ENGINE_COUNT, profile_dir=directory, store=store) as rc,
    ):
        run(rc, 1000)
        await_recorded(rc, store)  # then the recorder is there
        assert isinstance(rc.cluster, Cluster)
        assert rc.cluster.controller is not None
        yield Measured(store, rc, processes_of_one(rc, rc.cluster.controller.pid), [])


def processes_of_one(rc: Client, controller_pid: int) -> dict[str, psutil.Process]:
    """Return the processes of one of several clusters, by name."""
    controller = psutil.Process(controller_pid)
    processes = {"client": psutil.Process(), "controller": controller}
    for child in controller.children():
        processes["recorder"] = child
    for number, pid in enumerate(rc[:].apply_sync(os.getpid)):
        processes[f"engine {number}"] = psutil.Process(pid)
    return processes


def take_turn(measured: Measured, tasks_count: int) -> Turn:
    before_s = cpu_s(measured.processes)
    begin_s = time.perf_counter()
    run(measured.client, tasks_count)
    end_s = time.perf_counter()
    await_recorded(measured.client, measured.store)
    recorded_s = time.perf_counter() - end_s
    used_s = cpu_s(measured.processes)
    cpu_us = {part: (used_s[part] - before_s[part]) / tasks_count * 1e6 for part in PARTS}
    return Turn(tasks_count / (end_s - begin_s), recorded_s, cpu_us)


def run(rc: Client, tasks_count: int) -> None:
    apply_async = rc.load_balanced_view().apply_async
    for result in [apply_async(noop, number) for number in range(tasks_count)]:
        result.get()


def await_recorded(rc: Client, store: str) -> None:
    if store != "none":
        rc.db_query({"msg_id": ""})  # answered when all before is recorded


def cpu_s(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Return the CPU time of each part of a cluster so far."""
    used_s = dict.fromkeys(PARTS, 0.0)
    for name, process in processes.items():
        times = process.cpu_times()
        part = "engines" if name.startswith("engine") else name
        used_s[part] += times.user + times.system
    return used_s


def ratios(measured: Sequence[Measured]) -> dict[str, float]:
    """Return what part of the throughput without a store is left with each.

    It is the median of what each round says: its turns follow each other.
    """
    bare = next((each.turns for each in measured if each.store == "none"), [])
    if not bare:
        return {}
    return {
        _name(each.store): statistics.median(
            turn.tasks_per_s / own.tasks_per_s
            for turn, own in zip(each.turns, bare, strict=True)
        )
        for each in measured
    }


def render(measured: Sequence[Measured], tasks_count: int) -> str:
    """Return a table with a line for each store."""
    reached = ratios(measured)
    rounds = len(measured[0].turns)
    lines = [
        f"{tasks_count:,} separately submitted no-ops, medians of {rounds} rounds; beside them"
        " the CPU time per task in µs",
        "",
        "store        tasks/s     best   of none   recorded   "
        + "".join(f"{p:>12}" for p in (*PARTS, "all")),
    ]
    for each in measured:
        ratio = reached.get(_name(each.store))
        shown = "-" if ratio is None else f"{ratio:.2f}"
        used_us = [each.cpu_us(part) for part in PARTS]
        cpu = "".join(f"{us:12.1f}" for us in [*used_us, sum(used_us)])
        lines.append(
            f"{_name(each.store):<11}{each.tasks_per_s:9,.0f}{each.best:9,.0f}{shown:>10}"
            f"{each.recorded_s * 1e3:8.0f} ms   {cpu}"
        )
    if "sqlite" in reached:
        is_enough = reached["sqlite"] >= MUST_REACH
        verdict = "enough" if is_enough else "NOT ENOUGH"
        lines += [
            "",
            f"sqlite: {reached['sqlite']:.0%} of none; must reach {MUST_REACH:.0%}: {verdict}",
        ]
    return "\n".join(lines)


def entry(measured: Sequence[Measured], tasks_count: int, begun: datetime) -> dict[str, object]:
    """Return all that somebody needs to compare this run with a later one."""
    return {
        "date": begun.isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "tasks": tasks_count,
        "of_none": ratios(measured),
        "turns": {_name(each.store): [t._asdict() for t in each.turns] for each in measured},
    }


def _name(store: str) -> str:
    """Return how a store is called here: a URL may hold a password."""
    return store.partition(":")[0]


if __name__ == "__main__":
    sys.exit(main())
