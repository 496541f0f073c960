"""Runs one peer: ``python -m benchmarks.peers.harness PEER --rows a,b --out FILE [--quick]``.

Each figure is appended to the file as a line of JSON when it is there, so that a peer that
crashes or has to be killed keeps what it has got so far.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from benchmarks.peers.measure import FULL, MEASURES, QUICK, Effort
from benchmarks.peers.peer import Peer, Unsupported


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("--rows", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    module = importlib.import_module(f"benchmarks.peers.{args.peer}_peer")
    peer: Peer = module.PEER()
    effort = QUICK if args.quick else FULL
    with args.out.open("a", buffering=1) as out:
        _measure(peer, args.rows.split(","), effort, out.write)


def _measure(
    peer: Peer, rows: list[str], effort: Effort, write: Callable[[str], object]
) -> None:
    def tell(fact: Mapping[str, object]) -> None:
        write(json.dumps(fact) + "\n")

    try:
        tell({"row": "start", **MEASURES["start"](peer, effort)._asdict()})
        tell({"versions": peer.versions()})
        for row in rows:
            if row == "start":
                continue
            try:
                tell({"row": row, **MEASURES[row](peer, effort)._asdict()})
            except Unsupported as reason:
                tell({"row": row, "unsupported": str(reason)})
            except Exception as error:  # noqa: BLE001 - one row of a peer fails, others need not
                traceback.print_exc()
                tell({"row": row, "error": f"{type(error).__name__}: {error}"[:200]})
    finally:
        peer.stop()


def _leave(*args: object) -> NoReturn:
    sys.exit("asked to end")


if __name__ == "__main__":
    main()
