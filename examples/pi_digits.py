"""Digits of pi: computed on the engines, and counted there, one by one and in pairs.

The series of the Chudnovsky brothers gives 14 digits with each term. A run of terms is three
large numbers, and two runs that follow each other are made into one by a few multiplications
(*binary splitting*). So engines work on runs of their own, and then a tree of tasks puts them
together: each of its tasks takes the results of two others as its arguments. The client submits
all of that at once and waits only for the end; it never has the large numbers in between.

Then the digits are cut into parts, and the engines count how often each pair of neighbours
occurs. If the digits of pi are as good as random, which nobody has proved, each pair does so
equally often but for chance: the picture shows by how many standard deviations it does not.

The table says what each of the two was worth. The tree ends in tasks that have nobody beside
them, so more engines help only with the rest; and to count takes less than to be asked to.
"""

from __future__ import annotations

import decimal
import itertools
import time
from collections.abc import Sequence
from decimal import Decimal

import common
import numpy as np
from matplotlib.figure import Figure

from parallelz import AsyncResult, LoadBalancedView

DIGITS_PER_TERM = 14.18
GUARD_DIGITS = 20  # computed and thrown away: the last ones are wrong
TASKS_PER_ENGINE = 4

# A run of terms of the series: their sum is ``total / q``, and ``p / q`` leads to the next run.
Run = tuple[Decimal, Decimal, Decimal]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument(
        "--digits", type=common.positive, default=1_000_000, help="default: 1,000,000"
    )
    args = parser.parse_args(argv)
    with common.connected(args) as rc:
        lv = rc.load_balanced_view()
        task_count = TASKS_PER_ENGINE * len(rc)
        rc[:].execute("import numpy", block=True)  # not part of what is measured
        started_s = time.perf_counter()
        digits = submit_pi(lv, args.digits, task_count).get()
        computed_s = time.perf_counter()
        parts = overlapping_parts(digits, task_count)
        pairs = np.sum(lv.map_sync(count_pairs, parts), axis=0)
        counted_s = time.perf_counter()
        engine_count = len(rc)

    alone_s = time.perf_counter()
    run = run_of_terms(0, term_count(args.digits))
    expected = digits_of(run, inverse_root(args.digits), args.digits)
    alone_computed_s = time.perf_counter()
    expected_pairs = count_pairs(expected)
    alone_counted_s = time.perf_counter()
    common.check("the digits differ from those without a cluster", digits == expected)
    common.check("the counts differ from those of all at once", (pairs == expected_pairs).all())

    ones = pairs.sum(axis=1)
    ones[int(digits[-1:])] += 1  # it begins no pair
    common.save(draw(ones, pairs), args.output, "pi_digits.png")
    times_s = {
        "compute": (computed_s - started_s, alone_computed_s - alone_s),
        "count": (counted_s - computed_s, alone_counted_s - alone_computed_s),
    }
    common.print_table(
        ("step", f"{engine_count} engines s", "alone s", "ratio"),
        [
            (step, f"{together_s:.2f}", f"{apart_s:.2f}", f"{apart_s / together_s:.2f}")
            for step, (together_s, apart_s) in times_s.items()
        ],
    )
    common.print_table(
        ("digit", "occurs", "std. deviations"),
        [
            (digit, f"{count:,}", f"{deviation:+.2f}")
            for digit, (count, deviation) in enumerate(zip(ones, deviations(ones), strict=True))
        ],
    )
    print(f"\n3.{digits[:40].decode()}... {digits[-10:].decode()}")
    print(f"{len(digits):,} digits after the point; the same without a cluster.")


# -- what to submit -----------------------------------------------------------------------


def submit_pi(lv: LoadBalancedView, digit_count: int, task_count: int) -> AsyncResult:
    """Submit all tasks that lead to the digits; return the result of the last."""
    # Needed last of all, but nothing has to come before it.
    root = lv.apply_async(inverse_root, digit_count)
    terms = term_count(digit_count)
    bounds = [terms * n // task_count for n in range(task_count + 1)]
    runs = [
        lv.apply_async(run_of_terms, first, end)
        for first, end in itertools.pairwise(bounds)
        if first < end
    ]
    while len(runs) > 1:
        pairs = zip(runs[::2], runs[1::2], strict=False)
        left_over = runs[len(runs) // 2 * 2 :]
        runs = [lv.apply_async(joined, left, right) for left, right in pairs] + left_over
    return lv.apply_async(digits_of, runs[0], root, digit_count)


def term_count(digit_count: int) -> int:
    """Return how many terms of the series give so many digits."""
    return int((digit_count + GUARD_DIGITS) / DIGITS_PER_TERM) + 2


def overlapping_parts(digits: bytes, count: int) -> list[bytes]:
    """Cut digits so that each pair of neighbours is in exactly one part."""
    pair_count = len(digits) - 1
    bounds = [pair_count * n // count for n in range(count + 1)]
    return [digits[a : b + 1] for a, b in itertools.pairwise(bounds) if a < b]


# -- what the engines do ------------------------------------------------------------------


def run_of_terms(first: int, end: int) -> Run:
    """Return the terms from `first` to before `end`, made into one."""
    if end - first > 1:
        middle = (first + end) // 2
        return joined(run_of_terms(first, middle), run_of_terms(middle, end))
    if first == 0:
        return Decimal(1), Decimal(1), Decimal(13591409)
    p = -(6 * first - 5) * (2 * first - 1) * (6 * first - 1)
    q = 640320**3 // 24 * first**3
    return Decimal(p), Decimal(q), Decimal(p * (13591409 + 545140134 * first))


def joined(left: Run, right: Run) -> Run:
    """Make two runs, the second of which follows the first, into one."""
    with exact():
        return (
            left[0] * right[0],
            left[1] * right[1],
            left[2] * right[1] + left[0] * right[2],
        )


def inverse_root(digit_count: int) -> Decimal:
    """Return one over the square root of 10005, by Newton's method.

    Each step makes twice as many digits right. Only multiplications are needed, which makes it
    much faster than `Decimal.sqrt`.
    """
    right_count = 16
    guess = Decimal(10005**-0.5)
    while right_count < digit_count + GUARD_DIGITS:
        right_count = 2 * right_count - 2
        with rounded(min(right_count, digit_count + GUARD_DIGITS) + 4):
            guess += guess * (1 - 10005 * guess * guess) / 2
    return guess


def digits_of(run: Run, root: Decimal, digit_count: int) -> bytes:
    """Return the digits of pi after the point, by the whole series and `inverse_root`."""
    _, q, total = run
    with rounded(digit_count + GUARD_DIGITS):
        pi = 426880 * 10005 * root * q / total
    return str(pi)[2 : 2 + digit_count].encode()


def exact() -> decimal._ContextManager:
    """Let numbers become as long as they are."""
    return rounded(decimal.MAX_PREC)


def rounded(digit_count: int) -> decimal._ContextManager:
    """Compute with so many digits."""
    largest, smallest = decimal.MAX_EMAX, decimal.MIN_EMIN
    return decimal.localcontext(prec=digit_count, Emax=largest, Emin=smallest)


def count_pairs(digits: bytes) -> np.ndarray:
    """Return how often each pair of neighbours occurs: first digit by second digit."""
    values = np.frombuffer(digits, np.uint8) - ord("0")
    pairs = 10 * values[:-1] + values[1:]
    return np.bincount(pairs, minlength=100).reshape(10, 10)


# -- what is found ------------------------------------------------------------------------


def deviations(counts: np.ndarray) -> np.ndarray:
    """Return how far counts are from all being equal, in standard deviations."""
    expected = counts.sum() / counts.size
    spread = np.sqrt(expected * (1 - 1 / counts.size))
    return (counts - expected) / spread


def draw(ones: np.ndarray, pairs: np.ndarray) -> Figure:
    """Draw the deviations of digits as bars, those of pairs as a map of colours."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    bars, heat = figure.subplots(1, 2, width_ratios=(4, 5))
    by_digit = deviations(ones)
    colors = ["tab:red" if value > 0 else "tab:blue" for value in by_digit]
    bars.bar(range(10), by_digit, color=colors)
    bars.axhspan(-1, 1, color="0.92", zorder=0)
    bars.axhline(0, color="0.3", linewidth=0.8)
    bars.set_xticks(range(10))
    bars.set_xlabel("digit")
    bars.set_ylabel("standard deviations from equally often")
    bars.set_title(f"each digit of {ones.sum():,} (grey: two of three are here)", loc="left")
    bars.spines[["top", "right"]].set_visible(False)

    by_pair = deviations(pairs)
    limit = max(3.0, np.abs(by_pair).max())
    image = heat.imshow(by_pair, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (first, second), value in np.ndenumerate(by_pair):
        color = "white" if abs(value) > 0.65 * limit else "0.2"
        heat.text(second, first, f"{value:.1f}", ha="center", va="center", color=color, size=8)
    heat.set_xticks(range(10))
    heat.set_yticks(range(10))
    heat.set_xlabel("second digit")
    heat.set_ylabel("first digit")
    heat.set_title(f"each pair: {pairs.mean():,.0f} of each are expected", loc="left")
    figure.colorbar(image, ax=heat, label="standard deviations from equally often")
    return figure


if __name__ == "__main__":
    common.run(main)
