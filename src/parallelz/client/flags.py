"""What the flags of a balanced view may be: checked when they are set, and made uniform."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from parallelz.option_values import integer_of
from parallelz.protocol.texts import brief_repr, plain
from parallelz.store.tags import (
    COUNT_MAX,
    INT_MAX,
    TEXT_LENGTH_MAX,
    TagValue,
    is_name,
    is_plain,
    is_value,
)

_INTEGER_MAX = 2**63


def _count(name: str, value: object) -> int:
    count = integer_of(value)
    if count is None or not 0 <= count < _INTEGER_MAX:
        raise _wrong(name, "an int, 0 or more", value)
    return count


def _integer(name: str, value: object) -> int:
    integer = integer_of(value)
    if integer is None or not -_INTEGER_MAX < integer < _INTEGER_MAX:
        raise _wrong(name, "an int", value)
    return integer


def _seconds(name: str, value: object) -> float:
    if not _is_number(value):
        raise _wrong(name, "a number of seconds, 0 or more", value)
    return float(value)  # type: ignore[arg-type]


def _seconds_or_none(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise _wrong(name, "a number of seconds, or None or 0 for never", value)
    return float(value)  # type: ignore[arg-type]


def _labels(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    labels = tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(label, str) and label and is_plain(label) for label in labels):
        raise _wrong(name, "a label or a collection of labels, which are str", value)
    return tuple(str.__str__(label) for label in labels)


def _resources(name: str, value: object) -> Mapping[str, float]:
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and key and is_plain(key) and _is_number(amount)
        for key, amount in value.items()
    ):
        raise _wrong(name, "a dict of numbers, 0 or more, such as {'gpu': 1}", value)
    amounts = {str.__str__(key): float(amount) for key, amount in value.items()}
    return MappingProxyType(amounts)


def checked_label(value: object) -> str:
    """Return a label to keep; None: none.

    Raises
    ------
    TypeError, ValueError
        If it is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or not is_plain(value):
        raise _wrong("label", "a str", value)
    return str.__str__(value)


def checked_tags(value: object) -> Mapping[str, TagValue]:
    """Return tags to keep.

    Raises
    ------
    TypeError, ValueError
        If it is no dictionary, or has a name or a value that cannot be that of a tag.
    """
    if not isinstance(value, Mapping) or not all(map(is_name, value)):
        raise _wrong("tags", "a dict, by names of letters, digits, - and _", value)
    tags = {
        str.__str__(name): plain(tag) if _is_text_or_number(tag) else tag
        for name, tag in value.items()
    }
    for name, tag in tags.items():
        if not is_value(tag):
            wanted = (
                f"a text of at most {TEXT_LENGTH_MAX} characters, a finite number or a whole"
                f" one up to {INT_MAX}"
            )
            raise ValueError(f"tag {name!r} must be {wanted}, not {brief_repr(tag)}")
    if len(tags) > COUNT_MAX:
        raise ValueError(f"a task has at most {COUNT_MAX} tags, not {len(tags)}")
    return MappingProxyType(cast("dict[str, TagValue]", tags))


def _is_text_or_number(value: object) -> bool:
    return isinstance(value, str | numbers.Real) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and 0 <= float(value) < math.inf
    )


def _wrong(name: str, wanted: str, value: object) -> Exception:
    is_near = isinstance(value, numbers.Real | Mapping) or integer_of(value) is not None
    kind = ValueError if is_near else TypeError
    return kind(f"{name} must be {wanted}, not {value!r}")


CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "timeout": _seconds_or_none,
    "retries": _count,
    "retry_delay": _seconds,
    "max_runtime": _seconds_or_none,
    "priority": _integer,
    "labels": _labels,
    "resources": _resources,
}
"""By flag: returns the value to keep, or raises TypeError or ValueError."""
