"""``ipclusterz demo``: a cluster at work on Python's own library, with a report.

It starts a cluster in a profile directory of its own, does the four things below, each checked
against a computation without a cluster, and stops what it started, whatever happens. What it
leaves are two files in the output directory: a picture and the database. The report goes to
stdout; progress bars go to stderr, and only to a terminal.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from parallelz import settings
from parallelz.cli import common
from parallelz.cli.demo_work import (
    FileCounts,
    NodeSize,
    count_file,
    library_files,
    library_root,
)
from parallelz.client.balanced import LoadBalancedView
from parallelz.client.client import Client
from parallelz.client.dag import plot_dag, submit_graph, validate_graph
from parallelz.client.results import AsyncResult
from parallelz.cluster import Cluster
from parallelz.errors import ParallelzError

OUTPUT_DIR = "parallelz-demo"
PROFILE = "profile"  # of our own, in a temporary directory
NEEDED = ("numpy", "networkx", "matplotlib")
FILES_PER_TASK = 8
COUNTED = ("definitions", "names", "lines")


class DemoError(ParallelzError):
    """A result is not what it is without a cluster, or a package is not installed."""


def main(args: argparse.Namespace) -> int:
    """Run the demo; return the exit status."""
    common.end_on_signals()
    try:
        check_needed()
        output_dir = Path(args.output or OUTPUT_DIR)
        output_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="parallelz-demo-") as own_dir:
            try:
                _run_on_cluster(args.n, args.files, Path(own_dir), output_dir)
            except (ParallelzError, TimeoutError):
                _keep_logs(Path(own_dir) / PROFILE, output_dir)
                raise
            finally:
                common.ignore_signals()
    except KeyboardInterrupt:
        print("\nipclusterz demo: interrupted; all it started has ended", file=sys.stderr)
        return common.INTERRUPTED
    return common.DONE


def check_needed() -> None:
    """Raise DemoError if a package that only the demo needs is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo needs {', '.join(missing)}: pip install 'parallelz[demo]'")


def _run_on_cluster(
    engine_count: int, file_count: int | None, own_dir: Path, output_dir: Path
) -> None:
    profile_dir = own_dir / PROFILE
    build_dir = own_dir / "build"
    build_dir.mkdir()
    root = library_root()
    files = library_files(root)
    files = files[:: math.ceil(len(files) / (file_count or len(files)))]  # of all sizes
    print(f"parallelz {version('parallelz')} on the library of Python itself")
    print()
    started_s = time.perf_counter()
    with Cluster(n=engine_count, profile_dir=profile_dir) as rc:
        try:
            ready_s = time.perf_counter() - started_s
            _say("engines", f"{len(rc)} on {os.cpu_count()} cores, ready after {ready_s:.2f} s")
            # To read all of it once also means that nobody has to wait for the disk later.
            size = sum(len((root / file).read_bytes()) for file in files)
            _say("input", f"{len(files):,} files, {size / 1e6:.1f} MB, Python", end=" ")
            print(f"{platform.python_version()}, in {root}")
            counts = map_files(rc, root, files)
            share_array(rc, counts)
            results = run_graph(rc, counts, root, build_dir, output_dir)
            query_history(rc, results)
        finally:
            common.ignore_signals()
    _keep_database(profile_dir, output_dir)
    print()
    print("Controller and engines have been stopped. Your own: ipclusterz start --help")


def map_files(rc: Client, root: Path, files: Sequence[str]) -> list[FileCounts]:
    """Count in every file, with the cluster and without, and compare."""
    _title("1. Map: parse every file, on whichever engine is free")
    _code("lv.map_async(count_file, roots, files, chunksize=8)")
    roots = [str(root)] * len(files)
    started_s = time.perf_counter()
    pending = rc.load_balanced_view().map_async(
        count_file, roots, files, chunksize=FILES_PER_TASK
    )
    _watch(pending)
    counts = pending.get()
    parallel_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    expected = [count_file(str(root), file) for file in _progress(files, "serial")]
    serial_s = time.perf_counter() - started_s
    _check("the counts", counts == expected)
    for name in COUNTED:
        _say(name, f"{sum(getattr(each, name) for each in expected):,}")
    _say(
        "not Python",
        f"{sum(not each.is_parsed for each in expected)} files, wrong on purpose",
    )
    _say("serial", f"{serial_s:.2f} s")
    _say("parallel", f"{parallel_s:.2f} s, {serial_s / parallel_s:.2f} times as fast")
    _say("check", "equal to the serial result, all of it")
    return expected


def share_array(rc: Client, counts: Sequence[FileCounts]) -> None:
    """Standardise the counts in the engines' namespaces, and compare."""
    import numpy as np

    _title("2. Namespaces: scatter an array, compute where its parts are, gather")
    parsed = [each for each in counts if each.is_parsed]
    array = np.array([[getattr(each, name) for name in COUNTED] for each in parsed], float)
    dv = rc[:]
    with dv.temp_flags(block=True):
        _code('dv.scatter("counts", array)')
        dv.scatter("counts", array)
        dv.execute("total, squares = counts.sum(axis=0), (counts**2).sum(axis=0)")
        mean = np.sum(np.asarray(dv["total"]), axis=0) / len(array)
        spread = np.sqrt(np.sum(np.asarray(dv["squares"]), axis=0) / len(array) - mean**2)
        dv.push({"mean": mean, "spread": spread})
        _code('dv.execute("scores = (counts - mean) / spread")')
        dv.execute("scores = (counts - mean) / spread")
        _code('scores = dv.gather("scores")')
        scores = np.asarray(dv.gather("scores"))
        dv.execute("row_count = len(scores)")
        row_counts = dv["row_count"]
    expected = (array - array.mean(axis=0)) / array.std(axis=0)
    _check("the scores", scores.shape == expected.shape and np.allclose(scores, expected))
    _say("array", f"{array.shape[0]:,} x {array.shape[1]}, rows on the engines: {row_counts}")
    typical = ", ".join(f"{m:.0f} {name}" for m, name in zip(mean, COUNTED, strict=True))
    _say("mean file", typical)
    row, column = np.unravel_index(np.abs(scores).argmax(), scores.shape)
    _say(
        "farthest from it",
        f"{parsed[row].path}, by {scores[row, column]:.0f} standard deviations"
        f" in its {COUNTED[column]}",
    )
    _say("check", "equal to the local result, within rounding")


def run_graph(
    rc: Client, counts: Sequence[FileCounts], root: Path, build_dir: Path, output_dir: Path
) -> dict[str, AsyncResult]:
    """Compile the modules of the library, each after those it imports, and draw it."""
    import networkx

    from parallelz.cli.demo_graph import check_sizes, graph_jobs, import_graph

    _title("3. Graph: compile every module after those it imports")
    _code("results = submit_graph(lv, imports, jobs)")
    graph = import_graph(counts)
    view: LoadBalancedView = rc.load_balanced_view()
    started_s = time.perf_counter()
    results = submit_graph(view, graph, graph_jobs(graph, str(root), str(build_dir)))
    everything = AsyncResult.join(*results.values())
    _watch(everything)
    everything.get()
    wall_s = time.perf_counter() - started_s
    sizes: dict[str, NodeSize] = {}
    for node, result in results.items():
        size = result.get()
        assert isinstance(size, NodeSize)
        sizes[node] = size
    check_sizes(graph, sizes)
    validate_graph(graph, results)
    picture = output_dir / "imports.png"
    plot_dag(graph, results, picture)
    chain = len(networkx.dag_longest_path(graph))
    edge_count = graph.number_of_edges()
    _say("tasks", f"{len(graph):,}, with {edge_count:,} dependencies, {chain} of them in a row")
    _say("time", f"{wall_s:.2f} s; the tasks ran {everything.serial_time:.2f} s in all")
    largest = max(sizes, key=lambda node: sizes[node].needed)
    _say("needs most", f"{largest}, with {sizes[largest].needed / 1e6:.1f} MB of compiled code")
    _say("check", "no task started before what it waited for had ended; sums are right")
    _say("picture", str(picture))
    return results


def query_history(rc: Client, results: dict[str, AsyncResult]) -> None:
    """Ask the database about the tasks of the graph."""
    _title("4. History: what ran is in a database")
    _code('rc.db_query({"name": "compile_node"}, keys=[...])')
    rows = rc.db_query(
        {"name": "compile_node", "status": "ok"},
        keys=["msg_id", "engine_id", "started", "completed"],
    )
    nodes: dict[str, str] = {result.msg_ids[0]: node for node, result in results.items()}
    _check("the history", {row["msg_id"] for row in rows} == nodes.keys())
    by_engine = sorted(Counter(str(row["engine_id"]) for row in rows).items())
    shares = ", ".join(f"{count} on {engine}" for engine, count in by_engine)
    _say("tasks by engine", shares)
    ran_ms = {str(row["msg_id"]): _ran_ms(row) for row in rows}
    slowest = max(ran_ms, key=lambda task_id: ran_ms[task_id])
    _say(
        "slowest",
        f"{nodes[slowest]}, {ran_ms[slowest]:.0f} ms;"
        f" median {statistics.median(ran_ms.values()):.1f} ms",
    )


def _ran_ms(row: Mapping[str, object]) -> float:
    started, completed = row["started"], row["completed"]
    assert isinstance(started, datetime)
    assert isinstance(completed, datetime)
    return (completed - started) / timedelta(milliseconds=1)


def _keep_logs(profile_dir: Path, output_dir: Path) -> None:
    logs, kept = settings.log_dir(profile_dir), output_dir / "log"
    if logs.exists():
        shutil.copytree(logs, kept, dirs_exist_ok=True)
        print(f"\nThe logs of this run have been kept in {kept}", file=sys.stderr)


def _keep_database(profile_dir: Path, output_dir: Path) -> None:
    kept = output_dir / "history.sqlite"
    kept.unlink(missing_ok=True)
    source = settings.database_file(profile_dir, "")
    # Not as a file: part of it may still be in its write-ahead log.
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(kept)) as new:
        old.backup(new)
    _say("kept in", f"{kept}, {kept.stat().st_size / 1e6:.1f} MB; look at it again with")
    sql = "SELECT name, count(*), sum(completed - started) FROM tasks GROUP BY name"
    print(f"     $ {sql_command(kept, sql)}")


def sql_command(path: Path, sql: str) -> str:
    """Return a shell command that prints what a query gives, with what is installed here."""
    if shutil.which("sqlite3"):
        return f'sqlite3 {path} "{sql}"'
    return (
        f'{Path(sys.executable).name} -c "import sqlite3;'
        f" print(*sqlite3.connect('{path}').execute('{sql}'), sep='\\n')\""
    )


# -- the report ---------------------------------------------------------------------------


def _title(text: str) -> None:
    print(f"\n{text}")


def _code(text: str) -> None:
    print(f"   >>> {text}")


def _say(name: str, text: str, end: str = "\n") -> None:
    print(f"   {name:<18}{text}", end=end, flush=True)


def _check(what: str, ok: object) -> None:
    if not ok:
        raise DemoError(f"{what} differ from those computed without a cluster")


def _watch(result: AsyncResult) -> None:
    if sys.stderr.isatty():
        result.wait_interactive()
    else:
        result.wait()


def _progress(files: Sequence[str], name: str) -> Iterable[str]:
    from tqdm import tqdm

    return tqdm(files, desc=name, unit="file", disable=not sys.stderr.isatty())
