"""``python -m benchmarks``: measure parallelz and its peers, and print the table."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import OURS, Cell, Figures, render
from benchmarks.install import DEFAULT_VENVS
from benchmarks.machine import (
    NOISE_MAX,
    Speed,
    describe_machine,
    measure_speed,
    noise,
)
from benchmarks.rows import ROW_BY_KEY, ROWS, Row
from benchmarks.runner import PEERS, ROOT, Outcome, interpreter_of, run_peer

RESULTS_DIR = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    peers = []
    for peer in args.peers:
        if interpreter_of(args.venvs, peer) is None:
            say(
                f"{peer}: skipped, for it is not installed: python -m benchmarks.install {peer}"
            )
        else:
            peers.append(peer)
    figures: Figures = {row.key: {} for row in args.only}
    versions: dict[str, dict[str, str]] = {}
    speeds: list[Speed] = []
    begun = datetime.now(UTC)
    for number in range(args.repeat):
        speeds.append(measure_speed())
        say(f"round {number + 1}: copies {speeds[-1].copy_gb_s:.1f} GB/s,", end=" ")
        say(f"{speeds[-1].loop_ns:.1f} ns per turn of a loop")
        for peer in (OURS, *peers):
            for keys in _batches(args.only, is_first=number == 0):
                say(f"  {peer}: {', '.join(keys)}")
                outcome = run_peer(peer, keys, args.venvs, quick=args.quick)
                versions[peer] = outcome.versions or versions.get(peer, {})
                take_in(figures, peer, keys, outcome)
    print(render(figures, peers))
    if noise(speeds) > NOISE_MAX:
        say(f"noisy: the machine's own speed changed by a factor of {noise(speeds):.2f}")
    if args.json:
        entry = ledger_entry(begun, args, figures, versions, speeds)
        say(f"written: {write_entry(entry, begun)}")
    return 0 if all(OURS in figures[row.key] for row in args.only) else 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", type=_rows, default=list(ROWS), metavar="ROWS", help=", ".join(ROW_BY_KEY)
    )
    parser.add_argument(
        "--peers", type=_peers, default=list(PEERS), help=f"{', '.join(PEERS)}; or none"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds; default 3")
    parser.add_argument("--json", action="store_true", help="write a ledger entry, too")
    parser.add_argument("--quick", action="store_true", help="less of everything, for a look")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_VENVS, metavar="DIR")
    return parser


def take_in(figures: Figures, peer: str, keys: Sequence[str], outcome: Outcome) -> None:
    """Add what a peer has handed over to the figures."""
    for key in keys:
        cell = figures[key].setdefault(peer, Cell())
        fact: Mapping[str, object] = outcome.rows.get(key, {})
        if "value" in fact:
            value = fact["value"]
            assert isinstance(value, int | float)
            cell.samples.append(float(value))
            cell.note = str(fact.get("note", ""))
        elif "unsupported" not in fact:
            reason = str(fact.get("error") or outcome.failure or "no figure")
            cell.note = f"FAILED: {reason}"
            say(f"    {key}: {cell.note}")


def ledger_entry(
    begun: datetime,
    args: argparse.Namespace,
    figures: Figures,
    versions: Mapping[str, Mapping[str, str]],
    speeds: Sequence[Speed],
) -> dict[str, object]:
    """Return all that somebody needs to compare this run with a later one."""
    return {
        "date": begun.isoformat(timespec="seconds"),
        "commit": _commit(),
        "quick": args.quick,
        "repeat": args.repeat,
        "machine": describe_machine(),
        "speeds": [speed._asdict() for speed in speeds],
        "versions": versions,
        "figures": {
            key: {"unit": ROW_BY_KEY[key].unit, "must_reach": ROW_BY_KEY[key].must_reach}
            | {"peers": {peer: asdict(cell) for peer, cell in cells.items()}}
            for key, cells in figures.items()
        },
    }


def write_entry(entry: Mapping[str, object], begun: datetime) -> Path:
    RESULTS_DIR.mkdir(exist_ok=True)
    path = RESULTS_DIR / f"{begun:%Y-%m-%dT%H-%M-%SZ}.json"
    path.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n")
    return path


def say(text: str, end: str = "\n") -> None:
    """Tell how it goes, apart from the table."""
    print(text, end=end, file=sys.stderr, flush=True)


def _batches(rows: Sequence[Row], *, is_first: bool) -> list[list[str]]:
    """Return what is measured in one process each: most together, some apart."""
    together = [row.key for row in rows if not row.is_apart]
    apart = [[row.key] for row in rows if row.is_apart and is_first]
    return ([together] if together else []) + apart


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def _rows(text: str) -> list[Row]:
    unknown = [key for key in text.split(",") if key not in ROW_BY_KEY]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no row {unknown[0]!r}")
    return [row for row in ROWS if row.key in text.split(",")]


def _peers(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no peer {unknown[0]!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
