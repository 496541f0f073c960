"""What PostgreSQL does differently, and the ways in which a server fails."""

from __future__ import annotations

import itertools
import math
import operator
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from helpers_postgres import PostgresServer, new_database
from helpers_store import (
    E0,
    ME,
    F,
    direct_submission,
    end,
    engine_record,
    map_submission,
    submission,
    tid,
)

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import ErrorInfo, SubmitTask, TaskEnded, TaskOptions
from parallelz.store.interface import Limits, RecordError, Run, StoreError
from parallelz.store.query import KEYS, parse
from parallelz.store.record import EndRecord, Record, SubmissionRecord

pytestmark = pytest.mark.service

if not os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
    pytest.importorskip("psycopg", exc_type=ImportError)
import psycopg  # noqa: E402 - not everywhere installed

from parallelz.store import postgres, postgres_schema  # noqa: E402 - they need it
from parallelz.store.postgres import PostgresStore  # noqa: E402


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with new_database(postgres_server) as address:
        yield address


def opened_by(url: str, run: str = "first", cluster: str = "mine") -> PostgresStore:
    store = PostgresStore(url)
    store.begin_run(Run(run, cluster), 10.0)
    return store


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    with closing(opened_by(url)) as opened:
        yield opened


def ended(number: int, **fields: Any) -> Record:
    message = TaskEnded(tid(number), "ok", EngineId(0), **{"data": b"result", **fields})
    return EndRecord(message, E0, 2.0)


def numbers(records: list[dict[str, object]]) -> list[int]:
    return [int(str(record["msg_id"]).rpartition("-")[2]) for record in records]


def administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def backend_pid(store: PostgresStore) -> int:
    assert store._connection is not None
    return store._connection.info.backend_pid


# -- values --------------------------------------------------------------------------------


def test_texts_that_cannot_be_stored_are_mended_and_stop_no_others(
    store: PostgresStore,
) -> None:
    odd = TaskId("\ud800\0-7")
    unfit = SubmissionRecord(SessionId("\ud800\0"), SubmitTask(odd, F, 1.0, b"x"), "f\0g", 1.0)
    store.apply([submission(1), unfit, ended(1, error=ErrorInfo("\0", "a\udfffb"))])
    assert store.query({}, ["client_uuid", "name", "error"]) == [
        {"msg_id": tid(1), "client_uuid": ME, "name": "f", "error": "\ufffd: a\ufffdb"},
        {
            "msg_id": "\ufffd\ufffd-7",
            "client_uuid": "\ufffd\ufffd",
            "name": "f\ufffdg",
            "error": None,
        },
    ]


def test_ids_that_become_the_same_do_not_stop_a_batch(store: PostgresStore) -> None:
    clashing = [
        SubmissionRecord(ME, SubmitTask(TaskId(f"{char}-1"), F, 1.0, b"x"), "f", 1.0)
        for char in ("\0", "\ud800", "\ufffd")
    ]
    store.apply([*clashing, submission(1)])
    assert store.history() == ["\ufffd-1", tid(1)]


def test_numbers_that_do_not_fit_and_what_is_none_are_missing(store: PostgresStore) -> None:
    for number, count in ((1, 2**63), (2, -(2**63) - 1), (3, 2**63 - 1)):
        store.apply([submission(number, submitted_s=math.nan)])
        store.apply([ended(number, retries=count, started_s=math.nan, completed_s=math.inf)])
    records = store.query({}, ["submitted", "started", "completed", "retries"])
    assert [record["retries"] for record in records] == [None, None, 2**63 - 1]
    for record in records:
        assert (record["submitted"], record["started"]) == (None, None)
        assert record["completed"] == math.inf


COMPARED: list[float] = [
    *(2**53 + difference for difference in (-1, 0, 1, 2)),
    *(-(2**53) - difference for difference in (-1, 0, 1, 2)),
    *(2**63 - 1, -(2**63), 1e300, -1e300, 0.5, -0.0, math.inf, -math.inf),
]
MEANINGS: dict[str, Callable[[float, float], bool]] = {
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$eq": operator.eq,
    "$in": operator.eq,
}


@pytest.mark.parametrize("key", ["retries", "started"])
def test_numbers_are_compared_as_python_does(store: PostgresStore, key: str) -> None:
    known = {1: 0, 2: 1, 3: 2**53, 4: 2**62}
    if key == "retries":
        known |= {5: 2**53 + 1, 6: 2**63 - 1}
        store.apply([ended(number, retries=count) for number, count in known.items()])
    else:
        del known[1]  # a time of 0 is none
        known |= {5: -1, 6: -(2**53), 7: -(2**62)}
        store.apply([ended(n, started_s=float(time)) for n, time in known.items()])
    for value, (name, holds) in itertools.product(COMPARED, MEANINGS.items()):
        query = {key: {name: [value, None] if name == "$in" else value}}
        expected = [number for number, count in known.items() if holds(count, value)]
        assert numbers(store.query(query, [], order=[])) == expected, query


def test_texts_are_sorted_by_code_point_and_what_is_missing_comes_first(
    store: PostgresStore,
) -> None:
    names = ["b", "", "É", "a", "B", "é", "_", "\U0001f600", "\uffff", "aa", "a b"]
    store.apply([submission(number, name=name) for number, name in enumerate(names)])
    store.apply([end(99)])
    found = [record["name"] for record in store.query({}, ["name"], order=["name"])]
    assert found == [None, *sorted(names)]
    found = [record["name"] for record in store.query({}, ["name"], order=["-name"])]
    assert found == [*sorted(names, reverse=True), None]
    assert len(store.query({"name": {"$lt": "a"}})) == len([n for n in names if n < "a"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"name": {"$regex": r"(?P<x>a)(?P=x)"}}, [2]),
        ({"name": {"$regex": r"(?<!a)b\Z"}}, [4]),
        ({"name": {"$not": {"$regex": "^a"}}}, [4, 5]),
        ({"$not": {"name": {"$regex": "a"}, "status": "pending"}}, [4, 5]),
        ({"$or": [{"name": {"$regex": "^$"}}, {"name": "b"}]}, [4]),
        ({"name": {"$regex": "(?i)A", "$ne": "aa"}}, [1, 3]),
        ({"$not": {"$not": {"name": {"$regex": "b"}}}}, [3, 4]),
    ],
)
def test_patterns_are_those_of_python(
    store: PostgresStore, query: dict[str, object], expected: list[int]
) -> None:
    for number, name in enumerate(["a", "aa", "ab", "b"], 1):
        store.apply([submission(number, name=name)])
    store.apply([end(5)])
    assert numbers(store.query(query, [], order=[])) == expected
    assert numbers(store.query(query, [], order=["-msg_id"], limit=1)) == expected[-1:]
    assert store.delete(parse(query)) == len(expected)
    assert store.query(query) == []


def test_large_batches_are_kept_like_small_ones(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [
        [engine_record(), submission(1), map_submission(2, [b"a", b"", b"c" * 20_000])],
        [end(1, buffers=(b"one", b"two")), end(90), submission(1, name="other")],
        [end(8), submission(8), direct_submission(9, [0, 7]), end(2, error=ErrorInfo("E", ""))],
        [submission(20, submitted_s=math.nan), end(9, error=ErrorInfo("\0", "")), end(1)],
    ]
    kept = []
    for rows_min in (0, 1_000_000):
        monkeypatch.setattr(postgres, "COPY_ROWS_MIN", rows_min)
        for batch in batches:
            store.apply(batch)
        kept.append(store.query({}, list(KEYS), order=[]))
        store.delete(parse({}))
    assert kept[0] == kept[1]
    assert len(kept[0]) == 9


# -- the database --------------------------------------------------------------------------


def test_clusters_that_start_at_the_same_time_make_the_tables_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(opened_by, [url] * 8, map(str, range(8))))
    for number, opened in enumerate(stores):
        opened.apply([submission(number)])
    assert len(stores[0].history()) == 8
    for opened in stores:
        opened.close()


def test_other_things_in_the_database_do_not_matter(url: str) -> None:
    administer(url, "CREATE TABLE tasks (a integer); CREATE TABLE version (b integer)")
    with closing(opened_by(url)) as opened:
        opened.apply([submission(1)])
        assert opened.history() == [tid(1)]


def test_what_version_1_remembered_is_still_there_and_has_no_tags(url: str) -> None:
    first = "CREATE SCHEMA parallelz; SET search_path = parallelz;" + postgres_schema._FIRST
    administer(
        url,
        f"{first}; CREATE TABLE version (version integer NOT NULL);"
        " INSERT INTO version VALUES (1);"
        f" INSERT INTO tasks (run, msg_id, status) VALUES (1, '{tid(1)}', 'ok')",
    )
    with closing(opened_by(url)) as opened:
        opened.apply([submission(2, options=TaskOptions(tags={"run": 1}))])
        assert opened.query({}, ["tags"]) == [
            {"msg_id": tid(1), "tags": None},
            {"msg_id": tid(2), "tags": {"run": 1}},
        ]


def test_tables_of_a_newer_parallelz_are_left_alone(url: str) -> None:
    PostgresStore(url).close()
    administer(url, "UPDATE parallelz.version SET version = 99")
    with pytest.raises(StoreError, match="version 99 of its tables"):
        PostgresStore(url)


def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres_server: PostgresServer,
) -> None:
    options = "ENCODING 'LATIN1' TEMPLATE template0"
    with (
        new_database(postgres_server, options) as url,
        pytest.raises(StoreError, match=r"LATIN1.*createdb --encoding=UTF8"),
    ):
        PostgresStore(url)


def test_who_may_not_make_tables_may_use_those_there_are(
    url: str, postgres_server: PostgresServer
) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    theirs = postgres_server.url(name, user="guest")
    administer(url, "CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StoreError, match="permission denied"):
            PostgresStore(theirs)
        PostgresStore(url).close()
        administer(
            url,
            "GRANT USAGE ON SCHEMA parallelz TO guest;"
            "GRANT ALL ON ALL TABLES IN SCHEMA parallelz TO guest",
        )
        with closing(opened_by(theirs)) as opened:
            opened.apply([submission(1)])
            assert opened.history() == [tid(1)]
    finally:
        administer(url, "DROP OWNED BY guest; DROP ROLE guest")


# -- a server that fails -------------------------------------------------------------------


def test_a_server_that_stops_loses_nothing(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    store.apply([submission(1), submission(2), end(1)])
    postgres_server.stop("immediate")
    try:
        for _ in range(2):
            with pytest.raises(StoreError):
                store.apply([end(2), submission(3)])
        with pytest.raises(StoreError, match="connection"):
            store.history()
    finally:
        postgres_server.start()
    store.apply([end(2), submission(3)])
    assert store.status([tid(1), tid(2), tid(3)]) == {
        tid(1): "ok",
        tid(2): "ok",
        tid(3): "pending",
    }


def test_a_connection_that_is_ended_is_made_again(store: PostgresStore, url: str) -> None:
    administer(url, f"SELECT pg_terminate_backend({backend_pid(store)}, 10000)")
    with pytest.raises(StoreError):
        store.apply([submission(1)])
    store.apply([submission(1)])
    assert store.history() == [tid(1)]


def test_a_server_that_is_frozen_is_not_waited_for(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(postgres, "READ_TIMEOUT_S", 0.2)
    pid = backend_pid(store)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="has not answered within"):
            store.apply([submission(1)])
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    store.apply([submission(1)])
    assert store.history() == [tid(1)]


def test_tables_that_are_locked_are_not_waited_for(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "WRITE_TIMEOUT_S", 0.2)
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE parallelz.tasks")
        with pytest.raises(StoreError, match="has not answered within"):
            store.apply([submission(1)])
    monkeypatch.undo()
    store.apply([submission(1)])
    assert store.history() == [tid(1)]


def test_tables_that_are_dropped_are_made_again(store: PostgresStore, url: str) -> None:
    store.apply([submission(1)])
    administer(url, "DROP SCHEMA parallelz CASCADE")
    with pytest.raises(StoreError, match="does not exist"):
        store.apply([submission(2)])
    store.apply([submission(2)])
    assert store.history() == [tid(2)]


def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    with pytest.raises(StoreError, match="connection") as caught:
        PostgresStore("postgresql://scott:tiger@/db?host=/nonexistent&port=1")
    assert "tiger" not in f"{caught.value} {caught.value.__cause__!r}"


# -- clusters that share a database --------------------------------------------------------


@pytest.fixture
def others(url: str, store: PostgresStore) -> Iterator[PostgresStore]:
    """Return a store of another cluster, in the same database."""
    with closing(opened_by(url, "theirs", "their cluster")) as opened:
        yield opened


def restored(store: PostgresStore) -> list[object]:
    return [task["msg_id"] for task in store.pending(0, 1_000_000)[0]]


def test_a_run_takes_up_only_its_own(store: PostgresStore, others: PostgresStore) -> None:
    store.apply([engine_record(), submission(1), submission(2), end(1)])
    others.apply([submission(3)])
    assert (restored(store), restored(others)) == ([tid(2)], [tid(3)])
    assert [info.session_id for info in store.engines()[0]] == [E0]
    assert others.engines() == ([], 0)
    assert len(others.history()) == 3


def test_a_run_that_begins_ends_only_what_its_cluster_left(
    store: PostgresStore, others: PostgresStore, url: str
) -> None:
    store.apply([submission(1)])
    others.apply([submission(2)])
    again = PostgresStore(url)
    assert again.begin_run(Run("first", "mine"), 20.0) == 0
    assert again.begin_run(Run("second", "mine"), 20.0) == 1
    again.close()
    assert store.status([tid(1), tid(2)]) == {tid(1): "lost", tid(2): "pending"}
    assert others.end_run(30.0) == 1
    assert others.query({"status": "lost"}, ["completed"], order=["completed"]) == [
        {"msg_id": tid(1), "completed": 20.0},
        {"msg_id": tid(2), "completed": 30.0},
    ]


def test_a_cluster_in_a_directory_whose_name_is_no_text_has_a_name(url: str) -> None:
    with closing(opened_by(url, cluster="/home/\udcff")) as opened:
        opened.apply([submission(1)])
        assert restored(opened) == [tid(1)]


def test_a_run_goes_on_in_tables_that_were_made_again(store: PostgresStore, url: str) -> None:
    administer(url, "DROP SCHEMA parallelz CASCADE")
    with pytest.raises(StoreError):
        store.apply([submission(1)])
    with closing(opened_by(url, "theirs", "their cluster")):
        store.apply([submission(1)])
        assert restored(store) == [tid(1)]
    with closing(opened_by(url, "second", "mine")) as second:
        assert second.status([tid(1)]) == {tid(1): "lost"}


def test_a_cluster_forgets_only_its_own_tasks(
    store: PostgresStore, others: PostgresStore, url: str
) -> None:
    others.apply([submission(n) for n in (1, 2)] + [end(n) for n in (1, 2)])
    for number in range(3, 9):
        store.apply([submission(number, submitted_s=float(number)), end(number)])
    store.apply([submission(9, submitted_s=0.0)])
    assert store.cull(Limits(task_count=5), 100.0) == 2
    assert set(store.history()) == {tid(number) for number in (1, 2, 9, 5, 6, 7, 8)}
    with closing(opened_by(url, "second", "mine")) as second:
        second.apply([submission(10, submitted_s=10.0), end(10)])
        assert second.cull(Limits(task_count=4), 100.0) == 2
        assert second.cull(Limits(task_count=4), 100.0) == 0
        assert set(second.history()) == {tid(number) for number in (1, 2, 6, 7, 8, 10)}


def test_what_ended_too_long_ago_is_forgotten(store: PostgresStore) -> None:
    store.apply([submission(number) for number in range(4)])
    store.apply([ended(n, completed_s=time) for n, time in ((0, 5.0), (1, 50.0), (2, 7.0))])
    assert store.cull(Limits(age_s=80.0), 100.0) == 2
    assert store.history() == [tid(1), tid(3)]


def test_what_takes_too_much_room_is_forgotten(store: PostgresStore) -> None:
    payload = b"x" * 100_000
    for number in range(6):
        store.apply([submission(number, data=payload), end(number, data=payload)])
    assert store.cull(Limits(size_bytes=500_000), 0.0) == 4
    assert store.history() == [tid(4), tid(5)]
    assert store.cull(Limits(size_bytes=500_000), 0.0) == 0


def test_what_is_purged_meanwhile_is_not_forgotten_twice(store: PostgresStore) -> None:
    for number in range(30):
        store.apply([submission(number, submitted_s=float(number)), end(number)])
    assert store.cull(Limits(task_count=25), 0.0) == 5
    store.purge([tid(29), tid(28), tid(27)])
    store.apply([submission(40, submitted_s=40.0), end(40)])
    assert store.cull(Limits(task_count=24), 0.0) == 0
    assert len(store.history()) == 23


def test_pages_hold_few_payloads(store: PostgresStore) -> None:
    store.apply([submission(number, data=b"x" * 1000) for number in range(100)])
    pages: list[list[object]] = []
    after = 0
    while True:
        tasks, after = store.pending(after, 30_000)
        pages.append([task["msg_id"] for task in tasks])
        if after == 0:
            break
    assert [len(page) for page in pages] == [31, 31, 31, 7]
    assert [task for page in pages for task in page] == [tid(number) for number in range(100)]


def test_a_record_that_no_table_can_hold_is_named_as_such(store: PostgresStore) -> None:
    chance = random.Random(1)
    endless = TaskId("".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(9000)))
    record = SubmissionRecord(ME, SubmitTask(endless, F, 1.0, b"x"), "f", 1.0)
    with pytest.raises(RecordError, match="index row"):
        store.apply([submission(1), record])
    assert store.history() == []
