from __future__ import annotations

from datetime import UTC, datetime

import pytest

from parallelz.store.query import (
    COMPARISONS_COUNT_MAX,
    KEYS,
    Compare,
    Every,
    Not,
    QueryError,
    Some,
    column,
    parse,
    predicate,
    to_sql,
)

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
NOTHING: dict[str, object] = dict.fromkeys(KEYS)


def test_an_empty_query_means_everything() -> None:
    assert predicate(parse({}))(NOTHING)


def test_keys_and_operators_of_a_query_must_all_hold() -> None:
    assert parse({"status": "ok", "retries": {"$gt": 0, "$lte": 3}}) == Every(
        (
            Compare("status", "$eq", "ok"),
            Every((Compare("retries", "$gt", 0), Compare("retries", "$lte", 3))),
        )
    )


def test_connectives_nest() -> None:
    query = {"$or": [{"$not": {"status": "ok"}}, {"label": {"$not": {"$regex": "^a"}}}]}
    assert parse(query) == Some(
        (Not(Compare("status", "$eq", "ok")), Not(Compare("label", "$regex", "^a")))
    )


@pytest.mark.parametrize(
    "noon", [NOON, NOON.timestamp(), "2024-01-01T12:00:00+00:00", "2024-01-01T13:00+01:00"]
)
def test_times_are_datetimes_or_iso_8601_or_seconds(noon: object) -> None:
    assert parse({"started": {"$gt": noon}}) == Compare("started", "$gt", NOON.timestamp())


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"colour": "red"}, "unknown key 'colour'; there are msg_id, "),
        ({"submited": 1}, "unknown key 'submited'; did you mean submitted?"),
        (
            {"status": {"$like": "o"}},
            "'status': unknown operator '\\$like'; use one of \\$eq, ",
        ),
        ({"status": {}}, "there is no operator"),
        ({"status": {"ok": 1}}, "unknown operator 'ok'"),
        ({"status": 3}, "'status' is text; it cannot be compared with 3"),
        ({"status": ["ok"]}, "'status' is text"),
        ({"retries": True}, "'retries' is a number"),
        ({"retries": float("nan")}, "'retries' is a number"),
        ({"retries": 2**70}, "'retries' is a number"),
        ({"name": "\ud800"}, "'name' is text"),
        ({"name": {"$in": ["a\0b"]}}, "'name' is text"),
        ({"started": {"$gt": "yesterday"}}, "'started' is a time: 'yesterday' is neither"),
        ({"started": {"$gt": None}}, "None is neither less nor more"),
        ({"data": b"x"}, "'data' can only be tested with \\$exists"),
        ({"status": {"$in": "ok"}}, "\\$in takes a list"),
        ({"status": {"$exists": 1}}, "\\$exists takes True or False"),
        ({"status": {"$not": "ok"}}, "\\$not takes a dictionary of operators"),
        ({"retries": {"$regex": "1"}}, "\\$regex is for texts"),
        ({"name": {"$regex": "("}}, "is no regular expression"),
        ({"name": {"$regex": "x" * 2000}}, "at most 1000 characters"),
        ({"$and": []}, "\\$and takes a list of one or more queries"),
        ({"$and": {"status": "ok"}}, "\\$and takes a list"),
        ({"$gt": 3}, "'\\$gt' must be inside a key"),
        ({"$not": ["ok"]}, "a query is a dictionary"),
        ({"retries": {"$in": list(range(20_000))}}, "at most 10000 numbers"),
        ({"tags": "night"}, "'tags' can only be tested with"),
        ({"tags.": 1}, "names of tags are letters, digits"),
        ({"tags.a'b": 1}, "names of tags are letters, digits"),
        ({"tags.a": True}, "'tags.a' is a short text or a number; .* with True"),
        ({"tags.a": float("inf")}, "'tags.a' is a short text or a number"),
        ({"tags.a": {"$gt": 2**60}}, "'tags.a' is a short text or a number"),
        ({"tags.a": {"$in": ["a\0b"]}}, "'tags.a' is a short text or a number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    query: dict[str, object], reason: str
) -> None:
    with pytest.raises(QueryError, match=reason):
        parse(query)


def test_size_and_depth_are_limited() -> None:
    deep: dict[str, object] = {}
    deep_field: dict[str, object] = {"$eq": "x"}
    for _ in range(100):
        deep = {"$not": deep}
        deep_field = {"$not": deep_field}
    for query in (deep, {"name": deep_field}):
        with pytest.raises(QueryError, match="at most 30 deep"):
            parse(query)
    with pytest.raises(QueryError, match="at most 300 comparisons"):
        parse({"$or": [{"status": "ok"}] * (COMPARISONS_COUNT_MAX + 1)})


def test_negation_is_true_of_what_is_missing_and_comparison_is_not() -> None:
    assert not predicate(parse({"started": {"$lt": 9}}))(NOTHING)
    assert predicate(parse({"started": {"$not": {"$lt": 9}}}))(NOTHING)
    assert predicate(parse({"status": {"$ne": "ok"}}))(NOTHING)
    assert predicate(parse({"status": {"$nin": ["ok"]}}))(NOTHING)
    assert not predicate(parse({"status": {"$nin": ["ok", None]}}))(NOTHING)


def test_values_reach_sql_as_parameters_only() -> None:
    evil = "'; DROP TABLE tasks; --"
    query = {"name": evil, "label": {"$regex": evil}, "status": {"$in": [evil]}}
    sql, values = to_sql(parse(query))
    assert "DROP" not in sql
    assert values == [evil, evil, f'["{evil}"]']


def test_only_known_keys_become_columns() -> None:
    with pytest.raises(QueryError, match="unknown key"):
        column('msg_id" FROM tasks; --')
