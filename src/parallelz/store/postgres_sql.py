"""What a query means in the SQL of PostgreSQL.

Numbers are compared exactly, as Python does, though a column of whole numbers may be compared
with fractions and a column of times with whole numbers of any size. Texts are compared by code
point: their columns have the collation "C". The patterns of `$regex` are those of Python's
`re`, which PostgreSQL does not know: what is asked is `widened`, and whoever asks looks again
at what was found with `query.predicate`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import assert_never

from parallelz.store.query import (
    KEYS,
    Compare,
    Condition,
    Every,
    Kind,
    Not,
    Some,
    column,
    ordering,
)
from parallelz.store.tags import is_tag, name_of

_ARRAYS = {Kind.TEXT: "text[]", Kind.NUMBER: "numeric[]", Kind.TIME: "float8[]"}


def compare(condition: Compare, values: list[object]) -> str:
    """Write one comparison, but not $regex; a `query.CompareWriter`."""
    key, name, value = condition
    if is_tag(key):
        return _compare_tag(condition, values)
    sql = column(key)
    if name == "$in":
        assert isinstance(value, tuple)
        return _among(key, value, values)
    if value is None:
        return f"({sql} IS NULL)"
    if name == "$eq":
        return _among(key, (value,), values)
    values.append(_bound(KEYS[key], name, value))
    return f"({sql} IS NOT NULL AND {sql} {ordering(name)} %b)"


def widened(condition: Condition, *, is_negated: bool = False) -> Condition:
    """Return a condition without $regex that holds for all tasks that match, and maybe more.

    Parameters
    ----------
    is_negated
        Return one that holds for no task but those that match, and maybe fewer.
    """
    match condition:
        case Compare(key, "$regex", _):
            return Compare(key, "$in", ()) if is_negated else Not(Compare(key, "$eq", None))
        case Compare():
            return condition
        case Not(part):
            return Not(widened(part, is_negated=not is_negated))
        case Every(parts):
            return Every(tuple(widened(part, is_negated=is_negated) for part in parts))
        case Some(parts):
            return Some(tuple(widened(part, is_negated=is_negated) for part in parts))
        case _:
            assert_never(condition)


def keys_of(condition: Condition) -> set[str]:
    """Return the keys that a condition looks at; of tags all together."""
    match condition:
        case Compare(key, _, _):
            return {"tags" if is_tag(key) else key}
        case Not(part):
            return keys_of(part)
        case Every(parts) | Some(parts):
            return {key for part in parts for key in keys_of(part)}
        case _:
            assert_never(condition)


def _among(key: str, among: tuple[object, ...], values: list[object]) -> str:
    kind = KEYS[key]
    sql = column(key)
    present = [
        parameter
        for value in among
        if value is not None and (parameter := _equal(kind, value)) is not None
    ]
    inside = "FALSE"
    if present:
        values.append(present)
        inside = f"{sql} IS NOT NULL AND {sql} = ANY(%b::{_ARRAYS[kind]})"
    return f"({sql} IS NULL OR ({inside}))" if None in among else f"({inside})"


def _compare_tag(condition: Compare, values: list[object]) -> str:
    key, name, value = condition

    def found(arrow: str) -> str:
        values.append(name_of(key))
        return f"(convert_from(tags, 'UTF8')::jsonb {arrow} %b::text)"

    if name in ("$eq", "$in"):
        among = value if isinstance(value, tuple) else (value,)
        is_missing = f"{found('->>')} IS NULL OR " if None in among else ""
        sql = f"({is_missing}CASE jsonb_typeof({found('->')})"
        sql += f" WHEN 'string' THEN {found('->>')} = ANY(%b::text[])"
        values.append([item for item in among if isinstance(item, str)])
        sql += f" WHEN 'number' THEN {found('->>')}::float8 = ANY(%b::float8[]) ELSE FALSE END)"
        values.append([float(item) for item in among if isinstance(item, int | float)])
        return sql
    is_text = isinstance(value, str)
    sql = f"(CASE jsonb_typeof({found('->')}) WHEN '{'string' if is_text else 'number'}' THEN "
    sql += found("->>") + (' COLLATE "C"' if is_text else "::float8")
    values.append(value if is_text else float(value))  # type: ignore[arg-type]
    kind = "text" if is_text else "float8"
    return f"{sql} {ordering(name)} %b::{kind} ELSE FALSE END)"


def _equal(kind: Kind, value: object) -> object:
    """Return a value as what a column can be equal to; None: it cannot be equal to it."""
    if kind is Kind.TEXT:
        return value
    assert isinstance(value, int | float)
    if kind is Kind.NUMBER:
        return Decimal(value)
    return float(value) if float(value) == value else None


def _bound(kind: Kind, name: str, value: object) -> object:
    """Return a value as what a column can be less or more than."""
    if kind is Kind.TEXT:
        return value
    assert isinstance(value, int | float)
    if kind is Kind.NUMBER:
        return Decimal(value)
    nearest = float(value)
    # Times are floats: a whole number between two of them is as good as its neighbour.
    if name in ("$lt", "$gte") and nearest < value:
        return math.nextafter(nearest, math.inf)
    if name in ("$lte", "$gt") and nearest > value:
        return math.nextafter(nearest, -math.inf)
    return nearest
