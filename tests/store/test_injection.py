"""Whatever a client says, it is looked for or refused, and never done."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from helpers_store import F, end, engine_record, submission, tid

from parallelz.ids import SessionId, TaskId
from parallelz.protocol.messages import AskHistory, ErrorInfo, Question, Reply, TaskOptions
from parallelz.store.interface import Run, Store
from parallelz.store.query import KEYS, Kind, QueryError
from parallelz.store.record import FunctionRecord
from parallelz.store.recorder import Recorder

HOSTILE = [
    "'; DROP TABLE tasks; --",
    '"; DROP TABLE tasks; --',
    "1) OR 1=1 --",
    "' OR '1'='1",
    "msg_id; DELETE FROM tasks",
    "tasks.*",
    "rowid",
    "run",
    "*",
    "?1",
    "%b",
    "%(x)s",
    "$1",
    "{run}",
    "\\",
    "]]",
    "/*",
    "pg_sleep(10)",
    "randomblob(1000000000)",
    "\u2019; DROP TABLE tasks",
    "",
    " ",
]
TEXTS = [key for key, kind in KEYS.items() if kind is Kind.TEXT]
OPERATORS = ["$eq", "$ne", "$lt", "$lte", "$gt", "$gte"]


@pytest.fixture(autouse=True)
def all_is_still_there(store: Store) -> Any:
    """Fill the store before the test, and find the same in it afterwards."""
    store.apply([engine_record(), FunctionRecord(F, "f", b"code"), submission(1), end(1)])
    before = store.result([tid(1)])
    yield
    assert store.result([tid(1)]) == before
    assert store.engines()[1] == 1
    assert len(store.functions([F])) == 1


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_key_or_operator_becomes_sql(store: Store, hostile: str) -> None:
    queries: list[dict[str, Any]] = [
        {hostile: 1},
        {hostile: {"$gt": 1}},
        {"name": {hostile: "f"}},
        {"name": {"$not": {hostile: "f"}}},
        {"$or": [{hostile: None}]},
        {f"${hostile}": [{"name": "f"}]},
    ]
    for query in queries:
        with pytest.raises(QueryError):
            store.query(query)
    for arguments in ({"keys": [hostile]}, {"order": [hostile]}, {"order": [f"-{hostile}"]}):
        with pytest.raises(QueryError):
            store.query({}, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_values_are_only_compared(store: Store, hostile: str) -> None:
    for key, name in itertools.product(TEXTS, OPERATORS):
        for query in ({key: {name: hostile}}, {key: {"$not": {name: hostile}}}):
            assert len(store.query(query, ["name"])) <= 1
        assert len(store.query({key: {"$in": [hostile], "$nin": [hostile, None]}}, [])) <= 1
    assert store.query({"msg_id": hostile}) == []
    assert store.status([TaskId(hostile)]) == {}
    assert store.result([TaskId(hostile)]) == []
    assert store.purge([TaskId(hostile)]) == 0
    assert store.purge(engine_uuids=[SessionId(hostile)]) == 0
    assert store.ends([TaskId(hostile)], 1000).ended == []
    assert store.functions([F, hostile.encode()])[0].digest == F  # type: ignore[list-item]
    for key in ("submitted", "engine_id", "after", "payload"):
        with pytest.raises(QueryError):
            store.query({key: hostile or "x"})


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_recorded_is_only_kept(store: Store, hostile: str) -> None:
    error = ErrorInfo(hostile, hostile, hostile)
    store.apply(
        [
            submission(2, name=hostile, options=TaskOptions(label=hostile)),
            end(2, error=error, status="error"),
            FunctionRecord(F, hostile, hostile.encode()),
        ]
    )
    (record,) = store.query({"name": hostile, "label": hostile, "ename": hostile}, list(KEYS))
    assert (record["msg_id"], record["traceback"]) == (tid(2), hostile)
    assert store.purge([tid(2)]) == 1
    store.begin_run(Run(hostile, hostile), 9.0)
    store.begin_run(Run("first", "cluster"), 9.0)


@pytest.mark.parametrize(
    "pattern", ["(", "*", "[", "(?P<", "a{99999999999}", "(" * 1001, 3, None]
)
def test_patterns_that_are_none_are_refused(store: Store, pattern: object) -> None:
    with pytest.raises(QueryError):
        store.query({"name": {"$regex": pattern}})


QUESTIONS: list[Question]
QUESTIONS = ["query", "history", "result", "status", "purge", "functions", "ends", "restore"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_of_any_form_are_answered(store: Store, question: Question) -> None:
    recorder = Recorder(lambda: store, Run("first", "cluster"))
    hostile: list[Any] = [*HOSTILE, None, [], 2**63, -1, [[]], {"task_ids": 3}, {"limit": -1}]
    hostile += [{"limit": 2**64 - 1}, {"query": {"name": {"$in": "f"}}}, {"query": []}]
    hostile += [{"digests": [1]}, {"after": -1, "bytes_max": -1}, {"task_ids": [""], "x": 1}]
    for asked in hostile:
        data = msgspec.msgpack.encode(asked)
        for garbage in (data, data[:-1], b"\xc1" + data):
            ((reply, _),) = recorder.handle([AskHistory(1, question, garbage)], 0.0)
            assert isinstance(reply, Reply)
            assert reply.error is None or reply.error.ename == "QueryError"
    if question == "purge":
        store.apply([submission(1), end(1)])
