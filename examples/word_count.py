"""Map and reduce: the words of the documentation that comes with Python itself.

The text is that of the docstrings in the standard library and of the language reference behind
``help()``: a few megabytes of English that are on every machine with Python.

*Map*: an engine takes some files and returns how often each word occurs in them. It reads the
files itself, so only their names travel there, and only counts travel back.

*Reduce*: counts are added pair by pair. `reduce` lets each engine add a run of neighbours, then
combines what they return; all it needs to know is that addition is associative.

The same is done without a cluster, and must give the same counts. The picture shows them beside
a law that is found in any large text: the second word occurs half as often as the first, the
tenth a tenth as often.
"""

from __future__ import annotations

import ast
import operator
import re
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import common
from matplotlib.figure import Figure

TOPICS = "pydoc_data/topics.py"
NOT_ENGLISH = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3"}
FILES_PER_TASK = 8


def main(argv: Sequence[str] | None = None) -> None:
    """Run the example."""
    parser = common.new_parser(__doc__)
    parser.add_argument(
        "--files", type=common.positive, metavar="N", help="only the N largest (default: all)"
    )
    parser.add_argument(
        "--top", type=common.positive, default=15, metavar="N", help="words shown (default: 15)"
    )
    args = parser.parse_args(argv)
    root = Path(sysconfig.get_path("stdlib"))
    files = text_files(root)[: args.files]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{len(files):,} files, {megabytes:.1f} MB, in {root}")
    chunks = [files[n : n + FILES_PER_TASK] for n in range(0, len(files), FILES_PER_TASK)]

    with common.connected(args) as rc:
        lv = rc.load_balanced_view()
        started_s = time.perf_counter()
        mapped = lv.map_async(count_words, chunks)
        common.watch(mapped)
        counts = lv.reduce(operator.add, mapped.get())
        parallel_s = time.perf_counter() - started_s
        engine_count = len(rc)

    started_s = time.perf_counter()
    expected = reduce(operator.add, map(count_words, chunks))
    serial_s = time.perf_counter() - started_s
    common.check("the counts differ from those without a cluster", counts == expected)

    common.save(draw(counts, args.top), args.output, "word_count.png")
    total = counts.total()
    rows = [
        (rank, word, f"{count:,}", f"{100 * count / total:.2f}")
        for rank, (word, count) in enumerate(counts.most_common(args.top), 1)
    ]
    common.print_table(("rank", "word", "occurs", "% of all"), rows)
    print(f"\n{total:,} words, {len(counts):,} different ones; the same without a cluster.")
    print(
        f"{engine_count} engines: {parallel_s:.2f} s, this process alone: {serial_s:.2f} s,"
        f" ratio {serial_s / parallel_s:.2f}"
    )


def text_files(root: Path) -> list[Path]:
    """Return the files to read, the largest first: so that all engines end together."""
    files = [
        path
        for path in root.rglob("*.py")
        if not NOT_ENGLISH.intersection(path.relative_to(root).parts)
    ]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def count_words(paths: Sequence[Path]) -> Counter[str]:
    """Return how often each word occurs in the docstrings of files of Python."""
    counts: Counter[str] = Counter()
    for path in paths:
        for text in texts_in(path):
            counts.update(re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower()))
    return counts


def texts_in(path: Path) -> list[str]:
    """Return the docstrings in a file; of the language reference, its articles."""
    tree = ast.parse(path.read_bytes())
    if path.match(TOPICS):
        articles = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        return [value for value in articles if isinstance(value, str)]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = (node for node in ast.walk(tree) if isinstance(node, documented))
    return [text for text in map(ast.get_docstring, nodes) if text]


def draw(counts: Counter[str], top: int) -> Figure:
    """Draw the words that occur most, and all of them by rank."""
    figure = Figure(figsize=(12, 6), layout="constrained")
    bars, ranks = figure.subplots(1, 2, width_ratios=(2, 3))
    words, numbers = zip(*counts.most_common(top), strict=True)
    bars.barh(words, numbers, color="tab:blue")
    bars.invert_yaxis()
    bars.set_xlabel("occurs")
    bars.xaxis.set_major_formatter("{x:,.0f}")
    bars.set_title(f"the {len(words)} words that occur most", loc="left")
    bars.spines[["top", "right"]].set_visible(False)

    ordered = sorted(counts.values(), reverse=True)
    places = range(1, len(ordered) + 1)
    ranks.loglog(places, ordered, color="tab:blue", linewidth=2, label="counted")
    ranks.loglog(
        places,
        [ordered[0] / place for place in places],
        color="0.5",
        linestyle="--",
        label="Zipf: first / rank",
    )
    common_words = counts.most_common()
    for place in (1, 10, 100, 1000, 10_000):
        if place <= len(common_words):
            word, count = common_words[place - 1]
            ranks.plot(place, count, "o", color="tab:orange", markersize=5)
            ranks.annotate(
                word, (place, count), (5, 7), textcoords="offset points", color="tab:orange"
            )
    ranks.set_xlabel("rank")
    ranks.set_ylabel("occurs")
    ranks.set_xlim(0.7, 2 * len(ordered))
    ranks.set_ylim(0.7, 2 * ordered[0])
    ranks.grid(alpha=0.25)
    ranks.legend(frameon=False)
    ranks.set_title(f"all {len(counts):,} different words of {counts.total():,}", loc="left")
    return figure


if __name__ == "__main__":
    common.run(main)
