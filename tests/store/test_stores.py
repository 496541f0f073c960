"""What every store promises of tasks."""

from __future__ import annotations

import msgspec
import pytest
from helpers_store import (
    E0,
    F,
    direct_submission,
    end,
    engine_record,
    map_submission,
    submission,
    tid,
)

from parallelz.ids import Digest, EngineId
from parallelz.protocol.messages import (
    Dependency,
    EngineInfo,
    ErrorInfo,
    PeerInfo,
    TaskEnded,
    TaskOptions,
)
from parallelz.protocol.outputs import Outputs
from parallelz.store.interface import Store
from parallelz.store.query import KEYS, LARGE_KEYS, QueryError
from parallelz.store.record import EndRecord, EngineRecord, FunctionRecord
from parallelz.store.rows import Function


def ids(records: list[dict[str, object]]) -> list[object]:
    return [record["msg_id"] for record in records]


def test_a_task_that_has_not_ended_is_pending(store: Store) -> None:
    store.apply([submission(1)])
    (record,) = store.query({})
    assert record["status"] == "pending"
    assert record["submitted"] == 1.0
    assert record["arrived"] == 1.1
    assert record["completed"] is None
    assert (record["queue"], record["name"], record["client_uuid"]) == (
        "balanced",
        "f",
        "client",
    )


def test_texts_are_kept_as_they_are(store: Store) -> None:
    strange = "a\U0001f600'\"\n%s"
    store.apply([submission(1, name=strange), end(1, error=ErrorInfo(strange, "?"))])
    (record,) = store.query({}, ["name", "error"])
    assert record == {"msg_id": tid(1), "name": strange, "error": f"{strange}: ?"}


def test_numbers_that_no_database_can_hold_harm_nobody(store: Store) -> None:
    info = EngineInfo(EngineId(2**64 - 1), E0, PeerInfo("node7", "kernel", 2**64 - 1))
    nan = float("nan")
    odd = TaskEnded(tid(1), "ok", EngineId(2**64 - 1), nan, nan, b"r", retries=2**64 - 1)
    store.apply([EngineRecord(info, "", 1.0), submission(1, submitted_s=nan)])
    store.apply([EndRecord(odd, E0, 4.0), submission(2), end(2)])
    records = store.query({}, ["submitted", "started", "completed", "engine_id", "host"])
    assert records == [
        {
            "msg_id": tid(1),
            "submitted": None,
            "started": None,
            "completed": 4.0,
            "engine_id": None,
            "host": "node7",
        },
        {
            "msg_id": tid(2),
            "submitted": 1.0,
            "started": 2.0,
            "completed": 3.0,
            "engine_id": 0,
            "host": "node7",
        },
    ]


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_an_ended_task_has_both_halves(store: Store, is_one_batch: bool) -> None:
    failed = end(
        1,
        status="error",
        error=ErrorInfo("ValueError", "bad", "Traceback ..."),
        outputs=Outputs("out", "err", b"\x90", b"\x80"),
    )
    records = [engine_record(), submission(1, name="g"), failed]
    for batch in [records] if is_one_batch else [[record] for record in records]:
        store.apply(batch)
    (record,) = store.query({})
    assert set(record) == set(KEYS) - LARGE_KEYS
    assert record == record | {
        "name": "g",
        "engine_id": 0,
        "engine_uuid": E0,
        "host": "node7",
        "status": "error",
        "started": 2.0,
        "completed": 3.0,
        "received": 4.0,
        "retries": 0,
        "error": "ValueError: bad",
        "ename": "ValueError",
        "traceback": "Traceback ...",
        "stdout": "out",
        "stderr": "err",
        "outputs": b"\x90",
        "execute_result": b"\x80",
        "label": "",
        "after": None,
    }


def test_a_result_has_all_keys_and_is_in_the_order_asked_for(store: Store) -> None:
    store.apply([submission(1), submission(2), end(2, data=b"r", buffers=(b"one", b"two"))])
    second, first = store.result([tid(2), tid(7), tid(1)])
    assert set(first) == set(KEYS)
    assert (second["data"], second["frames"]) == (
        b"r",
        msgspec.msgpack.encode([b"one", b"two"]),
    )
    assert second["data_bytes"] == 7
    assert first["data"] is None
    assert first["payload"] == b"arguments"
    assert first["digest"] == F


def test_what_was_too_large_is_known_by_its_size(store: Store) -> None:
    size = 2 * 1024 * 1024
    store.apply([submission(1, data=b"a" * size), end(1, buffers=(b"r" * size,))])
    (record,) = store.result([tid(1)])
    assert (record["payload"], record["payload_bytes"]) == (None, size)
    assert (record["data"], record["frames"], record["data_bytes"]) == (None, None, size + 6)


@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize("size", [8192, 8193, 500_000])
def test_payloads_of_any_size_are_found_and_go_with_their_task(
    store: Store, is_one_batch: bool, size: int
) -> None:
    large = b"x" * (size - 3)
    frames = (b"abc",)
    records = [
        submission(1, data=large, buffers=frames),
        end(1, data=large, buffers=frames),
        submission(2),
    ]
    for batch in [records] if is_one_batch else [[record] for record in records]:
        store.apply(batch)
    (record,) = store.query(
        {"data": {"$exists": True}, "payload_frames": {"$exists": True}},
        ["payload", "payload_frames", "payload_bytes", "data", "frames", "data_bytes"],
    )
    packed = msgspec.msgpack.encode(frames)
    assert record == {
        "msg_id": tid(1),
        **{"payload": large, "payload_frames": packed, "payload_bytes": size},
        **{"data": large, "frames": packed, "data_bytes": size},
    }
    assert store.purge() == 1
    store.apply([submission(1, data=b"new")])
    (again,) = store.result([tid(1)])
    assert (again["payload"], again["payload_frames"], again["data"]) == (b"new", None, None)


def test_each_item_of_a_map_is_a_task(store: Store) -> None:
    store.apply([map_submission(3, [b"a", b"bc"], TaskOptions(label="squares")), end(4)])
    records = store.query({"label": "squares"}, ["status", "payload", "payload_bytes"])
    assert records == [
        {"msg_id": tid(3), "status": "pending", "payload": b"a", "payload_bytes": 1},
        {"msg_id": tid(4), "status": "ok", "payload": b"bc", "payload_bytes": 2},
    ]


def test_items_that_were_submitted_one_by_one_keep_their_times(store: Store) -> None:
    one_by_one = map_submission(3, [b"a", b"b"], times_s=(1.25, 1.5))
    nonsense = map_submission(5, [b"c", b"d"], submitted_s=2.0, times_s=(1.25,))
    store.apply([one_by_one, nonsense])
    found = store.query({}, ["submitted"])
    times_s = {each["msg_id"]: each["submitted"] for each in found}
    assert times_s == {tid(3): 1.25, tid(4): 1.5, tid(5): 2.0, tid(6): 2.0}


TAGGED = [
    submission(1, options=TaskOptions(tags={"run": 7, "kind": "train"})),
    map_submission(2, [b"a"], TaskOptions(tags={"run": 8.5, "kind": "test"})),
    direct_submission(3, [0], tags={"run": "7", "A-1": "é\"'"}),
    submission(4),
]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"tags.run": 7}, [1]),
        ({"tags.run": 7.0}, [1]),
        ({"tags.run": "7"}, [3]),
        ({"tags.run": {"$gt": 7}}, [2]),
        ({"tags.run": {"$lte": 8.5}}, [1, 2]),
        ({"tags.run": {"$gte": "7"}}, [3]),
        ({"tags.run": {"$in": [8.5, "7", None]}}, [2, 3, 4]),
        ({"tags.run": {"$nin": [7, 8.5]}}, [3, 4]),
        ({"tags.run": {"$ne": 7}}, [2, 3, 4]),
        ({"tags.kind": {"$exists": True}}, [1, 2]),
        ({"tags.kind": None}, [3, 4]),
        ({"tags.kind": {"$regex": "^t.*n$"}}, [1]),
        ({"tags.run": {"$regex": "7"}}, [3]),
        ({"tags.A-1": "é\"'"}, [3]),
        ({"tags.none": {"$lt": 3}}, []),
        ({"tags": {"$exists": False}}, [4]),
        ({"$or": [{"tags.kind": "test"}, {"tags.A-1": {"$exists": True}}]}, [2, 3]),
    ],
    ids=str,
)
def test_tasks_are_found_by_their_tags(
    store: Store, query: dict[str, object], found: list[int]
) -> None:
    store.apply(TAGGED)
    assert [record["msg_id"] for record in store.query(query, [])] == [*map(tid, found)]


def test_tags_are_part_of_a_record(store: Store) -> None:
    store.apply([*TAGGED, end(1)])
    assert [record["tags"] for record in store.query({}, ["tags"])] == [
        {"run": 7, "kind": "train"},
        {"run": 8.5, "kind": "test"},
        {"run": "7", "A-1": "é\"'"},
        None,
    ]


def test_a_tag_that_not_every_database_can_hold_is_left_out(store: Store) -> None:
    tags = {"zero": "a\0b", "nan": float("nan"), "x y": 1, "huge": 2**63, "good": 1}
    store.apply([submission(1, options=TaskOptions(tags=tags))])
    assert store.query({"tags.zero": None}, ["tags"]) == [
        {"msg_id": tid(1), "tags": {"good": 1}}
    ]


def test_direct_tasks_know_their_engine_from_the_start(store: Store) -> None:
    store.apply([direct_submission(1, [4, 5, 2**64 - 1])])
    records = store.query({"queue": "direct"}, ["engine_id"])
    assert [record["engine_id"] for record in records] == [4, 5, None]


def test_dependencies_are_lists_of_ids(store: Store) -> None:
    options = TaskOptions(after=Dependency([tid(1)]), follow=Dependency([tid(1), tid(2)]))
    store.apply([submission(3, options=options)])
    (record,) = store.query({"after": {"$exists": True}}, ["after", "follow", "options"])
    assert (record["after"], record["follow"]) == ([tid(1)], [tid(1), tid(2)])
    assert msgspec.msgpack.decode(record["options"], type=TaskOptions) == options


def test_a_task_that_never_ran_was_completed_when_it_ended(store: Store) -> None:
    store.apply([submission(1), end(1, status="aborted", engine_id=-1, ended_s=9.0)])
    (record,) = store.query({"status": "aborted"})
    assert (record["started"], record["completed"]) == (None, 9.0)
    assert (record["engine_id"], record["engine_uuid"]) == (None, None)


def test_records_may_come_again(store: Store) -> None:
    batch = [engine_record(), submission(1), submission(2), end(1)]
    store.apply(batch)
    once = store.result([tid(1), tid(2)])
    store.apply(batch)
    store.apply([submission(1, name="other"), end(1, data=b"other")])
    store.apply([end(1, data=b"another")])
    assert store.result([tid(1), tid(2)]) == once


def test_an_end_comes_through_even_if_its_submission_came_without_it_before(
    store: Store,
) -> None:
    store.apply([submission(1)])
    store.apply([submission(1), end(1)])
    assert store.status([tid(1)]) == {tid(1): "ok"}


def test_an_end_without_a_submission_is_kept(store: Store) -> None:
    store.apply([submission(1)])
    store.apply([end(1), end(2)])
    assert store.status([tid(1), tid(2)]) == {tid(1): "ok", tid(2): "ok"}
    assert store.query({"msg_id": tid(2)}, ["client_uuid", "submitted"]) == [
        {"msg_id": tid(2), "client_uuid": "client", "submitted": None}
    ]


def test_history_is_in_order_of_submission_and_its_limit_keeps_the_newest(store: Store) -> None:
    store.apply([submission(3, submitted_s=2.0), map_submission(8, [b""] * 4)])
    assert store.history() == [tid(8), tid(9), tid(10), tid(11), tid(3)]
    assert store.history(limit=2) == [tid(11), tid(3)]


def test_order_and_limit(store: Store) -> None:
    store.apply([submission(1, name="b"), submission(2, name="a"), submission(3, name="b")])
    store.apply([end(1)])
    assert ids(store.query({}, order=["name", "-started"])) == [tid(2), tid(1), tid(3)]
    assert ids(store.query({}, order=["-name"])) == [tid(3), tid(1), tid(2)]
    assert ids(store.query({}, order=["completed"], limit=2)) == [tid(2), tid(3)]


def test_only_known_keys_can_be_asked_for(store: Store) -> None:
    for wrong in ({"keys": ["colour"]}, {"order": ["-colour"]}, {"limit": -1}):
        with pytest.raises(QueryError):
            store.query({}, **wrong)  # type: ignore[arg-type]


def test_unknown_tasks_have_no_status(store: Store) -> None:
    store.apply([submission(1)])
    assert store.status([tid(1), tid(2)]) == {tid(1): "pending"}
    assert store.status([]) == {}


@pytest.mark.slow
def test_status_of_more_tasks_than_a_statement_has_parameters(store: Store) -> None:
    store.apply([map_submission(0, [b""] * 40_000)])
    assert len(store.status([tid(number) for number in range(40_000)])) == 40_000


def test_purging_named_tasks_leaves_the_others(store: Store) -> None:
    store.apply([submission(1), submission(2), end(1), end(2)])
    assert store.purge([tid(1), tid(9)]) == 1
    assert store.history() == [tid(2)]


def test_purging_everything_leaves_what_has_not_ended(store: Store) -> None:
    store.apply([submission(1), submission(2), end(1)])
    assert store.purge() == 1
    assert store.history() == [tid(2)]


def test_purging_by_engine(store: Store) -> None:
    store.apply([submission(1), submission(2), end(1), end(2, status="aborted", engine_id=-1)])
    assert store.purge(engine_uuids=[E0]) == 1
    assert store.history() == [tid(2)]


def test_definitions_of_functions_are_kept(store: Store) -> None:
    store.apply([FunctionRecord(F, "f", b"code", b""), FunctionRecord(F, "f", b"other")])
    store.apply([FunctionRecord(F, "f", b"other")])
    assert store.functions([Digest(b"?"), F]) == [Function(F, "f", b"code", b"")]
