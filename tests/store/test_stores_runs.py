"""What every store promises of runs, to whom starts again, and of limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers_store import (
    RUN,
    F,
    direct_submission,
    end,
    map_submission,
    submission,
    tid,
)

from parallelz.ids import EngineId, SessionId
from parallelz.protocol.messages import EngineInfo, PeerInfo, TaskOptions
from parallelz.store.interface import CULL_COUNT_MAX, Limits, Run, Store
from parallelz.store.record import EngineRecord, Record
from parallelz.store.restored import ENDED_KEYS

NEXT = Run("second", RUN.cluster)


def ids(records: list[dict[str, object]]) -> list[object]:
    return [record["msg_id"] for record in records]


def engine(number: int, cause: str = "") -> EngineRecord:
    info = EngineInfo(
        EngineId(number),
        SessionId(f"engine{number}"),
        PeerInfo("node7", "kernel", 40 + number, "me", "3.11"),
        ["gpu"],
        {"memory": 2.5},
    )
    return EngineRecord(info, cause, 1.0)


# -- runs ---------------------------------------------------------------------------------


def test_a_run_that_is_known_is_gone_on_with(store: Store) -> None:
    store.apply([submission(1)])
    assert store.begin_run(RUN, 9.0) == 0
    assert store.status([tid(1)]) == {tid(1): "pending"}
    assert ids(store.pending(0, 1000)[0]) == [tid(1)]


def test_a_new_run_ends_what_earlier_ones_left_behind(store: Store) -> None:
    store.apply([submission(1), end(1), submission(2), direct_submission(3, [5])])
    assert store.begin_run(NEXT, 9.0) == 2
    lost = store.query({"status": "lost"}, ["completed", "received", "error", "engine_id"])
    error = "ClusterError: the cluster ended before it did"
    common = {"completed": 9.0, "received": 9.0, "error": error}
    assert lost == [
        {"msg_id": tid(2), **common, "engine_id": None},
        {"msg_id": tid(3), **common, "engine_id": 5},
    ]
    assert store.status([tid(1)]) == {tid(1): "ok"}
    assert store.pending(0, 1000) == ([], 0)


def test_the_end_of_a_lost_task_changes_nothing(store: Store) -> None:
    store.apply([submission(1)])
    store.begin_run(NEXT, 9.0)
    store.apply([end(1)])
    assert store.status([tid(1)]) == {tid(1): "lost"}


def test_a_run_that_stops_ends_what_has_not_ended(store: Store) -> None:
    store.apply([submission(1), submission(2), end(2)])
    assert store.end_run(9.0) == 1
    (record,) = store.query({"status": "lost"}, ["evalue", "completed"])
    assert (record["evalue"], record["completed"]) == (
        "the cluster was stopped before it did",
        9.0,
    )
    assert store.end_run(10.0) == 0


def test_runs_survive_a_restart_of_the_store(
    open_store: Callable[[], Store], request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.name:
        pytest.skip("it forgets everything")
    first = open_store()
    first.begin_run(RUN, 0.0)
    first.apply([engine(0), submission(1), submission(2)])
    first.close()
    again = open_store()
    assert again.begin_run(RUN, 5.0) == 0
    assert ids(again.pending(0, 1000)[0]) == [tid(1), tid(2)]
    assert again.engines() == ([engine(0).engine], 1)
    assert again.begin_run(NEXT, 6.0) == 2
    again.close()


# -- what a new controller asks for -------------------------------------------------------


def test_pending_tasks_come_whole_and_in_the_order_they_became_known(store: Store) -> None:
    options = TaskOptions(label="night", retries=2)
    store.apply([submission(7, data=b"a" * 20_000, options=options, buffers=(b"b" * 9000,))])
    store.apply([map_submission(2, [b"x", b"y"]), direct_submission(1, [4]), end(3)])
    tasks, after = store.pending(0, 10**6)
    assert (ids(tasks), after) == ([tid(7), tid(2), tid(1)], 0)
    assert [len(bytes(task["payload"])) for task in tasks] == [20_000, 1, 9]  # type: ignore[arg-type]
    assert [task["engine_id"] for task in tasks] == [None, None, 4]
    assert {task["digest"] for task in tasks} == {F}


def test_pending_tasks_come_in_pages(store: Store) -> None:
    store.apply([map_submission(0, [b"x" * 1000] * 20)])
    after, pages = 0, []
    while True:
        tasks, after = store.pending(after, 5000)
        pages.append(len(tasks))
        if len(pages) == 1:
            # What ends, or comes, while pages are read does not confuse them.
            store.apply([end(0), end(19), submission(30)])
        if not after:
            break
    assert sum(pages) == 20
    assert max(pages) <= 6


def test_a_page_has_a_task_however_large_that_is(store: Store) -> None:
    store.apply([submission(1, data=b"x" * 1000), submission(2)])
    tasks, after = store.pending(0, 0)
    assert ids(tasks) == [tid(1)]
    tasks, _ = store.pending(after, 0)
    assert ids(tasks) == [tid(2)]


def test_engines_of_the_run_come_whole_and_ids_are_not_given_out_twice(store: Store) -> None:
    assert store.engines() == ([], 0)
    store.apply([engine(0), engine(1), engine(2)])
    store.apply([engine(2, "it was killed")])
    assert store.engines() == ([engine(0).engine, engine(1).engine], 3)
    store.begin_run(NEXT, 9.0)
    assert store.engines() == ([], 0)


def test_ends_are_found_in_pieces(store: Store) -> None:
    store.apply(
        [map_submission(0, [b""] * 6), *(end(n, data=b"r" * 20_000) for n in (0, 1, 3))]
    )
    wanted = [tid(n) for n in (0, 9, 1, 2, 3)]
    first = store.ends(wanted, 20_001)
    assert (first.looked_up_count, first.pending) == (3, [])
    assert {record["msg_id"] for record in first.ended} == {tid(0), tid(1)}
    second = store.ends(wanted[3:], 20_001)
    assert (second.looked_up_count, second.pending) == (2, [tid(2)])
    (record,) = second.ended
    assert set(record) == set(ENDED_KEYS)
    assert record["data"] == b"r" * 20_000


# -- limits -------------------------------------------------------------------------------


def cull(store: Store, limits: Limits, now_s: float = 100.0) -> list[int]:
    """Forget all that is to be forgotten; return how many tasks in each step."""
    counts = []
    while count := store.cull(limits, now_s):
        counts.append(count)
    return counts


def test_without_limits_nothing_is_forgotten(store: Store) -> None:
    store.apply([submission(1), end(1)])
    assert cull(store, Limits()) == []


def test_the_oldest_ended_tasks_are_forgotten_when_there_are_too_many(store: Store) -> None:
    store.apply([submission(0, submitted_s=0.0)])
    for number in range(1, 20):
        store.apply([submission(number, submitted_s=float(number)), end(number)])
    assert sum(cull(store, Limits(task_count=5))) == 15
    assert store.history() == [tid(0), *(tid(number) for number in range(16, 20))]
    store.apply([submission(20, submitted_s=20.0), end(20)])
    assert cull(store, Limits(task_count=5)) == [1]
    assert cull(store, Limits(task_count=5)) == []


def test_what_has_not_ended_is_not_forgotten(store: Store) -> None:
    store.apply([map_submission(0, [b""] * 10)])
    assert cull(store, Limits(age_s=0.0, task_count=1, size_bytes=1)) == []
    assert len(store.history()) == 10


def test_old_tasks_are_forgotten(store: Store) -> None:
    def aborted(number: int, now_s: float) -> Record:
        return end(number, status="aborted", engine_id=-1, ended_s=now_s)

    for number in range(10):
        now_s = float(number)
        store.apply([submission(number, submitted_s=now_s), aborted(number, now_s + 1)])
    store.apply([aborted(10, 2.0)])  # nobody knows when that was submitted
    assert sum(cull(store, Limits(age_s=95.0))) == 5
    assert store.history() == [tid(number) for number in range(4, 10)]


def test_the_oldest_are_forgotten_when_they_take_too_much_room(store: Store) -> None:
    for number in range(40):
        store.apply(
            [submission(number, submitted_s=float(number)), end(number, data=b"r" * 100_000)]
        )
    assert 15 <= sum(cull(store, Limits(size_bytes=2_000_000))) <= 40
    kept = store.history()
    assert kept == [tid(number) for number in range(40 - len(kept), 40)]


def test_much_is_forgotten_in_steps(store: Store) -> None:
    count = 2 * CULL_COUNT_MAX + 500
    store.apply([map_submission(0, [b""] * count), *(end(number) for number in range(count))])
    steps = cull(store, Limits(task_count=0))
    assert max(steps) <= CULL_COUNT_MAX
    assert sum(steps) == count
