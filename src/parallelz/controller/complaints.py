"""Log lines that peers can cause, of which no peer can cause thousands."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

PERIOD_S = 60.0
LINES_MAX = 10  # of a kind in a period
TEXT_LENGTH_MAX = 500  # of what a peer has said


class Complaints:
    """Logs some lines of each kind in a period, and then how many there were of it."""

    def __init__(self) -> None:
        self._periods: dict[str, tuple[float, int]] = {}  # since when, and how many since

    def log(self, now_s: float, text: str, *args: object) -> None:
        """Log a line; lines of the same `text` are of one kind."""
        since_s, count = self._periods.get(text, (now_s, 0))
        if now_s - since_s >= PERIOD_S:
            if count > LINES_MAX:
                logger.warning("! and %d lines more like this: %s", count - LINES_MAX, text)
            since_s, count = now_s, 0
        self._periods[text] = since_s, count + 1
        if count < LINES_MAX:
            logger.warning("! %s", (text % args)[:TEXT_LENGTH_MAX])
