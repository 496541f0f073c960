"""Large arrays: when they may be changed, where they are read-only, and how fast they are.

An array is copied at most once on its way to engines: on this host into memory that they read,
too, and not at all on its way to other hosts. That has two consequences:

- *Here*, an array that goes to other hosts must not be changed before it has been sent: who
  changes it sends something else. `AsyncResult.sent` says whether it is safe by now, which on
  one host is at once, and `AsyncResult.wait_for_send` waits until it is.
- *There*, the function gets the memory in which the array arrived, and that is read-only. Who
  wants to work in place takes a ``.copy()``; who only reads, as most functions do, saves one.
  The same holds for arrays that come back.

The first part shows both, the second one measures, beside what a mere copy takes in this
process. Of several attempts the fastest one counts: the others tell more about the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import common
import numpy as np
from matplotlib.figure import Figure

from parallelz import Client, DirectView, RemoteError

SEND_TIMEOUT_S = 60.0
ATTEMPTS = 3
WAYS = ("copied here", "to one engine", "to all engines", "back from one")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument(
        "--megabytes",
        type=common.positive,
        default=64,
        metavar="MB",
        help="size of the largest array (default: 64)",
    )
    args = parser.parse_args(argv)
    with common.connected(args) as rc:
        rc[:].execute("import numpy", block=True)
        print("An array that is sent:")
        show_sending(rc[0])
        print("\nAn array that arrives:")
        show_arriving(rc[0])
        sizes_mb = sizes_up_to(args.megabytes)
        rates = [measure(rc, size_mb) for size_mb in sizes_mb]
        engine_count = len(rc)
    common.save(draw(sizes_mb, rates), args.output, "large_arrays.png")
    common.print_table(
        ("MB", *WAYS),
        [
            (size_mb, *(f"{rate:,.0f}" for rate in row))
            for size_mb, row in zip(sizes_mb, rates, strict=True)
        ],
    )
    print(f"\nIn MB/s; to all {engine_count} engines: of all of them together.")


def show_sending(view: DirectView) -> None:
    """Send an array, and change it as soon as that is safe."""
    array = np.ones(1_000_000)
    view.track = True
    result = view.apply_async(np.sum, array)
    print(f"  at once            sent is {result.sent}")
    is_sent = result.wait_for_send(SEND_TIMEOUT_S)
    print(f"  after a wait       sent is {result.sent}")
    common.check("an array is not sent within a minute", is_sent)
    array[:] = 0  # from here on nobody else looks at it
    common.check("the engine saw a change", result.get() == 1_000_000)
    print(f"  then set to 0, but the engine's sum is {result.get():,.0f}")


def show_arriving(view: DirectView) -> None:
    """Look at an array on the engine, work on it in place, and look at one that comes back."""
    array = np.zeros(1_000_000)
    is_writeable = view.apply_sync(lambda a: a.flags.writeable, array)
    print(f"  on the engine      flags.writeable is {is_writeable}")
    try:
        view.apply_sync(add_in_place, array)
    except RemoteError as error:
        print(f"  changed in place   {error.ename}: {error.evalue.splitlines()[0]}")
        common.check("another error", isinstance(error, ValueError))
    else:
        common.check("an array that arrived could be changed", ok=False)
    changed = view.apply_sync(lambda a: add_in_place(a.copy()), array)
    common.check("a copy could not be changed", changed.sum() == len(array))
    print(f"  a copy changed     its sum is {changed.sum():,.0f}")
    print(f"  the result here    flags.writeable is {changed.flags.writeable}")


def add_in_place(array: np.ndarray) -> np.ndarray:
    """Add one to an array itself."""
    array += 1
    return array


def sizes_up_to(largest_mb: int) -> list[int]:
    """Return 1, 4, 16, ... and the largest."""
    sizes = [4**n for n in range(20) if 4**n < largest_mb]
    return [*sizes, largest_mb]


def measure(rc: Client, size_mb: int) -> tuple[float, ...]:
    """Return the rates of `WAYS` for an array of some megabytes, in MB/s."""
    array = np.random.default_rng(0).integers(0, 256, size_mb * 1_000_000, np.uint8)
    one, everybody = rc[0], rc[:]
    copied_s = fastest_s(array.copy)
    to_one_s = fastest_s(lambda: one.push({"large": array}, block=True))
    to_all_s = fastest_s(lambda: everybody.push({"large": array}, block=True))
    back_s = fastest_s(lambda: one["large"])
    common.check("an array came back as another one", np.array_equal(one["large"], array))
    everybody.execute("del large", block=True)
    return (
        size_mb / copied_s,
        size_mb / to_one_s,
        size_mb * len(rc) / to_all_s,
        size_mb / back_s,
    )


def fastest_s(action: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some attempts."""
    spans_s = []
    for _ in range(ATTEMPTS):
        started_s = time.perf_counter()
        action()
        spans_s.append(time.perf_counter() - started_s)
    return min(spans_s)


def draw(sizes_mb: Sequence[int], rates: Sequence[tuple[float, ...]]) -> Figure:
    """Draw the rates by size."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    styles = ({"color": "0.6", "linestyle": "--"}, {}, {}, {})
    for name, values, style in zip(WAYS, zip(*rates, strict=True), styles, strict=True):
        axes.loglog(sizes_mb, values, marker="o", label=name, **style)
    axes.set_xticks(sizes_mb, [str(size_mb) for size_mb in sizes_mb])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("size of the array (MB)")
    axes.set_ylabel("rate (MB/s)")
    axes.set_title("Arrays on their way, beside a copy within one process", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    common.run(main)
