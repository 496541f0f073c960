"""Texts of users' objects, which may raise, be endless, or be too long to be read."""

from __future__ import annotations

import numbers

TEXT_LENGTH_MAX = 100_000
"""Of a message or a traceback; the middle of a longer one is left out."""

_BRIEF_LENGTH_MAX = 60


def clip(text: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """Return a text without the middle of one that is too long, which is said there."""
    if len(text) <= length_max:
        return text
    half = length_max // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def text_of(error: BaseException) -> str:
    """Return what an exception says, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the user's own __str__
        return f"<str() of it failed: {type(failure).__name__}>"


def repr_of(value: object) -> str:
    """Return the repr, or the name of the type if that fails."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the user's own __repr__
        return f"<{type(value).__name__}>"


def brief_repr(value: object) -> str:
    """Return a repr that fits into a line."""
    text = repr_of(value)
    return text if len(text) <= _BRIEF_LENGTH_MAX else f"{text[:_BRIEF_LENGTH_MAX]}..."


def sendable_text(text: str) -> str:
    """Return text without lone surrogates, of which no UTF-8 can be made."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def plain(value: object) -> str | int | float:
    """Return a number of numpy, a str of a subclass and the like as one of Python.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{brief_repr(value)} is no text and no number")


def span_text(seconds: float) -> str:
    """Return a time for people, in the unit that suits it.

    >>> span_text(0.25), span_text(300)
    ('250 ms', '5 min')
    """
    if seconds < 1:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
