"""Runs examples as users do: as programs, each of which starts and stops its own cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 120.0
COLORS_MIN = 20  # even anti-aliased lines on white have more


def command(name: str, *options: object) -> list[str]:
    """Return the command that runs an example."""
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, options)]


def run_example(name: str, *options: object, **variables: str) -> str:
    """Run an example that must end well; return what it says."""
    ended = subprocess.run(
        command(name, *options),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=os.environ | variables,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


def rows_of(said: str, first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this name, as words."""
    lines = said.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == [first_column])
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line:
            break
        rows.append(line.split())
    return rows


def assert_is_picture(path: Path) -> None:
    """Check that a file is a picture with something on it."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = imread(path)
    height, width, _ = pixels.shape
    assert width > height > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > COLORS_MIN


def texts(rows: Sequence[Sequence[str]], place: int) -> list[str]:
    """Return a column."""
    return [row[place] for row in rows]
