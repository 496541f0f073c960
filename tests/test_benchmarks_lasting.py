"""What the benchmarks of memory and of history say of figures, without measuring any."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are run from there, and not installed

from benchmarks import history, soak  # noqa: E402
from benchmarks.history import Measured, Turn  # noqa: E402
from benchmarks.soak import GROWTH_MAX_MB, Sample, Soak  # noqa: E402

CPU_US = dict.fromkeys(history.PARTS, 1.0)


def soak_of(**growth_mb: float) -> Soak:
    """Return a soak in which each process grows by so much in a line, and breathes."""
    found = Soak(1000, 100, "sqlite")
    for number in range(101):
        breath_mb = 30.0 if number % 10 == 5 else 0.0
        resident_mb = {n: 50 + mb * number / 100 + breath_mb for n, mb in growth_mb.items()}
        found.samples.append(Sample(float(number), number * 10, resident_mb))
    return found


def measured(store: str, *rates: float) -> Measured:
    turns = [Turn(rate, 0.002, CPU_US) for rate in rates]
    return Measured(store, None, {}, turns)  # type: ignore[arg-type] - it has had its turns


def test_a_process_that_only_breathes_is_flat() -> None:
    found = soak_of(client=0.0, recorder=0.0)
    assert found.growing() == []
    assert found.growth_mb("recorder") == pytest.approx(0.0)
    assert "flat: nothing grew" in soak.render(found)
    assert found.tasks_per_s == pytest.approx(10.0)


def test_a_process_that_grows_with_what_has_been_is_named() -> None:
    found = soak_of(client=0.0, controller=4 * GROWTH_MAX_MB)
    assert found.growing() == ["controller"]
    assert "NOT FLAT: controller grew" in soak.render(found)
    entry = soak.entry(found, datetime(2026, 11, 25, tzinfo=UTC))
    assert entry["second_half_mb"]["client"] == 0.0  # type: ignore[index]


@pytest.mark.slow
def test_a_soak_can_be_drawn(tmp_path: Path) -> None:
    soak.plot(soak_of(client=0.0, controller=1.0), tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_labels_do_not_cover_each_other() -> None:
    heights = soak._apart({"a": 10.0, "b": 10.5, "c": 50.0}, gap=3.0)
    assert heights == {"a": 10.0, "b": 13.0, "c": 50.0}


def test_stores_are_compared_within_each_round() -> None:
    # The machine was slow in the second round, for both.
    found = [measured("none", 100, 50, 100), measured("sqlite", 90, 45, 85)]
    assert history.ratios(found) == {"none": 1.0, "sqlite": 0.9}
    assert "sqlite: 90% of none; must reach 80%: enough" in history.render(found, 1000)
    slow = [measured("none", 100), measured("sqlite", 70)]
    assert "NOT ENOUGH" in history.render(slow, 1000)


def test_without_a_cluster_that_keeps_nothing_there_is_nothing_to_compare() -> None:
    assert history.ratios([measured("sqlite", 70)]) == {}
    assert "of none;" not in history.render([measured("sqlite", 70)], 1000)


def test_the_password_of_a_database_is_not_shown() -> None:
    found = [measured("none", 100), measured("postgresql://me:secret@host/db", 50)]
    text = history.render(found, 1000)
    assert "postgresql" in text
    assert "secret" not in text + str(history.entry(found, 1000, datetime.now(UTC)))
