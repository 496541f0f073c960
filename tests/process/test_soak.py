"""Memory depends on what is going on, not on what has been: a short soak."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are run from there, and not installed

from benchmarks.soak import Soak, run  # noqa: E402

pytestmark = [pytest.mark.process, pytest.mark.slow]

TASKS_COUNT = 40_000
WINDOW_COUNT = 4_000
GROWTH_MAX_MB = 6.0  # of 20,000 tasks: 300 bytes each; the allocators' own breath is about 3 MB
RECORDER_GROWTH_MAX_MB = 12.0  # what its journal holds at a time breathes by as much more


@pytest.fixture(scope="module")
def soak() -> Soak:
    return run(TASKS_COUNT, WINDOW_COUNT, store="sqlite", period_s=0.05)


@pytest.mark.parametrize("name", ["client", "controller", "recorder", "engine 0", "engine 1"])
def test_memory_is_flat_after_the_first_half(soak: Soak, name: str) -> None:
    most_mb = RECORDER_GROWTH_MAX_MB if name == "recorder" else GROWTH_MAX_MB
    assert soak.growth_mb(name) <= most_mb, [
        round(sample.resident_mb[name], 1) for sample in soak.samples
    ]
