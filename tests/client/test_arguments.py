"""Results as arguments of calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from helpers_client import TIMEOUT_S, ThreadCluster
from helpers_script import ScriptedController, scripted

from parallelz import AsyncResult, Client, ImpossibleDependency, LoadBalancedView
from parallelz.ids import EngineId, TaskId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.inputs import providing
from parallelz.protocol.messages import (
    ErrorInfo,
    FetchValues,
    ProvideValue,
    SubmitMap,
    SubmitTask,
    TaskEnded,
)
from parallelz.protocol.payload import dump, load


def end(controller: ScriptedController, result: AsyncResult, *values: object) -> None:
    """Let the tasks of a result end with these values."""
    for task_id, value in zip(result.msg_ids, values, strict=True):
        data, buffers = dump(value)
        ended = TaskEnded(task_id, "ok", EngineId(0), data=data, frame_count=len(buffers))
        controller.say(ended, buffers)


def last_call(
    controller: ScriptedController, count: int, *inputs: object
) -> tuple[list[TaskId], object]:
    """Return the inputs of the last of so many tasks, and its arguments on an engine."""
    message, buffers = controller.wait_for(SubmitTask, count)[count - 1]
    assert isinstance(message, SubmitTask)
    provided: list[tuple[bytes, Sequence[Buffer]]] = [dump(value) for value in inputs]
    with providing(provided):
        _, args, kwargs = load(message.data, buffers)  # type: ignore[misc]
    return message.options.inputs if message.options else [], (*args, *kwargs.values())


def test_a_result_that_is_there_travels_as_its_value(lv: LoadBalancedView) -> None:
    three = lv.apply_async(abs, -3)
    assert three.get(TIMEOUT_S) == 3
    several = lv.map_async(abs, [-1, -2])
    several.wait(TIMEOUT_S)
    assert lv.apply_sync(divmod, 7, three) == (2, 1)
    assert lv.apply_sync(list, {"a": several, "b": [three]}.items()) == [
        ("a", [1, 2]),
        ("b", [3]),
    ]


def test_a_result_that_failed_fails_the_call(lv: LoadBalancedView) -> None:
    failed = lv.apply_async(divmod, 1, 0)
    failed.wait(TIMEOUT_S)
    before = len(lv.history)
    with pytest.raises(ZeroDivisionError):
        lv.apply_async(abs, failed)
    assert len(lv.history) == before


def test_a_pending_result_is_named_as_an_input_wherever_it_is() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        first, second = lv.apply_async(abs, -1), lv.apply_async(abs, -2)
        lv.apply_async(print, [{"deep": first}], second, again=first)
        inputs, args = last_call(controller, 3, 1, 2)
        assert inputs == [*first.msg_ids, *second.msg_ids]
        assert args == ([{"deep": 1}], 2, 1)


def test_an_input_inside_a_call_that_goes_by_value() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        first = lv.apply_async(abs, -1)
        lv.apply_async(print, lambda: first, first)
        inputs, args = last_call(controller, 2, "value")
        assert inputs == first.msg_ids
        assert args[1] == "value"  # type: ignore[index]
        assert args[0]() == "value"  # type: ignore[index]


def test_the_forms_of_several_results() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        a, b, c = (lv.apply_async(abs, n) for n in range(3))
        chunked = lv.map_async(abs, range(5), chunksize=2)
        mixed = AsyncResult.join(c, a)
        lv.apply_async(print, AsyncResult.join(a, b, c), mixed, chunked)
        inputs, args = last_call(controller, 4, 10, 11, 12, [0, 1], [2, 3], [4])
        assert inputs == [*a.msg_ids, *b.msg_ids, *c.msg_ids, *chunked.msg_ids]
        assert args == ([10, 11, 12], [12, 10], [0, 1, 2, 3, 4])


def test_maps_and_direct_calls_wait_for_their_arguments(
    rc: Client, lv: LoadBalancedView, cluster: ThreadCluster
) -> None:
    first = lv.apply_async(abs, -1)
    assert lv.map_sync(abs, [first, -2]) == [1, 2]
    assert rc[0].apply_sync(abs, lv.apply_async(abs, -3)) == 3
    with pytest.raises(ZeroDivisionError):
        rc[0].apply_async(abs, lv.apply_async(divmod, 1, 0))


def test_a_result_with_exceptions_in_it_is_waited_for(lv: LoadBalancedView) -> None:
    tolerant = lv.map_async(divmod, [1, 2], [0, 1], return_exceptions=True)
    value = lv.apply_sync(list, tolerant)
    assert isinstance(value[0], ZeroDivisionError)
    assert value[1] == (2, 0)


def test_the_values_of_inputs_are_provided_when_asked_for_and_when_they_come() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        early, late, bad = (lv.apply_async(abs, n) for n in range(3))
        lv.apply_async(print, early, late, bad)
        ids = [*early.msg_ids, *late.msg_ids, *bad.msg_ids]
        del bad  # the new task holds what it needs
        end(controller, early, b"x" * 50_000)
        controller.say(FetchValues([*ids, TaskId("nobody-1-7")]))
        (held, buffers), (unknown, _) = controller.wait_for(ProvideValue, 2)
        assert isinstance(held, ProvideValue)
        assert isinstance(unknown, ProvideValue)
        assert (held.task_id, held.is_held) == (ids[0], True)
        assert load(held.data, buffers) == b"x" * 50_000
        assert (unknown.task_id, unknown.is_held) == ("nobody-1-7", False)
        end(controller, late, 5)
        error = ErrorInfo("ValueError", "no")
        controller.say(TaskEnded(ids[2], "error", EngineId(0), error=error))
        (five, buffers), (failed, _) = controller.wait_for(ProvideValue, 4)[2:]
        assert isinstance(five, ProvideValue)
        assert isinstance(failed, ProvideValue)
        assert (five.task_id, load(five.data, buffers)) == (ids[1], 5)
        assert (failed.task_id, failed.is_held) == (ids[2], False)


def test_a_task_that_has_ended_holds_its_inputs_no_longer() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        first = lv.apply_async(abs, 1)
        second = lv.apply_async(print, first)
        submission = rc.connection.ledger.awaited[1]
        assert [each.task_id(0) for each in submission.inputs] == first.msg_ids
        end(controller, second, None)
        assert second.wait(TIMEOUT_S)
        assert submission.inputs == ()


def test_a_task_whose_input_cannot_come_is_impossible() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view()
        second = lv.apply_async(print, lv.apply_async(abs, 1))
        error = ErrorInfo("ImpossibleDependency", "its input failed")
        controller.say(TaskEnded(second.msg_ids[0], "impossible", EngineId(-1), error=error))
        with pytest.raises(ImpossibleDependency, match="its input failed"):
            second.get(TIMEOUT_S)


def test_many_messages_leave_in_several_envelopes() -> None:
    with scripted() as (rc, controller):
        graph: dict[int, list[int]] = {n: [] for n in range(12_000)}
        rc.load_balanced_view().submit_graph(graph, dict.fromkeys(graph, list))
        controller.wait_for(SubmitTask, 12_000)
        rc.load_balanced_view().map_async(len, ["x" * 10_000] * 1000)
        controller.wait_for(SubmitMap, 2)
        assert max(controller.envelopes) == 1000
