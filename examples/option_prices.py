"""Prices of options by simulation, over a grid of strikes and volatilities.

A call is the right to buy a share at the *strike*. What it is worth at the end depends, for a
*European* option, on the share's price on the last day; for an *Asian* one on the mean of its
prices on all days. Both are estimated by simulating many courses of the share, and for each
estimate it is known how far it is likely to be off: its standard error.

The points of the grid have nothing to do with each other: a balanced view maps over them, and
whichever engine is free takes the next. Each point has random numbers of its own that depend on
nothing but the seed and its place, so the result is the same however many engines there are.

For European options there is an exact formula, that of Black and Scholes. The estimates must
agree with it within what their standard errors allow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SPOT, RATE, YEARS, DAYS = 100.0, 0.05, 1.0, 260  # price today; interest; until the end
STRIKES, VOLATILITIES = (80.0, 120.0), (0.1, 0.45)
PATHS_AT_ONCE = 1_000  # as many as fit into the caches of a processor
ERRORS_MAX = 5.0  # standard errors; one estimate in two million is farther off by chance


class Market(NamedTuple):
    """What all options have in common."""

    spot: float
    rate: float
    years: float
    days: int


class Estimate(NamedTuple):
    """Prices of two calls, and their standard errors."""

    european: float
    european_error: float
    asian: float
    asian_error: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument("--strikes", type=common.positive, default=11, help="default: 11")
    parser.add_argument("--volatilities", type=common.positive, default=8, help="default: 8")
    parser.add_argument(
        "--paths", type=common.positive, default=10_000, help="simulated per point (10,000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="other random numbers (1)")
    args = parser.parse_args(argv)
    if args.paths < 2 or args.strikes < 2 or args.volatilities < 2:
        parser.error("a surface needs 2 strikes and 2 volatilities, an error 2 paths")

    strikes = np.linspace(*STRIKES, args.strikes)
    volatilities = np.linspace(*VOLATILITIES, args.volatilities)
    market = Market(SPOT, RATE, YEARS, DAYS)
    grid = [(float(k), float(v)) for v in volatilities for k in strikes]
    seeds = np.random.SeedSequence(args.seed).spawn(len(grid))

    with common.connected(args) as rc:
        lv = rc.load_balanced_view()
        rc[:].execute("import numpy", block=True)  # not part of what is measured
        started_s = time.perf_counter()
        pending = lv.map_async(
            price, [market] * len(grid), *zip(*grid, strict=True), seeds,
            [args.paths] * len(grid),
        )  # fmt: skip
        common.watch(pending)
        estimates = [Estimate(*each) for each in pending.get()]
        parallel_s = time.perf_counter() - started_s
        engine_count = len(rc)

    started_s = time.perf_counter()
    alone = [price(market, *grid[0], seeds[0], args.paths) for _ in range(3)]
    serial_s = (time.perf_counter() - started_s) / 3 * len(grid)
    common.check("the price depends on where it is computed", tuple(estimates[0]) == alone[0])

    exact = [black_scholes(market, *point) for point in grid]
    off = [
        (each.european - right) / each.european_error
        for each, right in zip(estimates, exact, strict=True)
    ]
    worst = max(map(abs, off))
    common.check(f"a price is off by {worst:.1f} standard errors", worst < ERRORS_MAX)

    shape = (len(volatilities), len(strikes))
    common.save(
        draw(strikes, volatilities, np.reshape(estimates, (*shape, 4)), np.reshape(off, shape)),
        args.output,
        "option_prices.png",
    )
    middle = len(volatilities) // 2 * len(strikes)
    row = range(middle, middle + len(strikes))
    common.print_table(
        ("strike", "Black-Scholes", "European", "error", "off", "Asian", "error"),
        [
            (
                f"{grid[n][0]:.1f}",
                f"{exact[n]:.3f}",
                f"{estimates[n].european:.3f}",
                f"{estimates[n].european_error:.3f}",
                f"{off[n]:+.2f}",
                f"{estimates[n].asian:.3f}",
                f"{estimates[n].asian_error:.3f}",
            )
            for n in row
        ],
    )
    print(f"\nThese are for a volatility of {grid[middle][1]:.2f}; off is in standard errors.")
    print(f"{len(grid)} points of {args.paths:,} paths: the worst is off by {worst:.2f}.")
    print(
        f"{engine_count} engines: {parallel_s:.2f} s; alone it would take about"
        f" {serial_s:.2f} s, by three points; ratio {serial_s / parallel_s:.2f}"
    )


def price(
    market: tuple[float, float, float, int],
    strike: float,
    volatility: float,
    seed: np.random.SeedSequence,
    path_count: int,
) -> tuple[float, float, float, float]:
    """Return the price of a European call and its standard error; those of an Asian one."""
    spot, rate, years, day_count = market
    random = np.random.default_rng(seed)
    day = years / day_count
    drift = (rate - volatility**2 / 2) * day
    european, asian = [], []
    for start in range(0, path_count, PATHS_AT_ONCE):
        shape = (min(PATHS_AT_ONCE, path_count - start), day_count)
        steps = drift + volatility * math.sqrt(day) * random.standard_normal(shape)
        shares = spot * np.exp(np.cumsum(steps, axis=1))
        european.append(np.maximum(shares[:, -1] - strike, 0))
        asian.append(np.maximum(shares.mean(axis=1) - strike, 0))
    found: list[float] = []
    for worth in (np.concatenate(european), np.concatenate(asian)):
        today = math.exp(-rate * years) * worth  # money that comes later is worth less
        found += today.mean(), today.std(ddof=1) / math.sqrt(path_count)
    return found[0], found[1], found[2], found[3]


def black_scholes(market: Market, strike: float, volatility: float) -> float:
    """Return the exact price of a European call."""
    spread = volatility * math.sqrt(market.years)
    later = strike * math.exp(-market.rate * market.years)
    d = math.log(market.spot / later) / spread + spread / 2
    below = NormalDist().cdf
    return market.spot * below(d) - later * below(d - spread)


def draw(
    strikes: np.ndarray, volatilities: np.ndarray, prices: np.ndarray, off: np.ndarray
) -> Figure:
    """Draw a surface for each kind of option, and how far the European ones are off."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    x, y = np.meshgrid(strikes, volatilities)
    highest = prices[..., 0].max()
    for place, (column, name) in enumerate(((0, "European"), (2, "Asian")), 1):
        axes = figure.add_subplot(1, 3, place, projection="3d")
        axes.plot_surface(
            x, y, prices[..., column], cmap="viridis", vmin=0, vmax=highest, linewidth=0.2,
            edgecolor="white",
        )  # fmt: skip
        axes.set_zlim(0, highest)
        axes.locator_params(nbins=5)
        axes.set_xlabel("strike", labelpad=8)
        axes.set_ylabel("volatility per year", labelpad=8)
        axes.view_init(elev=24, azim=-55)
        axes.set_box_aspect(None, zoom=0.9)
        axes.set_title(f"price of the {name} call")
    _draw_off(figure.add_subplot(1, 3, 3), strikes, volatilities, off)
    return figure


def _draw_off(
    axes: Axes, strikes: np.ndarray, volatilities: np.ndarray, off: np.ndarray
) -> None:
    image = axes.pcolormesh(strikes, volatilities, off, cmap="RdBu_r", vmin=-3, vmax=3)
    axes.set_xlabel("strike")
    axes.set_ylabel("volatility per year")
    axes.set_title("European call, estimate minus exact price")
    figure = axes.figure
    figure.colorbar(image, ax=axes, label="standard errors", shrink=0.9)


if __name__ == "__main__":
    common.run(main)
