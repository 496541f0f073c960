"""A search for good parameters that stops as soon as they are found.

A small neural network is to tell the points of two spirals apart. How well it learns to depends
on how wide its layers are, how fast it learns, and how much large weights are held back. Nobody
knows good values beforehand, so many random ones are tried, all of them submitted at once:

- ``priority``: who has seen networks before has an idea which rates of learning are likely to
  work. These go first;
- ``max_runtime``: a very wide network may take longer than anybody wants to wait. Then its task
  is stopped, and ends with `TaskTimeout`;
- ``retries``: a configuration that failed, be it that its engine died or that it took too long,
  has a second chance, on another engine.

Results are looked at in the order in which they come. When one is good enough the rest is
*cancelled*: what waits never runs, what runs is interrupted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from queue import SimpleQueue
from typing import NamedTuple

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parallelz import AsyncResult, LoadBalancedView, TaskAborted, TaskTimeout

WIDTHS, RATES, DECAYS = (4, 256), (1e-4, 1.0), (1e-6, 1e-1)
LIKELY_RATES = (3e-3, 1e-1)
POINTS, TURNS, NOISE = 300, 2.5, 0.02
LEARN_SEED, JUDGE_SEED = 1, 2  # the points to learn from, and others to judge by
SHOWN = 12

GOOD, ENDED, TOO_SLOW, CANCELLED = "good enough", "ended", "too slow", "cancelled"

Layers = list[tuple[np.ndarray, np.ndarray]]  # weights and offsets of each


class Configuration(NamedTuple):
    """What is tried."""

    width: int
    rate: float
    decay: float
    seed: int


class Trial(NamedTuple):
    """What came of a configuration.

    Attributes
    ----------
    accuracy
        Part of the points that were told right; None if it did not end.
    ended_s
        When, since the first submission.
    """

    configuration: Configuration
    outcome: str
    accuracy: float | None
    ran_s: float
    ended_s: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument("--trials", type=common.positive, default=150, help="default: 150")
    parser.add_argument("--steps", type=common.positive, default=300, help="of learning (300)")
    parser.add_argument("--target", type=float, default=0.99, help="accuracy (default: 0.99)")
    parser.add_argument(
        "--max-runtime", type=float, default=1.0, help="s per configuration (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=6, help="other configurations (6)")
    args = parser.parse_args(argv)
    configurations = random_configurations(args.trials, args.seed)

    with common.connected(args) as rc:
        rc[:].execute("import numpy", block=True)  # not part of what is measured
        lv = rc.load_balanced_view()
        lv.set_flags(max_runtime=args.max_runtime, retries=1, label="parameter search")
        started_s = time.time()
        results = search(lv, configurations, args.steps, args.target)
        took_s = time.time() - started_s
        trials = [
            to_trial(*pair, started_s, args.target)
            for pair in zip(configurations, results, strict=True)
        ]

    ended = sorted(
        (number for number, trial in enumerate(trials) if trial.accuracy is not None),
        key=lambda number: -(trials[number].accuracy or 0),
    )
    if not ended:
        raise common.ExampleError("all were too slow: give more time by --max-runtime")
    best = results[ended[0]].get()
    common.save(draw(trials, best, args.target), args.output, "parameter_search.png")
    common.print_table(
        ("width", "rate", "decay", "accuracy", "ran s", "outcome"),
        [
            (
                trial.configuration.width,
                f"{trial.configuration.rate:.4f}",
                f"{trial.configuration.decay:.6f}",
                f"{trial.accuracy:.3f}",
                f"{trial.ran_s:.2f}",
                trial.outcome,
            )
            for trial in (trials[number] for number in ended[:SHOWN])
        ],
    )
    counts = Counter(trial.outcome for trial in trials)
    print(f"\nThe best {min(SHOWN, len(ended))} of {len(trials)} configurations:", end=" ")
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in counts) + ".")
    ran_s = sum(trials[number].ran_s for number in ended)
    print(f"It took {took_s:.2f} s; those that ended ran for {ran_s:.2f} s.")
    if not counts[GOOD]:
        print(f"None of them has an accuracy of {args.target:g}.")


def random_configurations(count: int, seed: int) -> list[Configuration]:
    """Return configurations that are spread evenly by their orders of magnitude."""
    random = np.random.default_rng(seed)

    def between(limits: tuple[float, float]) -> float:
        return float(np.exp(random.uniform(*np.log(limits))))

    return [
        Configuration(round(between(WIDTHS)), between(RATES), between(DECAYS), number)
        for number in range(count)
    ]


def search(
    lv: LoadBalancedView, configurations: Sequence[Configuration], steps: int, target: float
) -> list[AsyncResult]:
    """Try configurations until one is good enough; return all results when all have ended."""
    ended: SimpleQueue[AsyncResult] = SimpleQueue()
    results = []
    for each in configurations:
        is_likely = LIKELY_RATES[0] <= each.rate <= LIKELY_RATES[1]
        with lv.temp_flags(priority=1 if is_likely else 0):
            result = lv.apply_async(learn, *each, steps)
        result.add_done_callback(ended.put)
        results.append(result)
    judge = spirals(JUDGE_SEED)
    for _ in results:
        result = ended.get()
        if result.successful() and accuracy(result.get(), *judge) >= target:
            lv.cancel(results)
            lv.wait(results)
            break
    return results


def to_trial(
    configuration: Configuration, result: AsyncResult, started_s: float, target: float
) -> Trial:
    """Return what came of a configuration; raise what should not have happened."""
    found, outcome = None, ENDED
    try:
        found = float(accuracy(result.get(), *spirals(JUDGE_SEED)))
        outcome = GOOD if found >= target else ENDED
    except TaskTimeout:
        outcome = TOO_SLOW
    except TaskAborted:
        outcome = CANCELLED
    ended = result.completed or result.received  # who was stopped has no time of its own
    return Trial(
        configuration, outcome, found, result.ran_s or 0.0, ended.timestamp() - started_s
    )


# -- what the engines do ------------------------------------------------------------------


def learn(width: int, rate: float, decay: float, seed: int, steps: int) -> Layers:
    """Return the layers of a network that has learned from the points for some steps.

    It has two layers of `width` between its inputs and its output. In each step all weights go
    a bit in the direction in which the error becomes smaller, each by about `rate` ("Adam").
    """
    random = np.random.default_rng(seed)
    points, kinds = spirals(LEARN_SEED)
    layers = [
        (random.normal(0, before**-0.5, (before, after)), random.normal(0, 0.3, after))
        for before, after in ((2, width), (width, width), (width, 1))
    ]
    means = [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]
    squares = [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]
    for step in range(1, steps + 1):
        outputs = [points]
        for weights, offsets in layers:
            outputs.append(np.tanh(outputs[-1] @ weights + offsets))
        error = (outputs[-1] - kinds[:, np.newaxis]) / len(points)
        for n in (2, 1, 0):
            error = error * (1 - outputs[n + 1] ** 2)
            slopes = outputs[n].T @ error + decay * layers[n][0], error.sum(axis=0)
            error = error @ layers[n][0].T
            for value, slope, mean, square in zip(
                layers[n], slopes, means[n], squares[n], strict=True
            ):
                mean += 0.1 * (slope - mean)
                square += 0.01 * (slope**2 - square)
                direction = mean / (1 - 0.9**step)
                value -= rate * direction / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return layers


def spirals(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points on two spirals, and for each of them which one: 1 or -1."""
    random = np.random.default_rng(seed)
    outward = np.sqrt(random.uniform(0.05, 1, POINTS))
    which = random.integers(0, 2, POINTS)
    angle = 2 * np.pi * TURNS * outward + np.pi * which
    points = (outward * np.array([np.cos(angle), np.sin(angle)])).T
    return points + random.normal(0, NOISE, points.shape), 2.0 * which - 1


# -- what is found ------------------------------------------------------------------------


def output_of(layers: Layers, points: np.ndarray) -> np.ndarray:
    """Return what a network says to points, from -1 to 1."""
    for weights, offsets in layers:
        points = np.tanh(points @ weights + offsets)
    return points[:, 0]


def accuracy(layers: Layers, points: np.ndarray, kinds: np.ndarray) -> float:
    """Return which part of the points a network tells right."""
    return float(((output_of(layers, points) > 0) == (kinds > 0)).mean())


def draw(trials: Sequence[Trial], best: Layers, target: float) -> Figure:
    """Draw what was tried, when what was found, and how the best network sees the plane."""
    figure = Figure(figsize=(16.5, 5.4), layout="constrained")
    tried, course, plane = figure.subplots(1, 3)
    _draw_tried(tried, trials)
    _draw_course(course, trials, target)
    _draw_plane(plane, best)
    return figure


def _draw_tried(axes: Axes, trials: Sequence[Trial]) -> None:
    marks = {
        CANCELLED: {"marker": "x", "color": "0.75", "s": 24, "linewidths": 1},
        TOO_SLOW: {"marker": "^", "color": "black", "s": 36},
        ENDED: {"marker": "o", "s": 46},
        GOOD: {"marker": "*", "s": 260, "edgecolors": "black", "linewidths": 0.8},
    }
    for outcome, style in marks.items():
        those = [trial for trial in trials if trial.outcome == outcome]
        if not those:
            continue
        if outcome in (ENDED, GOOD):
            style["c"] = [trial.accuracy for trial in those]
            style |= {"cmap": "viridis", "vmin": 0.5, "vmax": 1.0}
        shown = axes.scatter(
            [trial.configuration.rate for trial in those],
            [trial.configuration.width for trial in those],
            label=f"{outcome}: {len(those)}",
            **style,
        )
    axes.figure.colorbar(shown, ax=axes, label="accuracy")
    axes.axvspan(*LIKELY_RATES, color="0.95", zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("rate of learning (grey: tried first)")
    axes.set_ylabel("width of the layers")
    axes.set_title(f"{len(trials)} configurations", loc="left")
    axes.legend(loc="upper left", fontsize="small")


def _draw_course(axes: Axes, trials: Sequence[Trial], target: float) -> None:
    ended = sorted(
        (trial.ended_s, trial.accuracy) for trial in trials if trial.accuracy is not None
    )
    times, found = zip(*ended, strict=True)
    axes.plot(times, found, "o", color="tab:blue", alpha=0.6, label="a configuration")
    axes.step(
        times, np.maximum.accumulate(found), where="post", color="tab:orange", label="the best"
    )
    axes.axhline(target, color="0.4", linestyle="--", linewidth=1, label="good enough")
    axes.set_xlabel("ended (s after the first was submitted)")
    axes.set_ylabel("accuracy")
    axes.set_title("results as they came", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize="small")


def _draw_plane(axes: Axes, best: Layers) -> None:
    side = np.linspace(-1.15, 1.15, 300)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    image = output_of(best, grid).reshape(300, 300)
    extent = (side[0], side[-1], side[0], side[-1])
    axes.imshow(image, extent=extent, origin="lower", cmap="RdBu_r", alpha=0.75)
    points, kinds = spirals(JUDGE_SEED)
    for kind, color in ((1, "darkred"), (-1, "navy")):
        axes.scatter(*points[kinds == kind].T, s=14, color=color, edgecolors="white", lw=0.4)
    right = accuracy(best, points, kinds)
    axes.set_title(f"the best one tells {100 * right:.1f} % of unseen points right", loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


if __name__ == "__main__":
    common.run(main)
