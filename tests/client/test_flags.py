"""The flags of a balanced view: checked at once, and part of every call."""

from __future__ import annotations

import numpy
import pytest
from helpers_client import ThreadCluster
from helpers_script import scripted

from parallelz import Client, LoadBalancedView
from parallelz.protocol.messages import SubmitMap, SubmitTask, TaskOptions

FLAGS: dict[str, object] = {
    "retries": 2,
    "retry_delay": 0.5,
    "max_runtime": 60,
    "priority": -3,
    "labels": ["gpu", "big"],
    "resources": {"gpu": 1, "mem": 2.5},
    "timeout": 9,
    "tags": {"run": 7},
}
OPTIONS = TaskOptions(
    retries=2,
    wait_timeout_s=9.0,
    max_runtime_s=60.0,
    retry_delay_s=0.5,
    priority=-3,
    labels=["gpu", "big"],
    resources={"gpu": 1.0, "mem": 2.5},
    tags={"run": 7},
)


def test_flags_go_with_calls_maps_and_decorated_functions() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view(**FLAGS)
        lv.apply_async(abs, 1)
        lv.map_async(abs, [1, 2])
        plain = rc.load_balanced_view()
        plain.apply_async(abs, 1)
        plain.remote(**FLAGS)(abs)(1)
        plain.apply_async(abs, 1)
        tasks = [message for message, _ in controller.wait_for(SubmitTask, 4)]
        maps = [message for message, _ in controller.wait_for(SubmitMap)]
        assert [task.options for task in tasks] == [OPTIONS, None, OPTIONS, None]  # type: ignore[attr-defined]
        assert maps[0].options == OPTIONS  # type: ignore[attr-defined]


def test_a_collection_of_dependencies_may_be_changed_in_place() -> None:
    with scripted() as (rc, controller):
        lv = rc.load_balanced_view(retries=1)
        earlier: list[object] = []
        lv.after = earlier
        earlier.append(lv.apply_async(abs, 1))
        lv.apply_async(abs, 2)
        first, second = (message.options for message, _ in controller.wait_for(SubmitTask, 2))  # type: ignore[attr-defined]
        assert first == TaskOptions(retries=1)
        assert second.after.task_ids == earlier[0].msg_ids  # type: ignore[attr-defined]
        assert second.retries == 1


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("retries", -1, ValueError),
        ("retries", 1.5, ValueError),
        ("retries", True, ValueError),
        ("retry_delay", -0.1, ValueError),
        ("retry_delay", None, TypeError),
        ("max_runtime", "1 h", TypeError),
        ("timeout", float("nan"), ValueError),
        ("priority", 0.5, ValueError),
        ("priority", "high", TypeError),
        ("labels", [1], TypeError),
        ("labels", 5, ValueError),
        ("resources", {"gpu": -1}, ValueError),
        ("resources", {"gpu": "1"}, ValueError),
        ("resources", ["gpu"], TypeError),
    ],
)
def test_nonsense_is_refused_when_it_is_set(
    lv: LoadBalancedView, name: str, value: object, error: type[Exception]
) -> None:
    before = getattr(lv, name)
    with pytest.raises(error, match=f"{name} must be"):
        lv.set_flags(**{name: value})
    with pytest.raises(error, match=f"{name} must be"):
        setattr(lv, name, value)
    assert getattr(lv, name) is before


def test_flags_are_kept_in_one_form(lv: LoadBalancedView) -> None:
    lv.set_flags(labels="gpu", resources={"gpu": 1}, timeout=None, max_runtime=3)
    assert tuple(lv.labels) == ("gpu",)
    assert lv.resources == {"gpu": 1.0}
    assert (lv.timeout, lv.max_runtime) == (None, 3.0)


def test_numbers_of_numpy_can_be_tags(lv: LoadBalancedView) -> None:
    lv.tags = {"run": numpy.int64(7), "rate": numpy.float64(0.5), "kind": numpy.str_("x")}
    assert [type(value) for value in lv.tags.values()] == [int, float, str]


def test_what_numpy_has_can_be_flags(lv: LoadBalancedView) -> None:
    lv.set_flags(
        labels=numpy.array(["gpu"]),
        label=numpy.str_("night"),
        retries=numpy.int64(2),
        priority=numpy.int8(1),
        max_runtime=numpy.float32(0.5),
        resources={numpy.str_("gpu"): numpy.int64(1)},
    )
    assert [type(each) for each in (*lv.labels, lv.label, *lv.resources)] == [str] * 3
    assert [type(each) for each in (lv.retries, lv.priority, lv.max_runtime)] == [
        int,
        int,
        float,
    ]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("label", 5),
        ("label", "\ud800"),
        ("labels", ["\ud800"]),
        ("resources", {"\ud800": 1}),
        ("retries", 2**63),
        ("priority", -(2**63)),
    ],
)
def test_what_no_message_can_hold_is_refused_when_it_is_set(
    lv: LoadBalancedView, flag: str, value: object
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{flag} must be "):
        setattr(lv, flag, value)


@pytest.mark.parametrize(
    ("tags", "error", "reason"),
    [
        ("night", TypeError, "tags must be a dict"),
        ({"a b": 1}, ValueError, "letters, digits"),
        ({"a": None}, ValueError, "tag 'a' must be a text of at most 1000 .* not None"),
        ({"a": True}, ValueError, "tag 'a' must be a text"),
        ({"a": float("inf")}, ValueError, "finite number"),
        ({"a": "x" * 1001}, ValueError, "at most 1000 characters"),
        ({f"t{n}": n for n in range(33)}, ValueError, "at most 32 tags, not 33"),
    ],
)
def test_tags_that_cannot_be_kept_are_refused_and_the_old_ones_stay(
    lv: LoadBalancedView, tags: object, error: type[Exception], reason: str
) -> None:
    lv.tags = {"run": 1}
    with pytest.raises(error, match=reason):
        lv.set_flags(tags=tags)
    assert lv.tags == {"run": 1}


def test_tags_change_neither_with_what_they_were_made_of_nor_in_place(
    lv: LoadBalancedView,
) -> None:
    mine: dict[str, str | int | float] = {"run": 1}
    lv.tags = mine
    mine["run"] = 2
    assert lv.tags == {"run": 1}
    with pytest.raises(TypeError):
        lv.tags["run"] = 3  # type: ignore[index]


def test_flags_of_a_with_block_end_with_it(lv: LoadBalancedView) -> None:
    lv.labels = ["a"]
    with lv.temp_flags(labels=["b"], priority=1):
        lv.retries = 4
        assert (lv.labels, lv.priority) == (("b",), 1)
    assert (lv.labels, lv.priority, lv.retries) == (("a",), 0, 0)


def test_a_view_of_some_engines_stays_one(rc: Client, cluster: ThreadCluster) -> None:
    lv = rc.load_balanced_view([1])
    with lv.temp_flags(label="x"):
        assert lv.apply_async(abs, 1).get_dict() == {1: 1}
