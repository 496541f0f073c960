"""Numbers that options and arguments may be, and names that are nearly right.

The number of an option may be a text, as on a command line; numbers of numpy are numbers, too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import SupportsFloat, SupportsIndex

from parallelz.errors import ClusterError

Countable = str | SupportsIndex
Measurable = str | SupportsFloat | SupportsIndex


def nearest(name: str, known: Collection[str]) -> str:
    """Return what to say of a name that does not exist: which was meant, or which there are."""
    import difflib  # not at the top: only mistakes need it

    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[near[0]]}?" if near else f"there are {', '.join(known)}"


def integer_of(value: object) -> int | None:
    """Return the integer that a value is, or may stand for as numpy's do; None: it is none.

    A bool is none: who gives one has mixed up the arguments.
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # also of an array, which has an __index__ all the same
        return None


def to_count(value: Countable) -> int:
    """Return how many there are to be, at least one.

    Raises
    ------
    ClusterError
        If it is something else; so do the others here.
    """
    return _whole(value, 1, "a whole number, 1 or more")


def to_count_or_0(value: Countable) -> int:
    """Return how many there are to be, if any."""
    return _whole(value, 0, "a whole number, 0 or more")


def to_port(value: Countable) -> int:
    """Return the number of a port; 0 is one that is free."""
    return _whole(value, 0, "a port: 1 to 65535, or 0 for one that is free", most=65535)


def to_seconds(value: Measurable) -> float:
    """Return how long something is to take, more than no time."""
    number = _number(value)
    if not 0 < number < math.inf:
        raise ClusterError(f"must be a number more than 0, not {value!r}")
    return number


def to_grace(value: Measurable) -> float:
    """Return how long to wait before something is given up, which may be at once."""
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ClusterError(f"must be a number from 0 on, not {value!r}")
    return number


def to_period(value: Measurable) -> float:
    """Return seconds that milliseconds can express."""
    number = _number(value)
    if not 0.001 <= number <= 1e6:
        raise ClusterError(f"must be 0.001 to 1000000 seconds, not {value!r}")
    return number


def _whole(value: Countable, least: int, expected: str, *, most: float = math.inf) -> int:
    try:
        number = int(value) if isinstance(value, str) else operator.index(value)
    except (TypeError, ValueError):
        number = least - 1
    if not least <= number <= most:
        raise ClusterError(f"must be {expected}, not {value!r}")
    return number


def _number(value: Measurable) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
