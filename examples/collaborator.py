"""Two people and one cluster: one submits and leaves, the other one comes for the results.

What was submitted, what came of it, and what it was made of is in the database of the cluster,
where every client finds it. So

- the *submitter* starts an analysis of each file of a directory and leaves without waiting;
- the *collaborator*, in another process and maybe on another day, looks into the history,
  queries for these tasks by their labels, and waits for those that have not ended;
- one of them has failed, for its file was not there. The collaborator adds the file and submits
  the task once more: function and arguments are in the database, so nothing else is needed.

Without options both are played, each in a process of its own. To play one yourself, start a
cluster (``ipclusterz start -n 2``) and run, in this order::

    python examples/collaborator.py --profile default --data measured --part submit
    python examples/collaborator.py --profile default --data measured --part collect
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import common

from parallelz import AsyncResult, Client, RemoteError

WAIT_TIMEOUT_S = 60.0
VALUES_PER_FILE = 400


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example, or one part of it."""
    parser = common.new_parser(__doc__)
    parser.add_argument(
        "--files", type=common.positive, default=12, help="to analyse (default: 12)"
    )
    parser.add_argument("--part", choices=("submit", "collect"), help="play only one of them")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the files are")
    parser.add_argument("--connection", metavar="FILE", help="connection file of the cluster")
    args = parser.parse_args(argv)
    if args.part is None:
        play_both(args)
    elif args.data is None:
        parser.error(f"--part {args.part} needs --data DIR")
    else:
        # Not `common.connected`: what the submitter leaves behind is to go on.
        with Client(args.connection, profile=args.profile) as rc:
            if args.part == "submit":
                submit(rc, args.data.resolve(), args.files)
            else:
                collect(rc, args.data.resolve())


def play_both(args: argparse.Namespace) -> None:
    """Let one process submit, and when it has left, another one collect."""
    with TemporaryDirectory(prefix="parallelz-example-") as own, common.connected(args) as rc:
        command = [sys.executable, __file__, f"--data={own}", f"--files={args.files}"]
        if args.profile is None:
            command.append(f"--connection={rc.cluster.client_connection_file}")
        else:
            command.append(f"--profile={args.profile}")
        for part in ("submit", "collect"):
            ended = subprocess.run([*command, f"--part={part}"], check=False)
            if ended.returncode != 0:
                raise common.ExampleError(f"--part {part} has failed")


# -- the submitter ------------------------------------------------------------------------


def submit(rc: Client, directory: Path, file_count: int) -> None:
    """Write all files but one, submit an analysis of each, and leave."""
    paths = [directory / f"measured-{number:02}.txt" for number in range(file_count)]
    for path in paths:
        write(path)
    paths[file_count // 2].unlink()  # this one is late
    lv = rc.load_balanced_view()
    for path in paths:
        lv.label = str(path)
        lv.apply_async(analyse, str(path))
    print(f"submitter:     {file_count} tasks from {lv.history[0]} on are submitted; bye")


def write(path: Path) -> None:
    """Write numbers that are as good as measured, and the same each time."""
    choose = random.Random(path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{choose.gauss(10, 3):.3f}" for _ in range(VALUES_PER_FILE)))


def analyse(path: str) -> tuple[float, float]:
    """Return the mean of the numbers in a file, and how far off it may be, by resampling."""
    choose = random.Random(path)
    with open(path) as file:
        values = [float(line) for line in file]
    means = [statistics.fmean(choose.choices(values, k=len(values))) for _ in range(1500)]
    return statistics.fmean(values), statistics.stdev(means)


# -- the collaborator ---------------------------------------------------------------------


def collect(rc: Client, directory: Path) -> None:
    """Find the tasks, wait for their results, and run once more what failed."""
    everything = rc.hub_history()
    wanted = {"label": {"$regex": f"^{re.escape(str(directory))}/"}, "name": "analyse"}
    records = rc.db_query(wanted, keys=["msg_id", "label", "client_uuid"])
    if not records:
        raise common.ExampleError(f"no tasks of {directory}: has --part submit been there?")
    say(f"{len(records)} of {len(everything)} tasks in the history are of this directory")
    clients = sorted({str(record["client_uuid"]) for record in records})
    say(f"they were submitted by {', '.join(clients)}")

    ids = [record["msg_id"] for record in records]
    pending = rc.get_result(ids)
    say(f"{pending.progress} of them have ended; I wait for the others")
    if not pending.wait(WAIT_TIMEOUT_S):
        raise TimeoutError(f"not all have ended within {WAIT_TIMEOUT_S:g} s")
    results = pending.split()

    again: dict[int, AsyncResult] = {}
    for place, result in enumerate(results):
        error = result.exception()
        if error is None:
            continue
        common.check(f"{error!r}, of which I know nothing", is_missing_file(error))
        path = Path(str(records[place]["label"]))
        say(f"{path.name} failed: {error.ename}. I add the file and submit the task again")
        write(path)
        again[place] = rc.resubmit(ids[place])
    for place, result in again.items():
        result.get(WAIT_TIMEOUT_S)
        results[place] = result

    rows = []
    for place, (record, result) in enumerate(zip(records, results, strict=True)):
        path = Path(str(record["label"]))
        mean, error = result.get()
        common.check("another result than here", (mean, error) == analyse(str(path)))
        rows.append(
            (
                path.name,
                result.msg_ids[0],
                result.engine_id,
                f"{result.ran_s * 1e3:.0f}",
                f"{mean:.3f}",
                f"{error:.3f}",
                "again" if place in again else "",
            )
        )
    common.print_table(("file", "task", "engine", "ran ms", "mean", "error", ""), rows)
    counts = {
        status: len(rc.db_query(wanted | {"status": status}, keys="msg_id"))
        for status in ("ok", "error")
    }
    print(
        f"\nIn the history now: {counts['ok']} that ended well, {counts['error']} that failed."
    )


def is_missing_file(error: Exception) -> bool:
    """Whether a task failed since a file was not there; errors arrive as what they were."""
    return isinstance(error, RemoteError) and isinstance(error, FileNotFoundError)


def say(text: str) -> None:
    """Print what the collaborator does."""
    print(f"collaborator:  {text}", flush=True)


if __name__ == "__main__":
    common.run(main)
