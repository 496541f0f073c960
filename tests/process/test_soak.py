"""Memory depends on what is going on, not on what has been: a short soak."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are run from there, and not installed

from benchmarks.soak import Soak, run  # noqa: E402

pytestmark = [pytest.mark.process, pytest.mark.slow]

TASKS_COUNT = 60_000
WINDOW_COUNT = 5_000
GROWTH_MAX_MB = 12.0  # of 30,000 tasks: 400 bytes each; batches grow where much runs beside


@pytest.fixture(scope="module")
def soak() -> Soak:
    return run(TASKS_COUNT, WINDOW_COUNT, store="sqlite", period_s=0.05)


@pytest.mark.parametrize("name", ["client", "controller", "recorder", "engine 0", "engine 1"])
def test_memory_is_flat_after_the_first_half(soak: Soak, name: str) -> None:
    assert soak.growth_mb(name) <= GROWTH_MAX_MB, [
        round(sample.resident_mb[name], 1) for sample in soak.samples
    ]
