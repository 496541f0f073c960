"""The wave equation in two dimensions, on a rectangle of a larger grid.

This file knows neither clusters nor sockets. `wave_sockets.py` imports it to solve the whole
grid in one process, and runs it on engines (``view.run("wave_solver.py")``) to solve a part of
the grid on each.

What happens in a cell depends on its four neighbours. Around its own cells a part keeps a rim
of *ghost cells*, one cell wide, for those of others. Before each step somebody has to bring
them up to date: a `Ghosts`. How it does so, by sockets, MPI or not at all, is its own business,
and the only thing about other parts that a `Wave` depends on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEP_PER_CELL = 0.5  # how many cells a wave crosses per step; from 0.71 on it is not stable
WALL_AT, WALL_THICKNESS = 0.45, 0.03  # all lengths are in heights of the grid
SLITS_AT, SLIT_WIDTH = (0.38, 0.62), 0.06
PULSE_AT, PULSE_LENGTH, PULSE_WIDTH, WAVELENGTH = 0.2, 0.07, 0.22, 0.075

SIDES = ("above", "below", "left", "right")
INNER = {"above": np.s_[1, 1:-1], "below": np.s_[-2, 1:-1], "left": np.s_[1:-1, 1],
         "right": np.s_[1:-1, -2]}  # fmt: skip
OUTER = {"above": np.s_[0, 1:-1], "below": np.s_[-1, 1:-1], "left": np.s_[1:-1, 0],
         "right": np.s_[1:-1, -1]}  # fmt: skip
"""By side, where in an array are the own cells that a neighbour needs, and the ghost cells."""


class Part(NamedTuple):
    """A rectangle of cells of a grid: from first to before end."""

    first_row: int
    end_row: int
    first_column: int
    end_column: int


def cut(
    row_count: int, column_count: int, rows: int, columns: int
) -> dict[tuple[int, int], Part]:
    """Cut a grid into `rows` times `columns` parts; return them by their place."""
    y = [row_count * n // rows for n in range(rows + 1)]
    x = [column_count * n // columns for n in range(columns + 1)]
    return {
        (row, column): Part(y[row], y[row + 1], x[column], x[column + 1])
        for row in range(rows)
        for column in range(columns)
    }


class Ghosts:
    """Brings ghost cells up to date; this one has no neighbours and nothing to do.

    Ghost cells that nobody writes to stay 0: the edge of the grid, where waves are reflected.
    """

    def exchange(self, u: np.ndarray) -> None:
        """Give neighbours the cells ``u[INNER[side]]``; get theirs to ``u[OUTER[side]]``."""


class Wave:
    """A pulse that runs against a wall with two slits; one part of that.

    Parameters
    ----------
    row_count
        Of the whole grid, whose height is 1.
    part
        Which cells are ours.

    Attributes
    ----------
    u
        The height of the wave, with ghost cells around it.
    """

    def __init__(self, row_count: int, part: Part, ghosts: Ghosts) -> None:
        self.ghosts = ghosts
        cell = 1 / row_count
        self.step_length = STEP_PER_CELL * cell  # in time: waves run at a speed of 1
        y = (np.arange(part.first_row - 1, part.end_row + 1) + 0.5) * cell
        x = (np.arange(part.first_column - 1, part.end_column + 1) + 0.5) * cell
        is_open = ~wall(x, y)
        self.speed2 = STEP_PER_CELL**2 * is_open[1:-1, 1:-1]
        self.u = is_open * pulse(x, y)
        self.before = is_open * pulse(
            x + self.step_length, y
        )  # a step ago it was more to the left
        for side in SIDES:
            self.u[OUTER[side]] = self.before[OUTER[side]] = 0

    def run(self, step_count: int) -> None:
        """Go on in time by so many steps."""
        for _ in range(step_count):
            self.ghosts.exchange(self.u)
            u = self.u
            middle = u[1:-1, 1:-1]
            around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
            # What was a step before is not needed any more: what comes next goes there.
            following = self.before[1:-1, 1:-1]
            following *= -1
            following += 2 * middle + self.speed2 * (around - 4 * middle)
            self.u, self.before = self.before, u

    @property
    def inner(self) -> np.ndarray:
        """The own cells."""
        return self.u[1:-1, 1:-1]


def wall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether there is wall, by row and column."""
    is_slit = np.any([np.abs(y - at) < SLIT_WIDTH / 2 for at in SLITS_AT], axis=0)
    is_wall = np.abs(x - WALL_AT) < WALL_THICKNESS / 2
    return is_wall[np.newaxis, :] & ~is_slit[:, np.newaxis]


def pulse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the height of the wave at the beginning, by row and column."""
    along = np.exp(-(((x - PULSE_AT) / PULSE_LENGTH) ** 2))
    along *= np.cos(2 * np.pi * (x - PULSE_AT) / WAVELENGTH)
    across = np.exp(-(((y - 0.5) / PULSE_WIDTH) ** 2))
    return across[:, np.newaxis] * along[np.newaxis, :]
