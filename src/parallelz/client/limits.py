"""How many tasks a client may await, and what a call does that would make them more."""

from __future__ import annotations

from typing import Literal, SupportsIndex

from parallelz.option_values import integer_of

OUTSTANDING_MAX = 2_000_000
"""How many tasks a client awaits before it submits no more, unless its user says otherwise."""
WhenFull = Literal["block", "raise"]


def check_limit(value: SupportsIndex) -> int:
    """Return the value of `max_outstanding`, if it is one."""
    limit = integer_of(value)
    if limit is None or limit < 1:
        raise ValueError(f"max_outstanding must be an int, 1 or more, not {value!r}")
    return limit


def check_when_full(value: WhenFull) -> WhenFull:
    """Return the value of `when_full`, if it is one."""
    if value not in ("block", "raise"):
        raise ValueError(f'when_full must be "block" or "raise", not {value!r}')
    return value
