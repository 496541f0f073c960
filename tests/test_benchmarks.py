"""The benchmarks' table, on figures made up."""

from __future__ import annotations

from benchmarks.rows import ROWS
from benchmarks.table import number, render


def test_table_shows_medians_ratios_and_what_is_reached() -> None:
    table = render(
        {
            "parallelz": {"submit": [20_000.0, 40_000.0, 60_000.0], "start": [0.5]},
            "pool": {"submit": [10_000.0]},
            "dask": {"start": [1.0]},
        }
    )
    header, _, start, submit = table.splitlines()
    assert header.split("|")[-3:-1] == [" pool ", " dask "]
    assert [c.strip() for c in submit.split("|")[2:6]] == [
        "40,000",
        "60,000",
        "30,000 ✓",
        "4.0",
    ]
    assert [c.strip() for c in start.split("|")[2:6]] == ["0.5", "0.5", "0.35", "2.0"]


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(n) for n in (0.21345, 31234.5, 400, 5e6)] == [
        "0.213",
        "31,200",
        "400",
        "5,000,000",
    ]


def test_better_is_more_or_less_as_the_row_says() -> None:
    start = next(row for row in ROWS if row.key == "start")
    submit = next(row for row in ROWS if row.key == "submit")
    assert start.ratio(0.5, 1.0) == 2.0
    assert submit.ratio(20.0, 10.0) == 2.0
