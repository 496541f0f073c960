"""Stores of every kind do what a list of dictionaries would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from helpers_queries import batches, holds, queries
from helpers_store import E0, ME, RUN, tid
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelz.ids import SessionId, TaskId, task_id_of
from parallelz.protocol.messages import SubmitDirect, SubmitMap, SubmitTask, TaskOptions
from parallelz.store.interface import CLUSTER_ENDED, CLUSTER_STOPPED, Limits, Run, Store
from parallelz.store.query import KEYS
from parallelz.store.record import (
    EndRecord,
    EngineRecord,
    FunctionRecord,
    Record,
    SubmissionRecord,
)
from parallelz.store.restored import ENDED_KEYS

IDS = [tid(number) for number in range(10)]
ORDERS = st.lists(
    st.sampled_from(["name", "-name", "started", "-engine_id", "-submitted", "label"]),
    max_size=2,
)
encode = msgspec.msgpack.encode


class Oracle:
    """What there should be, by task id in the order in which tasks became known."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.hosts: dict[str, str] = {}
        self.functions: dict[bytes, str] = {}
        self.runs: dict[str, str] = {}  # of tasks
        self.run = ""
        self.known_runs: set[str] = set()

    def apply(self, batch: list[Record]) -> None:
        # An end may be recorded before what it is the end of, but not in another batch.
        for record in sorted(batch, key=lambda record: isinstance(record, EndRecord)):
            match record:
                case SubmissionRecord():
                    for task in submitted(record):
                        if task["msg_id"] not in self.tasks:
                            self.put(task)
                case EndRecord():
                    self.end(record.message.task_id, ended(record))
                case EngineRecord():
                    self.hosts[record.engine.session_id] = record.engine.peer.host
                case FunctionRecord():
                    self.functions.setdefault(record.digest, record.name)

    def put(self, task: dict[str, Any]) -> None:
        self.tasks[task["msg_id"]] = dict.fromkeys(KEYS) | {"status": "pending"} | task
        self.runs[task["msg_id"]] = self.run

    def end(self, task_id: str, end: dict[str, Any]) -> None:
        if task_id not in self.tasks:
            self.put({"msg_id": task_id, "client_uuid": task_id.rpartition("-")[0]})
        if self.tasks[task_id]["status"] == "pending":
            self.tasks[task_id] |= end

    def pending(self) -> list[str]:
        return [key for key, task in self.tasks.items() if task["status"] == "pending"]

    def lose(self, runs: Callable[[str], bool], why: str, now_s: float) -> int:
        doomed = [key for key in self.pending() if runs(self.runs[key])]
        for key in doomed:
            lost = {"status": "lost", "ename": "ClusterError", "evalue": why, "traceback": ""}
            self.end(key, lost | {"completed": now_s, "received": now_s, "retries": 0})
        return len(doomed)

    def begin_run(self, run: str, now_s: float) -> int:
        is_known, self.run = run in self.known_runs, run
        self.known_runs.add(run)
        return 0 if is_known else self.lose(lambda other: other != run, CLUSTER_ENDED, now_s)

    def records(self, order: list[str]) -> list[dict[str, Any]]:
        records = [
            task
            | {"host": self.hosts.get(task["engine_uuid"])}
            | {"error": task["ename"] and f"{task['ename']}: {task['evalue']}"}
            | ({"error": f": {task['evalue']}"} if task["ename"] == "" else {})
            for task in self.tasks.values()
        ]
        if order and order[0].startswith("-"):
            records.reverse()
        for key in reversed(order):
            name = key.removeprefix("-")
            records.sort(
                key=lambda task: (task[name] is not None, task[name] or type(task[name])()),
                reverse=key != name,
            )
        return records


def submitted(record: SubmissionRecord) -> list[dict[str, Any]]:
    message = record.message
    common: dict[str, Any] = {
        "client_uuid": ME,
        "queue": "balanced",
        "name": record.name,
        "digest": message.digest,
        "submitted": message.submitted_s,
        "arrived": record.arrived_s,
        "payload_frames": record.frames or None,
    }
    if not isinstance(message, SubmitMap):
        size = record.sizes[0] if record.sizes else len(message.data)
        common |= {"payload": message.data, "payload_bytes": size}
    if isinstance(message, SubmitDirect):
        return [
            common
            | {"msg_id": task_id_of(ME, message.first_number + place), "engine_id": engine_id}
            | {"queue": "direct", "label": message.label, "tags": message.tags or None}
            for place, engine_id in enumerate(message.engine_ids)
        ]
    options = message.options
    marks = {"label": ""} if options is None else marks_of(options)
    if isinstance(message, SubmitTask):
        return [common | marks | {"msg_id": message.task_id}]
    return [
        common
        | marks
        | {"msg_id": task_id_of(ME, message.first_number + place)}
        | {"payload": item, "payload_bytes": len(item)}
        for place, item in enumerate(message.items)
    ]


def marks_of(options: TaskOptions) -> dict[str, Any]:
    return {
        "label": options.label,
        "tags": options.tags or None,
        "after": options.after and options.after.task_ids,
        "follow": options.follow and options.follow.task_ids,
        "options": encode(options),
    }


def ended(record: EndRecord) -> dict[str, Any]:
    message, error, outputs = record.message, record.message.error, record.message.outputs
    return {
        "status": message.status,
        "engine_id": None if message.engine_id < 0 else message.engine_id,
        "engine_uuid": record.engine_uuid or None,
        "started": message.started_s,
        "completed": message.completed_s,
        "received": record.ended_s,
        "retries": message.retries,
        "data": message.data,
        "frames": record.frames or None,
        "data_bytes": record.size or len(message.data),
        "ename": error and error.ename,
        "evalue": error and error.evalue,
        "traceback": error and error.traceback,
        "stdout": outputs.stdout if outputs else "",
        "stderr": outputs.stderr if outputs else "",
    }


class Pair:
    """A store and the oracle, of which the same is asked."""

    def __init__(self, open_store: Callable[[], Store], *, keeps: bool) -> None:
        self.open_store = open_store
        self.keeps = keeps
        self.store = open_store()
        self.oracle = Oracle()
        self.begin_run(RUN.key, 0.0)

    def begin_run(self, key: str, now_s: float) -> None:
        run = Run(key, RUN.cluster)
        assert self.store.begin_run(run, now_s) == self.oracle.begin_run(key, now_s)

    def end_run(self, now_s: float) -> None:
        count = self.oracle.lose(lambda run: run == self.oracle.run, CLUSTER_STOPPED, now_s)
        assert self.store.end_run(now_s) == count

    def apply(self, batch: list[Record]) -> None:
        self.store.apply(batch)
        self.oracle.apply(batch)

    def restart(self) -> None:
        if self.keeps:
            self.store.close()
            self.store = self.open_store()
            self.begin_run(self.oracle.run, 50.0)

    def purge(self, task_ids: list[TaskId] | None, engines: list[SessionId] | None) -> None:
        doomed = [
            key
            for key, task in self.oracle.tasks.items()
            if task["status"] != "pending"
            and (task_ids is None or key in task_ids)
            and (engines is None or task["engine_uuid"] in engines)
        ]
        assert self.store.purge(task_ids, engines) == len(doomed)
        for key in doomed:
            del self.oracle.tasks[key]

    def cull(self, count: int) -> None:
        while self.store.cull(Limits(task_count=count), 100.0):
            pass
        left = self.store.status([TaskId(key) for key in self.oracle.tasks])
        pending = self.oracle.pending()
        assert set(pending) <= set(left)
        assert len(left) == min(len(self.oracle.tasks), max(count, len(pending)))
        self.oracle.tasks = {
            key: self.oracle.tasks[key] for key in self.oracle.tasks if key in left
        }

    def query(self, query: dict[str, Any], order: list[str], limit: int | None) -> None:
        expected = [task for task in self.oracle.records(order) if holds(query, task)][:limit]
        assert self.store.query(query, list(KEYS), order=order, limit=limit) == expected
        # Whoever does not ask for large values gets the same without them.
        small = [{"msg_id": task["msg_id"], "name": task["name"]} for task in expected]
        assert self.store.query(query, ["name"], order=order, limit=limit) == small

    def restore(self, bytes_max: int) -> None:
        found, after = self.store.pending(0, bytes_max)
        while after:
            page, after = self.store.pending(after, bytes_max)
            assert page
            found += page
        own = [key for key in self.oracle.pending() if self.oracle.runs[key] == self.oracle.run]
        assert [task["msg_id"] for task in found] == own
        for task in found:
            known = self.oracle.tasks[str(task["msg_id"])]
            assert {key: task[key] for key in known.keys() & task.keys()} == {
                key: known[key] for key in known.keys() & task.keys()
            }

    def ends(self, bytes_max: int) -> None:
        wanted = [*IDS, TaskId("nobody-1")]
        while wanted:
            answer = self.store.ends(wanted, bytes_max)
            looked_up, wanted = (
                wanted[: answer.looked_up_count],
                wanted[answer.looked_up_count :],
            )
            assert looked_up
            tasks = {
                key: self.oracle.tasks[key] for key in looked_up if key in self.oracle.tasks
            }
            by_id = {record["msg_id"]: record for record in answer.ended}
            assert set(answer.pending) == {
                key for key, task in tasks.items() if task["status"] == "pending"
            }
            assert by_id == {
                key: {name: task[name] for name in ENDED_KEYS}
                for key, task in tasks.items()
                if task["status"] != "pending"
            }


ids = st.none() | st.lists(st.sampled_from(IDS), max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("apply"), batches()),
    st.tuples(st.just("apply"), batches()),
    st.tuples(st.just("query"), queries(), ORDERS, st.none() | st.integers(0, 4)),
    st.tuples(st.just("query"), queries(), ORDERS, st.none() | st.integers(0, 4)),
    st.tuples(st.just("restart")),
    st.tuples(
        st.just("begin_run"), st.sampled_from(["first", "second", "third"]), st.just(9.0)
    ),
    st.tuples(st.just("end_run"), st.just(8.0)),
    st.tuples(st.just("purge"), ids, st.none() | st.just([E0])),
    st.tuples(st.just("cull"), st.integers(0, 6)),
    st.tuples(st.just("restore"), st.sampled_from([0, 20_000, 10**9])),
    st.tuples(st.just("ends"), st.sampled_from([0, 20_000, 10**9])),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=12))
def test_a_store_does_what_a_list_of_dictionaries_would(
    begin: Callable[[], Callable[[], Store]],
    request: Any,
    steps: list[tuple[Any, ...]],
) -> None:
    keeps = "memory" not in request.node.name
    pair = Pair(begin(), keeps=keeps)
    try:
        for name, *arguments in steps:
            getattr(pair, name)(*arguments)
        pair.query({}, [], None)
        digests = list(pair.oracle.functions)
        names = [function.name for function in pair.store.functions(digests)]
        assert names == list(pair.oracle.functions.values())
    finally:
        pair.store.close()
