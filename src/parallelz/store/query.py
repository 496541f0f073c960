"""The language in which users ask for tasks, and its two meanings: Python and SQL.

A query is a dictionary: ``{"status": "error", "started": {"$gt": yesterday}}``, all of which
must hold. It is parsed, with every key, operator and value checked, into a tree of `Compare`,
`Every`, `Some` and `Not`; the tree becomes a Python predicate (`predicate`) or a WHERE clause
(`to_sql`), and both say the same about any task.

There are no unknowns: a comparison with something that a task lacks (None) is false, its
negation true. What reaches SQL as text comes from the tables in this module, never from the
query; values are parameters.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, TypeGuard, assert_never

from parallelz.errors import ParallelzError
from parallelz.option_values import nearest
from parallelz.store.tags import is_name, is_plain, is_tag, is_value, name_of, value_of

DEPTH_MAX = 30
COMPARISONS_COUNT_MAX = 300
NUMBERS_COUNT_MAX = 10_000  # in one $in, if they are not texts
PATTERN_LENGTH_MAX = 1000

TaskRecord = Mapping[str, object]
Predicate = Callable[[TaskRecord], bool]


class QueryError(ParallelzError, ValueError):
    """A query makes no sense; the text says where and what would."""


class Kind(Enum):
    """What the values of a key are, and so what can be asked of them."""

    TEXT = "text"
    NUMBER = "a number"
    TIME = "a time"  # Unix time in s
    OPAQUE = "data"  # can be asked for, but only its presence can be tested


KEYS: dict[str, Kind] = {
    "msg_id": Kind.TEXT,
    "client_uuid": Kind.TEXT,
    "queue": Kind.TEXT,
    "name": Kind.TEXT,
    "label": Kind.TEXT,
    "tags": Kind.OPAQUE,
    "status": Kind.TEXT,
    "submitted": Kind.TIME,
    "arrived": Kind.TIME,
    "started": Kind.TIME,
    "completed": Kind.TIME,
    "received": Kind.TIME,
    "engine_id": Kind.NUMBER,
    "engine_uuid": Kind.TEXT,
    "host": Kind.TEXT,
    "retries": Kind.NUMBER,
    "error": Kind.TEXT,
    "ename": Kind.TEXT,
    "evalue": Kind.TEXT,
    "traceback": Kind.TEXT,
    "stdout": Kind.TEXT,
    "stderr": Kind.TEXT,
    "after": Kind.OPAQUE,
    "follow": Kind.OPAQUE,
    "outputs": Kind.OPAQUE,
    "execute_result": Kind.OPAQUE,
    "payload_bytes": Kind.NUMBER,
    "data_bytes": Kind.NUMBER,
    "digest": Kind.OPAQUE,
    "options": Kind.OPAQUE,
    "payload": Kind.OPAQUE,
    "payload_frames": Kind.OPAQUE,
    "data": Kind.OPAQUE,
    "frames": Kind.OPAQUE,
}
LARGE_KEYS = frozenset({"digest", "options", "payload", "payload_frames", "data", "frames"})
USUAL_KEYS = tuple(key for key in KEYS if key not in LARGE_KEYS)

# Keys that are no column of the table of tasks.
_EXPRESSIONS = {
    "error": "(ename || ': ' || evalue)",
    "host": "(SELECT host FROM engines WHERE engines.engine_uuid = tasks.engine_uuid)",
}
_ORDERINGS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "$lt": ("<", operator.lt),
    "$lte": ("<=", operator.le),
    "$gt": (">", operator.gt),
    "$gte": (">=", operator.ge),
}
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDERINGS, "$in", "$nin", "$exists", "$regex", "$not")
_QUERY_OPERATORS = ("$and", "$or", "$not")


class Compare(NamedTuple):
    """`key` of a task compared with a value; `operator` is $eq, $lt..., $in or $regex."""

    key: str
    operator: str
    value: object


class Every(NamedTuple):
    """All of these hold; also if there are none."""

    parts: tuple[Condition, ...]


class Some(NamedTuple):
    """At least one of these holds."""

    parts: tuple[Condition, ...]


class Not(NamedTuple):
    """This does not hold."""

    part: Condition


Condition = Compare | Every | Some | Not


# -- parsing ------------------------------------------------------------------------------


def parse(query: Mapping[str, object]) -> Condition:
    """Return what a query means.

    Parameters
    ----------
    query
        ``{}`` means every task.

    Raises
    ------
    QueryError
        If a key or operator is unknown, a value does not fit its key, or it is too large.
    """
    condition = _parse_query(query, 0)
    if _comparison_count(condition) > COMPARISONS_COUNT_MAX:
        raise QueryError(f"a query has at most {COMPARISONS_COUNT_MAX} comparisons")
    return condition


def check_keys(keys: Sequence[object]) -> None:
    """Raise QueryError if any of these is no key of a task."""
    for key in keys:
        if not isinstance(key, str) or key not in KEYS:
            raise QueryError(f"unknown key {key!r}; {nearest(str(key), KEYS)}")


def _check_asked(key: object) -> None:
    if not (isinstance(key, str) and is_tag(key)):
        check_keys([key])
    elif not is_name(name_of(key)):
        raise QueryError(f"{key!r:.200}: names of tags are letters, digits, - and _")


def _parse_query(query: object, depth: int) -> Condition:
    if not isinstance(query, Mapping):
        raise QueryError(f"a query is a dictionary, not {query!r:.100}")
    if depth > DEPTH_MAX:
        raise QueryError(f"a query is nested at most {DEPTH_MAX} deep")
    parts: list[Condition] = []
    for key, value in query.items():
        if isinstance(key, str) and key.startswith("$"):
            parts.append(_parse_connective(key, value, depth))
        else:
            _check_asked(key)
            parts.append(_parse_tests(key, value, depth))
    return parts[0] if len(parts) == 1 else Every(tuple(parts))


def _parse_connective(name: str, value: object, depth: int) -> Condition:
    if name == "$not":
        return Not(_parse_query(value, depth + 1))
    if name not in _QUERY_OPERATORS:
        raise QueryError(
            f"{name!r} must be inside a key, as in {{'started': {{{name!r}: ...}}}}"
        )
    if not isinstance(value, list | tuple) or not value:
        raise QueryError(f"{name} takes a list of one or more queries, not {value!r:.100}")
    parts = tuple(_parse_query(part, depth + 1) for part in value)
    return Every(parts) if name == "$and" else Some(parts)


def _parse_tests(key: str, tests: object, depth: int) -> Condition:
    if not isinstance(tests, Mapping):
        return Compare(key, "$eq", _value(key, tests))
    if depth > DEPTH_MAX:
        raise QueryError(f"a query is nested at most {DEPTH_MAX} deep")
    if not tests:
        raise QueryError(f"{key!r}: there is no operator; use one of {_names()}")
    parts = tuple(_parse_test(key, name, value, depth) for name, value in tests.items())
    return parts[0] if len(parts) == 1 else Every(parts)


def _parse_test(key: str, name: str, value: object, depth: int) -> Condition:
    if name not in _FIELD_OPERATORS:
        raise QueryError(f"{key!r}: unknown operator {name!r}; use one of {_names()}")
    if name == "$not":
        if not isinstance(value, Mapping):
            raise QueryError(f"{key!r}: $not takes a dictionary of operators")
        return Not(_parse_tests(key, value, depth + 1))
    if name == "$exists":
        if not isinstance(value, bool):
            raise QueryError(f"{key!r}: $exists takes True or False, not {value!r:.100}")
        is_missing = Compare(key, "$eq", None)
        return Not(is_missing) if value else is_missing
    if name in ("$in", "$nin"):
        among = Compare(key, "$in", _values(key, name, value))
        return among if name == "$in" else Not(among)
    if name == "$regex":
        return Compare(key, name, _pattern(key, value))
    if name in ("$eq", "$ne"):
        same = Compare(key, "$eq", _value(key, value))
        return same if name == "$eq" else Not(same)
    if value is None:
        raise QueryError(f"{key!r}: None is neither less nor more; use $exists")
    return Compare(key, name, _value(key, value))


def _value(key: str, value: object) -> str | int | float | None:
    """Return a value as the stores have it."""
    if value is None:
        return None
    if is_tag(key):
        if is_value(value):
            return value
        raise QueryError(
            f"{key!r} is a short text or a number; it cannot be compared with {value!r:.100}"
        )
    kind = KEYS[key]
    if kind is Kind.OPAQUE:
        raise QueryError(f"{key!r} can only be tested with $exists")
    if kind is Kind.TEXT:
        if isinstance(value, str) and is_plain(value):
            return value
    elif kind is Kind.TIME and isinstance(value, str | datetime):
        return _timestamp(key, value)
    elif _is_number(value):
        return value
    raise QueryError(f"{key!r} is {kind.value}; it cannot be compared with {value!r:.100}")


def _timestamp(key: str, time: str | datetime) -> float:
    try:
        return (datetime.fromisoformat(time) if isinstance(time, str) else time).timestamp()
    except (OverflowError, ValueError, OSError):
        raise QueryError(
            f"{key!r} is a time: {time!r:.100} is neither seconds, nor a datetime or ISO 8601"
            " text in the range of the system"
        ) from None


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isnan(value) and (isinstance(value, float) or -(2**63) <= value < 2**63)


def _values(key: str, name: str, values: object) -> tuple[str | int | float | None, ...]:
    if not isinstance(values, list | tuple | set | frozenset):
        raise QueryError(f"{key!r}: {name} takes a list, not {values!r:.100}")
    if KEYS.get(key) is not Kind.TEXT and len(values) > NUMBERS_COUNT_MAX:
        raise QueryError(f"{key!r}: {name} takes at most {NUMBERS_COUNT_MAX} numbers")
    return tuple(_value(key, value) for value in values)


def _pattern(key: str, pattern: object) -> str:
    if not is_tag(key) and KEYS[key] is not Kind.TEXT:
        raise QueryError(f"{key!r} is {KEYS[key].value}; $regex is for texts")
    if not isinstance(pattern, str) or len(pattern) > PATTERN_LENGTH_MAX:
        raise QueryError(
            f"{key!r}: $regex takes a text of at most {PATTERN_LENGTH_MAX} characters"
        )
    try:
        compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise QueryError(
            f"{key!r}: {pattern!r:.100} is no regular expression: {error}"
        ) from None
    return pattern


def _names() -> str:
    return ", ".join(_FIELD_OPERATORS)


def _comparison_count(condition: Condition) -> int:
    match condition:
        case Compare():
            return 1
        case Not(part):
            return _comparison_count(part)
        case Every(parts) | Some(parts):
            return sum(map(_comparison_count, parts))
        case _:
            assert_never(condition)


@functools.lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a compiled pattern; `$regex` holds where its `search` finds something."""
    return re.compile(pattern)


# -- meaning in Python --------------------------------------------------------------------


def predicate(condition: Condition) -> Predicate:
    """Return a function that says whether a task, as a mapping of all `KEYS`, matches."""
    match condition:
        case Compare():
            return _compare(condition)
        case Not(part):
            holds = predicate(part)
            return lambda task: not holds(task)
        case Every(parts):
            tests = [predicate(part) for part in parts]
            return lambda task: all(test(task) for test in tests)
        case Some(parts):
            tests = [predicate(part) for part in parts]
            return lambda task: any(test(task) for test in tests)
        case _:
            assert_never(condition)


def _compare(condition: Compare) -> Predicate:
    key, name, value = condition
    read = _reader(key)
    if name == "$eq":
        return lambda task: bool(read(task) == value)
    if name == "$in":
        assert isinstance(value, tuple)
        values = frozenset(value)
        return lambda task: read(task) in values
    is_text = isinstance(value, str)
    test = _is_found if name == "$regex" else _ORDERINGS[name][1]

    def holds(task: TaskRecord) -> bool:
        actual = read(task)
        # A tag may be a text or a number, which are neither less nor more than each other.
        return isinstance(actual, str) is is_text and actual is not None and test(actual, value)

    return holds


def _is_found(text: object, pattern: object) -> bool:
    return compiled(str(pattern)).search(str(text)) is not None


def _reader(key: str) -> Callable[[TaskRecord], object]:
    if not is_tag(key):
        return operator.itemgetter(key)
    name = name_of(key)
    return lambda task: value_of(task["tags"], name)


# -- meaning in SQL -----------------------------------------------------------------------

CompareWriter = Callable[[Compare, list[object]], str]
"""Returns one comparison as SQL that is never NULL, and appends its values."""


def column(key: str) -> str:
    """Return the SQL of a key's value."""
    check_keys([key])
    return _EXPRESSIONS.get(key, f'"{key}"')


def to_sql(
    condition: Condition, compare: CompareWriter | None = None
) -> tuple[str, list[object]]:
    """Return a condition as an SQL expression, true or false but never NULL, and its values.

    Parameters
    ----------
    compare
        Writes the comparisons in the database's own dialect; None: in that of SQLite.
    """
    values: list[object] = []
    return _sql(condition, values, compare or _sqlite_compare), values


def ordering(symbol: str) -> str:
    """Return the SQL of $lt, $lte, $gt or $gte."""
    return _ORDERINGS[symbol][0]


def _sql(condition: Condition, values: list[object], compare: CompareWriter) -> str:
    match condition:
        case Compare():
            return compare(condition, values)
        case Not(part):
            return f"NOT {_sql(part, values, compare)}"
        case Every(parts):
            tests = [_sql(part, values, compare) for part in parts]
            return f"({' AND '.join(tests) or 'TRUE'})"
        case Some(parts):
            tests = [_sql(part, values, compare) for part in parts]
            return f"({' OR '.join(tests)})"
        case _:
            assert_never(condition)


def _sqlite_compare(condition: Compare, values: list[object]) -> str:
    key, name, value = condition
    if is_tag(key):
        return _sqlite_tag(condition, values)
    sql = column(key)
    if name == "$eq":
        values.append(value)
        return f"({sql} IS ?)"
    if name == "$in":
        assert isinstance(value, tuple)
        return _sql_among(key, value, values)
    values.append(value)
    symbol = _sqlite_symbol(name)
    return f"({sql} IS NOT NULL AND {sql} {symbol} ?)"


def _sqlite_symbol(name: str) -> str:
    return "REGEXP" if name == "$regex" else ordering(name)


def _sqlite_tag(condition: Compare, values: list[object]) -> str:
    key, name, value = condition
    sql = "json_extract(CAST(tags AS TEXT), ?)"
    path = f'$."{name_of(key)}"'
    if name == "$eq":
        values += [path, value]
        return f"({sql} IS ?)"
    if name == "$in":
        assert isinstance(value, tuple)
        present = json.dumps([item for item in value if item is not None])
        values += [path, path, present]
        inside = f"{sql} IS NOT NULL AND {sql} IN (SELECT value FROM json_each(?))"
        if None not in value:
            return f"({inside})"
        values.append(path)
        return f"(({inside}) OR {sql} IS NULL)"
    values += [path, path, value]
    kinds = "'text'" if isinstance(value, str) else "'integer', 'real'"
    return f"(typeof({sql}) IN ({kinds}) AND {sql} {_sqlite_symbol(name)} ?)"


def _sql_among(key: str, among: tuple[object, ...], values: list[object]) -> str:
    sql = column(key)
    present = [value for value in among if value is not None]
    if KEYS[key] is Kind.TEXT:
        # As one parameter, since there may be more than a statement has room for.
        values.append(json.dumps(present))
        places = "SELECT value FROM json_each(?)"
    else:
        values.extend(present)
        places = ", ".join("?" * len(present))
    inside = f"{sql} IS NOT NULL AND {sql} IN ({places})"
    if len(present) < len(among):
        return f"({sql} IS NULL OR ({inside}))"
    return f"({inside})"
