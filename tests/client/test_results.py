from __future__ import annotations

import asyncio
import operator
import threading
from datetime import UTC

import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

from parallelz import (
    AsyncResult,
    Client,
    CompositeError,
    DirectView,
    EngineError,
    LoadBalancedView,
    RemoteError,
    TaskAborted,
)


def add(x: int, y: int) -> int:
    return x + y


def fail(x: int) -> int:
    raise ValueError(f"bad {x}")


def fail_at_three(x: int) -> int:
    return fail(x) if x == 3 else x


def say(text: str) -> str:
    print(text)
    return text


def test_one_engine_gives_the_value_and_a_list_gives_a_list(rc: Client) -> None:
    assert rc[0].apply_async(add, 1, y=2).get(TIMEOUT_S) == 3
    assert rc[[0]].apply_async(add, 1, 2).get(TIMEOUT_S) == [3]
    assert rc[[1, 0]].apply_async(add, 1, 2).r == [3, 3]


def test_get_times_out_and_the_task_goes_on(
    cluster: ThreadCluster, lv: LoadBalancedView
) -> None:
    for engine in cluster.engines:
        engine.hold()
    result = lv.apply_async(add, 1, 2)
    assert repr(result) == "<AsyncResult(add): pending>"
    with pytest.raises(TimeoutError, match="not ready"):
        result.get(0.01)
    with pytest.raises(TimeoutError):
        result.get(0)
    with pytest.raises(RuntimeError, match="not done"):
        result.successful()
    for engine in cluster.engines:
        engine.go_on()
    assert result.get(TIMEOUT_S) == 3
    assert result.done()
    assert repr(result) == "<AsyncResult(add): finished>"


def test_an_error_is_what_was_raised_and_the_same_each_time(lv: LoadBalancedView) -> None:
    result = lv.apply_async(fail, 1)
    with pytest.raises(ValueError, match="bad 1") as first:
        result.get(TIMEOUT_S)
    with pytest.raises(RemoteError) as second:
        result.get()
    assert first.value is second.value
    assert result.exception() is first.value
    assert not result.successful()
    assert result.get(return_exceptions=True) is first.value


def test_errors_of_several_engines_are_one_composite(dv: DirectView) -> None:
    result = dv.apply_async(fail, 1)
    with pytest.raises(CompositeError, match="one or more exceptions raised in: fail") as info:
        result.get(TIMEOUT_S)
    assert [entry.ename for entry in info.value.elist] == ["ValueError"] * 2
    assert all(isinstance(e, ValueError) for e in result.get(return_exceptions=True))


def test_iterating_gives_results_in_order_and_raises_in_place(lv: LoadBalancedView) -> None:
    items = iter(lv.map_async(fail_at_three, range(5)))
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(ValueError, match="bad 3"):
        next(items)
    with pytest.raises(TypeError, match="not iterable"):
        iter(lv.apply_async(add, 1, 2))


def test_unordered_results_come_as_they_end(cluster: ThreadCluster, rc: Client) -> None:
    slow = cluster.engines[0]
    slow.hold()
    result = rc[:].map_async(str, range(4), ordered=False)
    items = iter(result)
    assert [next(items), next(items)] in (["0", "1"], ["2", "3"])
    assert result.progress == 2
    slow.go_on()
    assert sorted([*items]) in (["0", "1"], ["2", "3"])


def test_exceptions_take_the_place_of_results(lv: LoadBalancedView, dv: DirectView) -> None:
    for result in (
        lv.map_async(fail_at_three, range(5), return_exceptions=True),
        lv.map_async(fail_at_three, range(5), chunksize=2, return_exceptions=True),
        dv.map_async(fail_at_three, range(5), return_exceptions=True),
    ):
        values = result.get(TIMEOUT_S)
        assert [v for v in values if isinstance(v, int)] == [0, 1, 2, 4]
        assert isinstance(values[3], ValueError)
        assert [type(value) for value in result] == [type(value) for value in values]


def test_index_slice_and_names_of_metadata(dv: DirectView) -> None:
    result = dv.apply_async(add, 1, 2)
    result.wait(TIMEOUT_S)
    assert (result[0], result[:], len(result)) == (3, [3, 3], 2)
    assert result["engine_id"] == result.engine_id == [0, 1]
    assert result.get_dict() == {0: 3, 1: 3}
    assert "engine_id" in dir(result)
    with pytest.raises(KeyError):
        result["nonsense"]
    with pytest.raises(AttributeError):
        _ = result.nonsense


def test_get_dict_refuses_two_results_of_one_engine(lv: LoadBalancedView) -> None:
    with pytest.raises(ValueError, match="Cannot build dict"):
        lv.map_async(str, range(8)).get_dict(TIMEOUT_S)


def test_metadata_of_a_task(rc: Client) -> None:
    result = rc[1].apply_async(say, "hi")
    result.get(TIMEOUT_S)
    metadata = result.metadata
    assert metadata["status"] == metadata.status == "ok"
    assert metadata.msg_id == result.msg_ids[0]
    assert metadata.engine_id == 1
    assert metadata.engine_uuid == rc.connection.ledger.engines[1].session_id
    assert metadata.host
    assert metadata.started.tzinfo is UTC
    assert metadata.submitted <= metadata.started <= metadata.completed <= metadata.received
    assert metadata.ran_s >= 0
    assert metadata.retries == 0
    assert result.serial_time <= result.wall_time == result.elapsed
    with pytest.raises(KeyError):
        metadata["nonsense"] = 1


def test_output_is_shown(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    result = rc[[1]].apply_async(say, "hi")
    result.display_outputs()
    assert result.stdout == ["hi\n"]
    assert capsys.readouterr().out.endswith("hi\n")


def test_a_callback_may_wait_for_results(lv: LoadBalancedView) -> None:
    is_done = threading.Event()
    values = []

    def callback(result: AsyncResult) -> None:
        values.append((result.get(), lv.apply_sync(add, 3, 4)))
        is_done.set()

    lv.apply_async(add, 1, 2).add_done_callback(callback)
    assert is_done.wait(TIMEOUT_S)
    assert values == [(3, 7)]


def test_a_callback_that_fails_is_logged_and_the_next_runs(
    lv: LoadBalancedView, caplog: pytest.LogCaptureFixture
) -> None:
    is_done = threading.Event()
    result = lv.apply_async(add, 1, 2)
    result.add_done_callback(lambda result: 1 / 0)
    result.add_done_callback(lambda result: is_done.set())
    assert is_done.wait(TIMEOUT_S)
    assert "callback" in caplog.text


def test_results_can_be_awaited(lv: LoadBalancedView) -> None:
    async def both() -> list[object]:
        return await asyncio.gather(lv.apply_async(add, 1, 2), lv.map_async(str, range(2)))

    assert asyncio.run(both()) == [3, ["0", "1"]]

    async def failing() -> object:
        return await lv.apply_async(fail, 1)

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(failing())


def test_join_and_split(lv: LoadBalancedView, dv: DirectView) -> None:
    joined = AsyncResult.join(lv.apply_async(add, 1, 2), dv.apply_async(add, 2, 2))
    assert joined.get(TIMEOUT_S) == [3, 4, 4]
    assert [part.get() for part in joined.split()] == [3, 4, 4]


def test_abort_ends_what_has_not_started(
    cluster: ThreadCluster, rc: Client, lv: LoadBalancedView
) -> None:
    for engine in cluster.engines:
        engine.hold()
    result = rc[0].apply_async(add, 1, 2)
    waiting = lv.map_async(operator.neg, range(1000))
    waiting.abort()
    result.abort()
    for engine in cluster.engines:
        engine.go_on()
    assert waiting.wait(TIMEOUT_S)
    assert "aborted" in waiting["status"]
    result.wait(TIMEOUT_S)
    if not result.successful():
        with pytest.raises(TaskAborted, match=result.msg_ids[0]):
            result.get()
    with pytest.raises(RuntimeError, match="already done"):
        result.abort()


def test_a_lost_engine_is_named_with_its_cause(cluster: ThreadCluster, rc: Client) -> None:
    engine = cluster.engines[0]
    engine.hold()
    result = rc[0].apply_async(add, 1, 2)
    view = rc[0]
    rc.shutdown(0)
    with pytest.raises(EngineError, match="0"):
        result.get(TIMEOUT_S)
    rc.connection.wait(lambda: rc.ids == [1], TIMEOUT_S)
    with pytest.raises(EngineError, match=r"engine 0 is gone: .*client asked"):
        view.apply(add, 1, 2)


def test_progress_bar(lv: LoadBalancedView, capsys: pytest.CaptureFixture[str]) -> None:
    result = lv.map_async(str, range(20), chunksize=3)
    assert result.wait_interactive(0.01, TIMEOUT_S)
    assert len(result) == result.progress == 20
    assert "20/20" in capsys.readouterr().err
