"""Tags: what users say of their tasks, and how they are kept. Pure.

They are kept as JSON, in which every database can look; what may be in them is what all of them
can hold and compare alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeGuard

import msgspec

COUNT_MAX = 32  # of one task
NAME_LENGTH_MAX = 100
TEXT_LENGTH_MAX = 1000
INT_MAX = 2**53  # up to which every whole number is a float

PREFIX = "tags."
"""Before the name of a tag in a query."""

TagValue = str | int | float

_NAME = re.compile(f"[A-Za-z0-9_-]{{1,{NAME_LENGTH_MAX}}}")


def is_tag(key: str) -> bool:
    """Whether a key of a query means a tag."""
    return key.startswith(PREFIX)


def name_of(key: str) -> str:
    """Return the name of the tag that a key of a query means."""
    return key.removeprefix(PREFIX)


def is_name(name: object) -> bool:
    """Whether a tag can have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_value(value: object) -> TypeGuard[TagValue]:
    """Whether a tag can have this value."""
    if isinstance(value, str):
        return len(value) <= TEXT_LENGTH_MAX and is_plain(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT_MAX


def is_plain(text: str) -> bool:
    """Whether every database can hold and compare a text."""
    # SQLite cannot take the one as a parameter, and ends a text inside JSON at the other.
    return not any("\ud800" <= char <= "\udfff" or char == "\0" for char in text)


def packed(tags: Mapping[str, TagValue]) -> bytes | None:
    """Return tags as they are kept; None: there are none that can be."""
    kept = {name: value for name, value in tags.items() if is_name(name) and is_value(value)}
    return msgspec.json.encode(kept) if kept else None


def value_of(data: object, name: str) -> TagValue | None:
    """Return the value of a tag from what `packed` returned; None: there is no such tag."""
    if not isinstance(data, bytes):
        return None
    tags: dict[str, TagValue] = msgspec.json.decode(data)
    return tags.get(name)
