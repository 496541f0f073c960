"""Control and questions past the queues, and the bound of what a client awaits."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import msgspec
import pytest
from helpers_client import TIMEOUT_S, ThreadCluster
from helpers_script import Said, scripted

from parallelz import Client, LoadBalancedView, QueueFull, TaskAborted
from parallelz.ids import EngineId
from parallelz.protocol.answers import StoryLine
from parallelz.protocol.messages import (
    AskHistory,
    AskState,
    CancelTasks,
    DrainEngines,
    EngineInfo,
    EngineJoined,
    ErrorInfo,
    Message,
    PeerInfo,
    Reply,
    SubmitTask,
    TaskEnded,
)

LINE = StoryLine(2.5, "waiting", "placed", "engine 1 was free", EngineId(1))


def reply(message: Message, value: object) -> list[Said]:
    return [(Reply(message.request_id, msgspec.msgpack.encode(value)), ())]  # type: ignore[attr-defined]


def answer(message: Message) -> list[Said]:
    """Answer as a controller does that knows of one task, whose number is 0."""
    match message:
        case AskState(question="story"):
            return reply(
                message, [[LINE] if t.endswith("-0") else [] for t in message.task_ids]
            )
        case AskState(question="why"):
            known = ["it runs" if t.endswith("-0") else "" for t in message.task_ids]
            return reply(message, known)
        case AskState(question="dump"):
            return reply(message, {"tasks": {"a-0": {"state": "placed"}}, "engines": []})
        case AskHistory():
            return reply(message, RECORDS)
        case CancelTasks() | DrainEngines():
            return reply(message, None)
        case _:
            return []


NOTHING = {"completed": None, "received": None, "engine_id": None, "ename": None, "evalue": ""}
RECORDS: list[dict[str, object]] = [
    {**NOTHING, "msg_id": "x-1", "status": "ok", "completed": 1.0, "engine_id": 2},
    {**NOTHING, "msg_id": "x-2", "status": "error", "ename": "KeyError", "evalue": "k"},
    {
        **NOTHING,
        "msg_id": "x-3",
        "status": "engine-lost",
        "ename": "EngineError",
        "evalue": "e",
    },
    {**NOTHING, "msg_id": "x-4", "status": "pending"},
]


def test_a_story_reads_as_lines_of_text() -> None:
    with scripted(answer) as (rc, _):
        task = rc.load_balanced_view().apply_async(abs, 1)
        story = rc.story(task)
        assert repr(story).splitlines()[0] == f"task {task.msg_ids[0]}:"
        assert story[0].strip() == (  # type: ignore[union-attr]
            "2.5 s ago: waiting -> placed, engine 1 (engine 1 was free)"
        )
        assert story[0].line == LINE  # type: ignore[union-attr]
        assert [list(each) for each in rc.story([task, "x-9"])] == [story, []]
        assert "nothing is known" in str(rc.story("x-9"))


def test_why_asks_the_history_for_what_the_controller_has_forgotten() -> None:
    with scripted(answer) as (rc, _):
        assert rc.why("x-0") == "it runs"
        known, ok, failed, lost, pending, unknown = rc.why(
            [f"x-{n}" for n in (0, 1, 2, 3, 4, 5)]
        )
        assert known == "it runs"
        assert ok.startswith("it ended ok ")
        assert ok.endswith(" s ago on engine 2")
        assert failed == "it failed (KeyError: k)"
        assert lost == "it ended: engine-lost (EngineError: e)"
        assert "controller" in pending
        assert "nobody knows a task x-5" in unknown


def test_a_dump_is_a_dict_and_a_file(tmp_path: Path) -> None:
    with scripted(answer) as (rc, _):
        state = rc.dump(tmp_path / "state.json")
        assert state["engines"] == []
        assert json.loads((tmp_path / "state.json").read_text()) == state


def test_cancel_names_the_tasks_and_the_grace() -> None:
    with scripted(answer) as (rc, controller):
        lv = rc.load_balanced_view()
        first, second = lv.apply_async(abs, 1), lv.apply_async(abs, 2)
        rc.cancel([])
        rc.cancel(first)
        rc.cancel(grace=0.5)
        lv.cancel(second, grace=0)
        assert second.cancel(grace=1)
        told = [message for message, _ in controller.wait_for(CancelTasks, 4)]
        assert [(message.task_ids, message.grace_s) for message in told] == [  # type: ignore[attr-defined]
            (first.msg_ids, 2.0),
            ([*first.msg_ids, *second.msg_ids], 0.5),
            (second.msg_ids, 0.0),
            (second.msg_ids, 1.0),
        ]


def test_what_has_ended_cannot_be_cancelled_and_what_was_cancelled_says_so() -> None:
    with scripted(answer) as (rc, controller):
        result = rc.load_balanced_view().apply_async(abs, 1)
        assert not result.cancelled()
        error = ErrorInfo("TaskAborted", "cancelled by its client")
        controller.say(TaskEnded(result.msg_ids[0], "aborted", EngineId(0), error=error))
        with pytest.raises(TaskAborted, match="was aborted: cancelled by its client"):
            result.get(TIMEOUT_S)
        assert result.cancelled()
        assert not result.cancel()


def test_drain_names_the_engines() -> None:
    with scripted(answer) as (rc, controller):
        for number in (0, 1):
            peer = PeerInfo("here", "here", 1)
            info = EngineInfo(EngineId(number), "e", peer)  # type: ignore[arg-type]
            controller.say(EngineJoined(info))
        rc.wait_for_engines(2, TIMEOUT_S)
        rc.drain()
        rc[1].drain()
        told = [message.engine_ids for message, _ in controller.wait_for(DrainEngines, 2)]  # type: ignore[attr-defined]
        assert told == [[0, 1], [1]]


# -- bounds -------------------------------------------------------------------------------


def test_a_full_client_says_so_and_what_to_do() -> None:
    with scripted(max_outstanding=2, when_full="raise") as (rc, _):
        lv = rc.load_balanced_view()
        assert (rc.max_outstanding, rc.when_full) == (2, "raise")
        lv.apply_async(abs, 1)
        lv.map_async(abs, range(10))  # begun below the limit, so it goes
        with pytest.raises(QueueFull, match=r"11 tasks .* max_outstanding is 2: wait"):
            lv.apply_async(abs, 1)
        with pytest.raises(QueueFull):
            lv.map_async(abs, [1])
        with pytest.raises(QueueFull):
            lv.submit_graph({"a": []}, {"a": list})
        rc.max_outstanding = 12
        lv.apply_async(abs, 1)
        assert len(lv.history) == 12


def test_a_full_client_waits_until_there_is_room() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        first = lv.apply_async(abs, 1)
        rc.max_outstanding = 1
        second = threading.Thread(target=lv.apply_async, args=(abs, 2))
        second.start()
        controller.wait_for(SubmitTask)
        assert lv.history == first.msg_ids
        controller.say(TaskEnded(first.msg_ids[0], "ok", EngineId(0)))
        controller.wait_for(SubmitTask, 2)
        second.join(TIMEOUT_S)


def test_callbacks_may_submit_to_a_full_client(
    rc: Client, lv: LoadBalancedView, cluster: ThreadCluster
) -> None:
    rc.max_outstanding = 1
    results = []
    is_done = threading.Event()

    def submit_another(result: object) -> None:
        results.append(lv.apply_async(abs, -len(results)))
        if len(results) == 20:
            is_done.set()
        else:
            results[-1].add_done_callback(submit_another)

    lv.apply_async(abs, 1).add_done_callback(submit_another)
    assert lv.map_sync(abs, range(50)) == list(range(50))
    assert is_done.wait(TIMEOUT_S)
    assert [result.get(TIMEOUT_S) for result in results] == list(range(20))


@pytest.mark.parametrize("value", [0, -1, 1.5, None, True])
def test_the_limit_is_an_int(rc: Client, value: int) -> None:
    with pytest.raises(ValueError, match="max_outstanding must be"):
        rc.max_outstanding = value
    with pytest.raises(ValueError, match="when_full must be"):
        rc.when_full = "explode"  # type: ignore[assignment]
