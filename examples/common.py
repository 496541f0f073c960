"""What the examples share: their options, a cluster to work on, tables, pictures.

Nothing here runs on engines. They could not import this module: what an example sends to them
is defined in its own file, which is ``__main__`` and travels by value.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.figure import Figure

from parallelz import AsyncResult, Client, Cluster, ParallelzError

FAILED, INTERRUPTED = 1, 128 + signal.SIGINT
RESOLUTION_DPI = 130
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ExampleError(ParallelzError):
    """A result is not what it should be."""


def new_parser(text: str | None, *, output: str = "examples-output") -> argparse.ArgumentParser:
    """Return a parser that knows the options of all examples.

    Parameters
    ----------
    text
        The docstring of the example.
    output
        Default of ``--output``.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--engines",
        type=positive,
        metavar="N",
        help="start a cluster with so many engines and stop it at the end (default: one per"
        " core)",
    )
    where.add_argument(
        "--profile", metavar="NAME", help="use the running cluster of this profile instead"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="DIR",
        help="where pictures go; made if it is not there (default: %(default)s)",
    )
    return parser


def positive(text: str) -> int:
    """Return a number from an option; for argparse."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


@contextmanager
def connected(args: argparse.Namespace, **cluster: Any) -> Iterator[Client]:  # noqa: ANN401 - of `Cluster`
    """Give a client of the cluster that the options mean.

    A cluster of our own, made with `cluster`, lives in a temporary directory and is gone
    afterwards. On one that was running before, what we have submitted and has not ended is
    given up.
    """
    if args.profile is None:
        with _own_cluster(args.engines, cluster) as rc:
            yield rc
        return
    with Client(profile=args.profile) as rc:
        rc.wait_for_engines(1, timeout=10)
        print(f"{len(rc)} engines", flush=True)
        try:
            yield rc
        finally:
            rc.cancel()


@contextmanager
def _own_cluster(engine_count: int | None, options: dict[str, Any]) -> Iterator[Client]:
    # Each engine would use all cores for linear algebra, and be in the way of the others.
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with (
            TemporaryDirectory(prefix="parallelz-example-") as directory,
            Cluster(n=engine_count, profile_dir=Path(directory, "profile"), **options) as rc,
        ):
            print(f"{len(rc)} engines", flush=True)
            try:
                yield rc
            finally:
                # A second Ctrl-C would interrupt what the first one has begun to stop.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, handler)


def watch(result: AsyncResult) -> None:
    """Wait for a result, before a progress bar if somebody looks."""
    if sys.stderr.isatty():
        result.wait_interactive()
    else:
        result.wait()


def check(what: str, ok: object) -> None:
    """Raise ExampleError unless something that must be true is."""
    if not ok:
        raise ExampleError(f"wrong: {what}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their names; numbers are aligned on the right, texts on the left."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [
        max([len(name), *(len(row[place]) for row in texts)])
        for place, name in enumerate(columns)
    ]
    is_text = [
        all(isinstance(row[place], str) and not _is_number(row[place]) for row in rows)
        for place in range(len(columns))
    ]

    def line(values: Sequence[str]) -> str:
        cells = [
            value.ljust(width) if left else value.rjust(width)
            for value, width, left in zip(values, widths, is_text, strict=True)
        ]
        return "  ".join(cells).rstrip()

    print()
    print(line(columns))
    print("  ".join("-" * width for width in widths))
    for row in texts:
        print(line(row))


def _is_number(value: object) -> bool:
    """Whether a text is one that was made of a number, such as ``"1,024"`` or ``"-"``."""
    return not str(value).strip("+-0123456789.,e%x ")


def save(figure: Figure, directory: Path, name: str) -> None:
    """Save a picture and say where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    figure.savefig(path, dpi=RESOLUTION_DPI)
    print(f"\npicture: {path}")


def run(main: Callable[[], None]) -> None:
    """Run an example as a program.

    Ctrl-C and SIGTERM end it, and what it has started, with one line; so do errors of the
    cluster.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted; all it started has ended", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ParallelzError, TimeoutError) as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
