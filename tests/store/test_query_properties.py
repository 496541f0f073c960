"""Both stores answer any query as a plain reading of it would."""

from __future__ import annotations

import operator
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from helpers_store import E0, ME, F, engine_record, tid
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelz.ids import EngineId
from parallelz.protocol.messages import (
    ErrorInfo,
    Outputs,
    SubmitDirect,
    SubmitTask,
    TaskEnded,
    TaskOptions,
)
from parallelz.store.memory import MemoryStore
from parallelz.store.query import KEYS, Kind
from parallelz.store.record import EndRecord, Record, SubmissionRecord
from parallelz.store.sqlite import SqliteStore

TEXTS = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "é", "ok", "error", "pending", "node7", E0, tid(1)]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3),
)
NUMBERS = st.one_of(st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.5, float("inf"), -1]))
TIMES = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])


@st.composite
def batches(draw: st.DrawFn) -> list[list[Record]]:
    """Return what may have happened to a few tasks, in any batches."""
    records: list[Record] = [engine_record()]
    for number in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            options = draw(st.none() | st.builds(TaskOptions, label=TEXTS))
            single = SubmitTask(tid(number), F, draw(TIMES), b"x", 0, options)
            records.append(SubmissionRecord(ME, single, draw(TEXTS), 1.0))
        else:
            engine_ids = [EngineId(draw(st.integers(0, 2)))]
            direct = SubmitDirect(number, engine_ids, F, draw(TIMES), label=draw(TEXTS))
            records.append(SubmissionRecord(ME, direct, draw(TEXTS), 1.0))
        if draw(st.booleans()):
            status = draw(st.sampled_from(["ok", "error", "aborted"]))
            engine_id = EngineId(draw(st.integers(-1, 2)))
            ended = TaskEnded(
                tid(number),
                status,
                engine_id,
                draw(TIMES),
                draw(TIMES),
                error=draw(st.none() | st.builds(ErrorInfo, TEXTS, TEXTS)),
                outputs=draw(st.none() | st.builds(Outputs, TEXTS, TEXTS)),
                retries=draw(st.integers(0, 3)),
            )
            records.append(EndRecord(ended, draw(st.sampled_from([E0, ""])), 2.0))
    cuts = sorted(draw(st.lists(st.integers(0, len(records)), max_size=3)))
    ends = [*cuts, len(records)]
    return [records[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _values(kind: Kind) -> st.SearchStrategy[object]:
    return {Kind.TEXT: TEXTS, Kind.NUMBER: NUMBERS, Kind.TIME: TIMES}[kind]


@st.composite
def key_conditions(draw: st.DrawFn, kind: Kind, depth: int = 0) -> object:
    if kind is Kind.OPAQUE:
        return draw(st.none() | st.builds(lambda b: {"$exists": b}, st.booleans()))
    value = _values(kind)
    names = ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists"]
    if kind is Kind.TEXT:
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
    for key in draw(st.lists(st.sampled_from(list(KEYS)), max_size=2, unique=True)):
        query[key] = draw(key_conditions(KEYS[key]))
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
                if not all(passes(task[key], *test) for test in tests.items()):
                    return False
    return True


def passes(actual: Any, name: str, value: Any) -> bool:
    if name in ORDERINGS:
        return actual is not None and ORDERINGS[name](actual, value)
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
            return actual is not None and re.search(value, actual) is not None
        case "$not":
            return not all(passes(actual, *test) for test in value.items())
    raise AssertionError(name)


@settings(max_examples=60, deadline=None)
@given(
    happened=batches(),
    asked=st.lists(queries(), min_size=1, max_size=8),
    order=st.lists(st.sampled_from(["name", "-name", "started", "-engine_id"]), max_size=2),
    limit=st.none() | st.integers(0, 4),
)
def test_stores_agree_with_each_other_and_with_a_plain_reading(
    happened: list[list[Record]],
    asked: list[dict[str, object]],
    order: list[str],
    limit: int | None,
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        memory = MemoryStore()
        with closing(SqliteStore(Path(directory) / "db")) as database:
            for batch in happened:
                memory.apply(batch)
                database.apply(batch)
            everything = memory.query({}, list(KEYS), order=order)
            assert database.query({}, list(KEYS), order=order) == everything
            for query in asked:
                expected = [task for task in everything if holds(query, task)][:limit]
                assert memory.query(query, list(KEYS), order=order, limit=limit) == expected
                assert database.query(query, list(KEYS), order=order, limit=limit) == expected
