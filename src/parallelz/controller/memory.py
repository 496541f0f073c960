"""Memory that a wave of tasks, or much data, has left behind goes back to the system.

What little is in circles pins the blocks that it shares with what was freed, until the garbage
collector looks, which it seldom does here; and the C library keeps what is freed for later
use. After a million tasks that is more than a hundred megabytes which nobody needs, on a login
node that others use too.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

WAVE_COUNT_MIN = 50_000  # live tasks; what fewer leave behind is not worth a look
PIECES_COUNT_MIN = 64  # of large buffers, at most a MiB each
EBB = 8  # a wave is over when an eighth of it is left
DELAYS_S = (1.0, 10.0)  # when to give back; the recorder may be behind, and what is for it kept


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim  # glibc has it
    except (AttributeError, OSError, TypeError):
        return None
    return trim


def give_back_memory() -> None:
    """Give back to the system what can be; takes milliseconds where little is live."""
    gc.collect()
    trim = _find_trim()
    if trim is not None:
        trim(0)


class MemoryReturn:
    """Watches the number of live tasks, and gives memory back after each wave.

    Parameters
    ----------
    give_back
        Does it.
    """

    def __init__(self, give_back: Callable[[], None] = give_back_memory) -> None:
        self._give_back = give_back
        self._peak_count = 0
        self._piece_count = 0
        self._due_s: list[float] = []

    def see(self, live_count: int, now_s: float) -> None:
        """Take in how many tasks are live; give memory back when that is due."""
        if live_count > self._peak_count:
            self._peak_count = live_count
        if self._peak_count >= WAVE_COUNT_MIN and live_count * EBB < self._peak_count:
            self._peak_count = live_count
            self._due_s = [now_s + delay_s for delay_s in DELAYS_S]
        self._look_at_time(now_s)

    def see_pieces(self, count: int, now_s: float) -> None:
        """Take in that pieces of large buffers were sent on; soon nobody needs them here."""
        self._piece_count += count
        if self._piece_count >= PIECES_COUNT_MIN:
            self._piece_count = 0
            self._due_s = [now_s + delay_s for delay_s in DELAYS_S]

    def _look_at_time(self, now_s: float) -> None:
        if self._due_s and now_s >= self._due_s[0]:
            self._due_s.pop(0)
            self._give_back()

    def next_deadline_s(self) -> float | None:
        """Return when `see` has something to do."""
        return self._due_s[0] if self._due_s else None
