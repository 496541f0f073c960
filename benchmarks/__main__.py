"""Measure parallelz and every peer that is there, print the table, keep a ledger."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.rows import PEERS, ROWS
from benchmarks.table import Figures, render

HERE = Path(__file__).parent
TIMEOUT_S = 600


def interpreter(peer: str, venvs: Path) -> str | None:
    """Return the Python that has the peer installed, if there is one."""
    if peer in ("parallelz", "pool"):
        return sys.executable
    python = venvs / peer / "bin" / "python"
    return str(python) if python.exists() else None


def measure(
    peer: str, python: str, rows: list[str], *, quick: bool
) -> tuple[dict[str, float], dict[str, str]]:
    """Run one peer once; return its figures by row, and the versions of what was measured."""
    figures: dict[str, float] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "figures.jsonl"
        command = [python, "-m", "benchmarks.peers.harness", peer, "--rows", ",".join(rows)]
        command += ["--out", str(out)] + (["--quick"] if quick else [])
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        with (Path(directory) / "log").open("w+") as log:
            process = subprocess.Popen(
                command, cwd=HERE.parent, env=environment, stdout=log, stderr=log
            )
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                print(f"{peer}: stopped after {TIMEOUT_S} s", file=sys.stderr)
                process.terminate()
                process.wait()
            if process.returncode:
                log.seek(0)
                print(f"{peer}: ended with {process.returncode}", file=sys.stderr)
                print(log.read()[-2000:], file=sys.stderr)
        for line in out.read_text().splitlines() if out.exists() else []:
            fact = json.loads(line)
            versions.update(fact.get("versions", {}))
            if "value" in fact:
                figures[fact["row"]] = fact["value"]
            elif "error" in fact:
                print(f"{peer}: {fact['row']}: {fact['error']}", file=sys.stderr)
    return figures, versions


def ledger_entry(figures: Figures, versions: dict[str, str]) -> dict[str, object]:
    """Return what is kept of a run."""
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": versions,
        "figures": figures,
    }


def main() -> int:
    """Run it all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="rows, separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas, or none")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--json", action="store_true", help="keep the run under results/")
    parser.add_argument("--venvs", type=Path, default=HERE / ".venvs")
    args = parser.parse_args()
    rows = args.only.split(",") if args.only else [row.key for row in ROWS]
    asked = [] if args.peers == "none" else args.peers.split(",")
    found: dict[str, dict[str, list[float]]] = {}
    versions: dict[str, str] = {}
    for peer in dict.fromkeys(["parallelz", *asked]):
        python = interpreter(peer, args.venvs)
        if python is None:
            print(
                f"{peer}: not installed; python -m benchmarks.install {peer}", file=sys.stderr
            )
            continue
        found[peer] = defaultdict(list)
        for _ in range(args.repeat):
            print(f"{peer} ...", file=sys.stderr)
            figures, of_peer = measure(peer, python, rows, quick=args.quick)
            versions.update(of_peer)
            for row, value in figures.items():
                found[peer][row].append(value)
    print(render(found))
    if args.json:
        entry = ledger_entry(found, versions)
        path = HERE / "results" / f"{str(entry['date']).replace(':', '')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(entry, indent=1) + "\n")
        print(f"kept in {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
