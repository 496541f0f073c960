"""Figures -> a table: median and best of each row, ratios to the best peer and to the goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.rows import PEERS, ROWS, Row

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""By peer and row: one figure for each repetition."""


def render(figures: Figures) -> str:
    """Return the table as Markdown."""
    peers = [peer for peer in PEERS if peer in figures]
    header = ["", "parallelz", "best", "must reach", "times better", *peers[1:]]
    lines = [header, ["---"] + ["--:"] * (len(header) - 1)]
    lines += [_line(row, figures, peers) for row in ROWS if _measured(row, figures)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _measured(row: Row, figures: Figures) -> bool:
    return any(row.key in rows for rows in figures.values())


def _line(row: Row, figures: Figures, peers: Sequence[str]) -> list[str]:
    ours = figures.get("parallelz", {}).get(row.key, ())
    cells = [f"{row.title}, {row.unit}"]
    cells.append(number(statistics.median(ours)) if ours else "")
    cells.append(number((max if row.more_is_better else min)(ours)) if ours else "")
    reached = bool(ours) and row.ratio(statistics.median(ours), row.must) >= 1
    cells.append(f"{number(row.must)}{' ✓' if reached else ''}")
    medians = {
        peer: statistics.median(values)
        for peer in peers
        if peer != "parallelz" and (values := figures[peer].get(row.key))
    }
    best = min(medians.values(), key=lambda value: row.ratio(1, value), default=0.0)
    cells.append(f"{row.ratio(statistics.median(ours), best):.1f}" if ours and best else "")
    cells += [number(medians[peer]) if peer in medians else "" for peer in peers[1:]]
    return cells


def number(value: float) -> str:
    """Return a figure with three digits that count.

    >>> number(0.2134), number(31234.5)
    ('0.213', '31,200')
    """
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"
