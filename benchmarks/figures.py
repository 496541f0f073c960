"""The figures of one run, and the table that shows them.

Ratios compare medians with medians. Above 1 parallelz is better, whether the row is a time or
a rate; the best sample is shown beside the median, for what disturbs a machine only adds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.rows import ROWS, Row

OURS = "parallelz"


@dataclass
class Cell:
    """What one peer showed in one row.

    Attributes
    ----------
    samples
        One per round, in the unit of the row; none if it could not be measured.
    note
        What a reader should know; without samples, why there are none.
    """

    samples: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def best(self, row: Row) -> float:
        return min(self.samples) if row.is_lower_better else max(self.samples)


Figures = dict[str, dict[str, Cell]]  # by the row's key, then by the peer


def render(figures: Mapping[str, Mapping[str, Cell]], peers: Sequence[str]) -> str:
    """Return two tables in Markdown, of parallelz and of all peers, and the notes.

    Parameters
    ----------
    peers
        Without parallelz, in the order of the columns.
    """
    rows = [row for row in ROWS if row.key in figures]
    parts = [_own_table(rows, figures, peers)]
    if peers:
        parts.append(_peer_table(rows, figures, peers))
    notes = _notes(rows, figures, [OURS, *peers])
    return "\n\n".join([*parts, *([notes] if notes else [])]) + "\n"


def best_peer(
    row: Row, cells: Mapping[str, Cell], peers: Sequence[str]
) -> tuple[str, float] | None:
    """Return the peer with the best median of a row, and that; None if none was measured."""
    measured = {peer: cells[peer].median for peer in peers if _is_measured(cells, peer)}
    if not measured:
        return None
    choose = min if row.is_lower_better else max
    winner = choose(measured, key=measured.__getitem__)
    return winner, measured[winner]


def show(value: float) -> str:
    """Return a number with three digits that count, and commas.

    >>> show(0.04321), show(12.345), show(1234567.8)
    ('0.0432', '12.3', '1,234,568')
    """
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:.{digits}f}"


def _is_measured(cells: Mapping[str, Cell], peer: str) -> bool:
    return peer in cells and bool(cells[peer].samples)


def _own_table(
    rows: Sequence[Row], figures: Mapping[str, Mapping[str, Cell]], peers: Sequence[str]
) -> str:
    lines = [["row", "unit", "must", "median", "best", "x must", "best peer", "x peer"]]
    for row in rows:
        cells = figures[row.key]
        rival = best_peer(row, cells, peers)
        line = [row.title, row.unit, ("≤ " if row.is_lower_better else "≥ ")]
        line[-1] += show(row.must_reach)
        shown_rival = f"{show(rival[1])} {rival[0]}" if rival else "-"
        if _is_measured(cells, OURS):
            own = cells[OURS]
            line += [show(own.median), show(own.best(row))]
            line += [show_gain(row.gain(own.median, row.must_reach)), shown_rival]
            line += [show_gain(row.gain(own.median, rival[1])) if rival else "-"]
        else:
            line += ["-", "-", "-", shown_rival, "-"]
        lines.append(line)
    return _markdown(lines)


def show_gain(gain: float) -> str:
    """Return a ratio; far above 1 it says nothing, and memory that did not grow is infinite."""
    return "> 1,000" if gain > 1_000 else show(gain)


def _peer_table(
    rows: Sequence[Row], figures: Mapping[str, Mapping[str, Cell]], peers: Sequence[str]
) -> str:
    columns = [OURS, *peers]
    lines = [["median", "unit", *columns]]
    for row in rows:
        cells = figures[row.key]
        values = [
            show(cells[peer].median) if _is_measured(cells, peer) else "-" for peer in columns
        ]
        lines.append([row.title, row.unit, *values])
    return _markdown(lines)


def _notes(
    rows: Sequence[Row], figures: Mapping[str, Mapping[str, Cell]], peers: Sequence[str]
) -> str:
    """Return why cells are special or, by error, empty. What a peer just has not is clear."""
    return "\n".join(
        f"- {row.title}, {peer}: {figures[row.key][peer].note}"
        for row in rows
        for peer in peers
        if peer in figures[row.key] and figures[row.key][peer].note
    )


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def joined(line: Sequence[str]) -> str:
        texts = [
            text.ljust(width) if number < 2 else text.rjust(width)
            for number, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(texts)} |"

    rule = [
        "-" * width if number < 2 else "-" * (width - 1) + ":"
        for number, width in enumerate(widths)
    ]
    return "\n".join([joined(lines[0]), joined(rule), *map(joined, lines[1:])])
