"""The benchmarks' own promises: what the table says of figures, without measuring any."""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are run from there, and not installed

from benchmarks import parts  # noqa: E402
from benchmarks.__main__ import build_parser, ledger_entry, take_in  # noqa: E402
from benchmarks.figures import Cell, Figures, best_peer, render, show  # noqa: E402
from benchmarks.machine import Speed, noise  # noqa: E402
from benchmarks.profile import parse_stacks, render_profile  # noqa: E402
from benchmarks.rows import ROW_BY_KEY, ROWS  # noqa: E402
from benchmarks.runner import Outcome  # noqa: E402

PEERS = ["pool", "dask"]


@pytest.fixture
def figures() -> Figures:
    return {
        "round_trip": {
            "parallelz": Cell([500.0, 400.0, 900.0]),
            "pool": Cell([250.0]),
            "dask": Cell([10_000.0], "slow by its timers"),
        },
        "submit": {"parallelz": Cell([60_000.0]), "pool": Cell(), "dask": Cell([500.0])},
        "dag": {"parallelz": Cell([], "FAILED: exit code 1"), "pool": Cell()},
    }


def cells_of(table: str, start: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_time_is_better_when_lower(figures: Figures) -> None:
    cells = cells_of(render(figures, PEERS), "round trip of a no-op")
    assert cells[1:] == ["µs", "≤ 400", "500", "400", "0.800", "250 pool", "0.500"]


def test_a_rate_is_better_when_higher(figures: Figures) -> None:
    cells = cells_of(render(figures, PEERS), "separately submitted")
    assert cells[1:] == ["tasks/s", "≥ 30,000", "60,000", "60,000", "2.00", "500 dask", "120"]


def test_what_was_not_measured_is_a_dash_and_a_failure_is_told(figures: Figures) -> None:
    table = render(figures, PEERS)
    assert cells_of(table, "DAG")[3:] == ["-", "-", "-", "-", "-"]
    assert "- DAG, 2,000 tasks, up to 3 dependencies, parallelz: FAILED: exit code 1" in table
    assert "dask: slow by its timers" in table


def test_the_second_table_has_a_column_for_each_peer(figures: Figures) -> None:
    table = render(figures, PEERS).split("\n\n")[1]
    assert cells_of(table, "median") == ["median", "unit", "parallelz", "pool", "dask"]
    assert cells_of(table, "separately submitted")[2:] == ["60,000", "-", "500"]


def test_without_peers_there_is_one_table(figures: Figures) -> None:
    assert render(figures, []).count("| unit ") == 1


def test_lines_of_a_table_are_equally_long(figures: Figures) -> None:
    for table in render(figures, PEERS).split("\n\n")[:2]:
        assert len({len(line) for line in table.strip().splitlines()}) == 1


def test_the_best_peer_has_the_best_median() -> None:
    cells = {"pool": Cell([1.0, 9.0, 9.0]), "dask": Cell([5.0]), "loky": Cell()}
    assert best_peer(ROW_BY_KEY["start"], cells, ["pool", "dask", "loky"]) == ("dask", 5.0)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_memory_that_did_not_grow_is_infinitely_better(value: float) -> None:
    assert ROW_BY_KEY["memory_ended"].gain(value, 10.0) == math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04321, "0.0432"), (9.876, "9.88"), (12.34, "12.3"), (1e6, "1,000,000")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert show(value) == text


def test_a_failed_peer_keeps_what_it_had_measured() -> None:
    figures: Figures = {"start": {}, "submit": {}, "dag": {}}
    done = {"start": {"value": 0.3, "note": ""}, "submit": {"unsupported": "no such thing"}}
    take_in(figures, "pool", list(figures), Outcome(done, {}, "exit code 1: it broke"))
    assert figures["start"]["pool"].samples == [0.3]
    assert figures["submit"]["pool"] == Cell()
    assert figures["dag"]["pool"].note == "FAILED: exit code 1: it broke"


def test_a_ledger_entry_has_what_a_comparison_needs(figures: Figures) -> None:
    args = argparse.Namespace(quick=False, repeat=3)
    begun = datetime(2026, 11, 24, tzinfo=UTC)
    entry = ledger_entry(begun, args, figures, {"dask": {"dask": "1"}}, [Speed(7.0, 12.0)])
    assert entry["date"] == "2026-11-24T00:00:00+00:00"
    assert {"machine", "speeds", "versions", "commit", "repeat"} <= entry.keys()
    measured = entry["figures"]
    assert isinstance(measured, dict)
    assert measured["round_trip"]["peers"]["pool"] == {"samples": [250.0], "note": ""}


def test_parts_are_measured_as_named_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one() -> dict[str, object]:
        """the first part"""
        return {"seconds": 1.234, "skipped": "not here"}

    monkeypatch.setattr(parts, "RESULTS_DIR", tmp_path)
    assert parts.measure_parts("some", {"one": one, "two": one}, ["one", "--json"]) == 0
    (path,) = tmp_path.glob("some-*.json")
    entry = json.loads(path.read_text())
    assert entry["figures"] == {"one": {"seconds": 1.234, "skipped": "not here"}}
    assert "cores" in entry["machine"]
    shown = capsys.readouterr().out
    assert "-- one: the first part\n" in shown
    assert "1.23\n" in shown
    with pytest.raises(SystemExit):
        parts.measure_parts("some", {"one": one}, ["three"])
    assert "there is no part 'three'; there are one" in capsys.readouterr().err


def test_noise_is_how_much_the_machine_itself_changed() -> None:
    assert noise([Speed(8.0, 10.0), Speed(6.4, 10.0)]) == pytest.approx(1.25)
    assert noise([Speed(8.0, 10.0)]) == 1.0


def test_all_is_measured_unless_something_is_chosen() -> None:
    assert build_parser().parse_args([]).only == list(ROWS)
    args = build_parser().parse_args(["--only", "dag,start", "--peers", "none"])
    assert [row.key for row in args.only] == ["start", "dag"]
    assert args.peers == []


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--peers", "pool,celery"])
    assert "there is no peer 'celery'" in capsys.readouterr().err


def test_a_profile_adds_up_lines_of_a_function() -> None:
    text = "main (a.py:1);work (b.py:5) 30\nmain (a.py:1);work (b.py:7) 10\nmain (a.py:2) 60\n"
    shown = render_profile(parse_stacks(text), 5).splitlines()
    assert shown[0].strip() == "100 samples"
    assert shown[2].split() == ["60.0%", "100.0%", "main", "(a.py)"]
    assert shown[3].split() == ["40.0%", "40.0%", "work", "(b.py)"]
