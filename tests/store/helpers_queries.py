"""Any records, any queries, and what a plain reading of a query finds."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from helpers_store import E0, ME, F, engine_record, tid
from hypothesis import strategies as st

from parallelz.ids import EngineId, SessionId
from parallelz.protocol.messages import (
    Dependency,
    ErrorInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskOptions,
)
from parallelz.protocol.outputs import Outputs
from parallelz.store.query import KEYS, Kind
from parallelz.store.record import EndRecord, FunctionRecord, Record, SubmissionRecord

TEXTS = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "é", "ok", "error", "pending", "node7", E0, tid(1)]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.5, float("inf"), -1]))
NUMBER = st.integers(0, 7)  # of tasks: few, so that most records are about known ones
TIMES = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])
TAG_VALUES = TEXTS | st.integers(0, 3) | st.sampled_from([0.1, 1.0, 2.5, -1, 2**53, 1e300, "1"])
TAGS = st.dictionaries(st.sampled_from(["a", "b", "A-1"]), TAG_VALUES, max_size=2)
TAG_KEYS = ["tags.a", "tags.b", "tags.c"]


def _payloads() -> st.SearchStrategy[tuple[bytes, list[bytes]]]:
    """Return what is kept in the row of a task, and what is not."""
    datas = st.sampled_from([b"", b"x", b"y" * 8191, b"y" * 8192, b"z" * 8193, b"w" * 20_000])
    return st.tuples(datas, st.lists(datas.filter(bool), max_size=2))


def _framed(frames: list[bytes], data: bytes) -> dict[str, Any]:
    if not frames:
        return {}
    return {
        "frames": msgspec.msgpack.encode(frames),
        "sizes": [len(data) + sum(map(len, frames))],
    }


@st.composite
def _submissions(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(["task", "map", "direct"]))
    number, submitted_s, name = draw(NUMBER), draw(TIMES), draw(TEXTS)
    data, frames = draw(_payloads())
    more: dict[str, Any] = _framed(frames, data)
    message: SubmitTask | SubmitMap | SubmitDirect
    if kind == "direct":
        engine_ids = draw(st.lists(st.integers(0, 2).map(EngineId), min_size=1, max_size=3))
        label = draw(TEXTS)
        marks = (label, draw(TAGS))
        message = SubmitDirect(number, engine_ids, F, submitted_s, data, len(frames), *marks)
    else:
        dependency = st.none() | st.builds(Dependency, st.lists(st.just(tid(1)), max_size=2))
        options = draw(
            st.none()
            | st.builds(
                TaskOptions, after=dependency, follow=dependency, label=TEXTS, tags=TAGS
            )
        )
        if kind == "task":
            message = SubmitTask(tid(number), F, submitted_s, data, len(frames), options)
        else:
            message, more = SubmitMap(number, F, submitted_s, [data, b"item"], options), {}
    return SubmissionRecord(ME, message, name, 1.0, **more)


@st.composite
def _ends(draw: st.DrawFn) -> Record:
    status = draw(st.sampled_from(["ok", "error", "aborted"]))
    data, frames = draw(_payloads())
    size = len(data) + sum(map(len, frames)) if frames else 0
    ended = TaskEnded(
        tid(draw(NUMBER)),
        status,
        EngineId(draw(st.integers(-1, 2))),
        draw(TIMES),
        draw(TIMES),
        data,
        len(frames),
        draw(st.none() | st.builds(ErrorInfo, TEXTS, TEXTS)),
        draw(st.none() | st.builds(Outputs, TEXTS, TEXTS)),
        draw(st.integers(0, 3)),
    )
    packed = msgspec.msgpack.encode(frames) if frames else b""
    return EndRecord(ended, SessionId(draw(st.sampled_from([E0, ""]))), 2.0, packed, size)


def batches() -> st.SearchStrategy[list[Record]]:
    """Return what a recorder may be told at once: in any order, again, or with gaps."""
    engines = st.sampled_from([engine_record(), engine_record("it was killed")])
    functions = st.sampled_from([FunctionRecord(F, "f", b"code"), FunctionRecord(F, "g", b"c")])
    return st.lists(st.one_of(_submissions(), _ends(), engines, functions), max_size=5)


def _values(kind: Kind | None) -> st.SearchStrategy[object]:
    return (
        TAG_VALUES
        if kind is None
        else {Kind.TEXT: TEXTS, Kind.NUMBER: NUMBERS, Kind.TIME: TIMES}[kind]
    )


@st.composite
def key_conditions(draw: st.DrawFn, kind: Kind | None, depth: int = 0) -> object:
    """Return tests of a key of this kind; None: of a tag."""
    if kind is Kind.OPAQUE:
        return draw(st.none() | st.builds(lambda b: {"$exists": b}, st.booleans()))
    value = _values(kind)
    names = ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists"]
    if kind in (Kind.TEXT, None):
        names.append("$regex")
    if depth < 2:
        names.append("$not")
    tests: dict[str, object] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        if name == "$not":
            inner = draw(key_conditions(kind, depth + 1))
            tests[name] = inner if isinstance(inner, dict) else {"$eq": inner}
        elif name in ("$in", "$nin"):
            tests[name] = draw(st.lists(st.none() | value, max_size=3))
        elif name == "$exists":
            tests[name] = draw(st.booleans())
        elif name == "$regex":
            tests[name] = draw(st.sampled_from(["", "a", "^a", "b$", "[éo]", "."]))
        elif name in ("$eq", "$ne"):
            tests[name] = draw(st.none() | value)
        else:
            tests[name] = draw(value)
    return draw(st.just(tests) | st.none() | value)


@st.composite
def queries(draw: st.DrawFn, depth: int = 0) -> dict[str, object]:
    query: dict[str, object] = {}
    for key in draw(st.lists(st.sampled_from([*KEYS, *TAG_KEYS]), max_size=2, unique=True)):
        query[key] = draw(key_conditions(KEYS.get(key)))
    if depth < 2 and draw(st.booleans()):
        name = draw(st.sampled_from(["$and", "$or", "$not"]))
        inner = st.deferred(lambda: queries(depth + 1))
        query[name] = draw(inner if name == "$not" else st.lists(inner, min_size=1, max_size=2))
    return query


ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
}


def holds(query: Mapping[str, Any], task: Mapping[str, object]) -> bool:
    """Say whether a task matches, straight from the words of the documentation."""
    for key, value in query.items():
        match key:
            case "$and":
                if not all(holds(part, task) for part in value):
                    return False
            case "$or":
                if not any(holds(part, task) for part in value):
                    return False
            case "$not":
                if holds(value, task):
                    return False
            case _:
                tests = value if isinstance(value, dict) else {"$eq": value}
                if not all(passes(actual_of(task, key), *test) for test in tests.items()):
                    return False
    return True


def actual_of(task: Mapping[str, Any], key: str) -> object:
    if key.startswith("tags."):
        return (task["tags"] or {}).get(key.removeprefix("tags."))
    return task[key]


def passes(actual: Any, name: str, value: Any) -> bool:
    if name in ORDERINGS:
        if actual is None or isinstance(actual, str) != isinstance(value, str):
            return False
        return ORDERINGS[name](actual, value)
    match name:
        case "$eq":
            return bool(actual == value)
        case "$ne":
            return bool(actual != value)
        case "$in":
            return actual in value
        case "$nin":
            return actual not in value
        case "$exists":
            return (actual is not None) == value
        case "$regex":
            return isinstance(actual, str) and re.search(value, actual) is not None
        case "$not":
            return not all(passes(actual, *test) for test in value.items())
    raise AssertionError(name)
