"""What the flags of a balanced view may be: checked when they are set, and made uniform."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import cast

from parallelz.protocol.texts import brief_repr
from parallelz.store.tags import (
    COUNT_MAX,
    INT_MAX,
    TEXT_LENGTH_MAX,
    TagValue,
    is_name,
    is_value,
)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(name, "an int, 0 or more", value)
    return value


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, "an int", value)
    return value


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
    if not all(isinstance(label, str) and label for label in labels):
        raise _wrong(name, "a label or a collection of labels, which are str", value)
    return labels


def _resources(name: str, value: object) -> Mapping[str, float]:
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and key and _is_number(amount) for key, amount in value.items()
    ):
        raise _wrong(name, "a dict of numbers, 0 or more, such as {'gpu': 1}", value)
    return MappingProxyType({key: float(amount) for key, amount in value.items()})


def checked_tags(value: object) -> Mapping[str, TagValue]:
    """Return tags to keep.

    Raises
    ------
    TypeError, ValueError
        If it is no dictionary, or has a name or a value that cannot be that of a tag.
    """
    if not isinstance(value, Mapping) or not all(map(is_name, value)):
        raise _wrong("tags", "a dict, by names of letters, digits, - and _", value)
    tags = {name: _plain_number(tag) for name, tag in value.items()}
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


def _plain_number(value: object) -> object:
    """Return a number of numpy and the like as one of Python; what else it is as it is."""
    if isinstance(value, int | float) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    )


def _wrong(name: str, wanted: str, value: object) -> Exception:
    kind = ValueError if isinstance(value, int | float | Mapping) else TypeError
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
