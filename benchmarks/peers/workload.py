"""What the workers are asked to do. Importable there, so that each peer sends a name only."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np

_kept: dict[int, np.ndarray] = {}


def noop(x: int) -> int:
    return x


def number_after(number: int, *earlier: int) -> int:
    """Return `number`; what the tasks before it returned only makes it wait."""
    return number


def meet(meeting: tuple[str, int]) -> None:
    """Return once so many calls are running at the same time that know this directory."""
    directory, count = meeting
    handle, _ = tempfile.mkstemp(dir=directory)
    os.close(handle)
    while len(os.listdir(directory)) < count:
        time.sleep(0.001)


def hold(gate: str) -> None:
    """Occupy a worker until the file `gate` is gone."""
    path = Path(gate)
    while path.exists():
        time.sleep(0.01)


def make_array(byte_count: int) -> np.ndarray:
    """Return float64 that differ, and that no other call has returned."""
    return np.arange(byte_count // 8, dtype=np.float64) + random.random()


def fetch(byte_count: int) -> np.ndarray:
    """Return an array that this worker has had since it was first asked."""
    if byte_count not in _kept:
        _kept[byte_count] = make_array(byte_count)
    return _kept[byte_count]


def random_graph(node_count: int) -> list[tuple[int, ...]]:
    """Return up to 3 earlier nodes for each node; the same graph for everybody."""
    draw = random.Random(2011)
    return [
        tuple(sorted(draw.sample(range(node), min(node, draw.randint(0, 3)))))
        for node in range(node_count)
    ]
