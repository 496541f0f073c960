"""What the machine is, and how fast it happens to be right now.

The two speeds are taken before each round. When they differ within a run, its figures do for
a reason that is no peer's; when they differ between two runs, so do all figures.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

COPY_BYTES = 64 << 20
NOISE_MAX = 1.25  # of the slowest to the fastest round; above it a run says so


class Speed(NamedTuple):
    """How fast it copies memory, and runs a loop of Python."""

    copy_gb_s: float
    loop_ns: float


def measure_speed() -> Speed:
    source = np.ones(COPY_BYTES // 8)
    target = np.zeros_like(source)
    copy_s, loop_s, loop_length = [], [], 200_000
    for _ in range(5):
        begin_s = time.perf_counter()
        np.copyto(target, source)
        copy_s.append(time.perf_counter() - begin_s)
        begin_s = time.perf_counter()
        for _ in range(loop_length):
            pass
        loop_s.append(time.perf_counter() - begin_s)
    return Speed(
        COPY_BYTES / statistics.median(copy_s) / 1e9,
        statistics.median(loop_s) / loop_length * 1e9,
    )


def noise(speeds: list[Speed]) -> float:
    """Return how much the speeds differ between rounds, 1 for not at all."""
    return max(max(values) / min(values) for values in zip(*speeds, strict=True))


def describe_machine() -> dict[str, object]:
    return {
        "cores": len(psutil.Process().cpu_affinity()) if _has_affinity() else os.cpu_count(),
        "cpu": _cpu_name(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "python_build": f"{' '.join(platform.python_build())} {platform.python_compiler()}",
    }


def _has_affinity() -> bool:
    return hasattr(psutil.Process, "cpu_affinity")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
