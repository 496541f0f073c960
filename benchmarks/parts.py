"""Benchmarks of several parts, each of which is a function that returns figures with names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.__main__ import RESULTS_DIR
from benchmarks.machine import describe_machine

Figures = dict[str, object]


def measure_parts(
    name: str, parts: Mapping[str, Callable[[], Figures]], argv: Sequence[str] | None
) -> int:
    """Measure the parts that the command line names, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--json", action="store_true", help="also write results/")
    args = parser.parse_args(argv)
    unknown = [part for part in args.parts if part not in parts]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(parts)}")
    begun = datetime.now(UTC)
    figures: dict[str, Figures] = {}
    for part in args.parts or parts:
        print(f"-- {part}: {(parts[part].__doc__ or '').splitlines()[0]}", flush=True)
        figures[part] = parts[part]()
        for title, value in figures[part].items():
            shown = f"{value:,.3g}" if isinstance(value, float) and value < 100 else value
            shown = f"{shown:,.0f}" if isinstance(shown, float) else shown
            print(f"   {title:<52} {shown}", flush=True)
    if args.json:
        RESULTS_DIR.mkdir(exist_ok=True)
        path = RESULTS_DIR / f"{name}-{begun:%Y-%m-%dT%H-%M-%SZ}.json"
        entry = {"date": begun.isoformat(timespec="seconds"), "machine": describe_machine()}
        path.write_text(json.dumps({**entry, "figures": figures}, indent=1) + "\n")
        print(path)
    return 0
