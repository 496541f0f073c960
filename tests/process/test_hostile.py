"""A catalogue of objects that do not behave: what the user sees, and that nothing else suffers.

After each of them the same cluster answers, with the same engines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallelz import Client, Cluster, DirectView, EngineError, LoadBalancedView, RemoteError
from parallelz.errors import SerializationError

pytestmark = pytest.mark.process

TIMEOUT_S = 30

_FILE = Path(__file__).with_name("helpers_hostile.py")
CATALOGUE: dict[str, Any] = {"__name__": "__main__"}
exec(compile(_FILE.read_text(), _FILE, "exec"), CATALOGUE)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = CATALOGUE["REFUSED"]
SENT: dict[str, Callable[[], Any]] = CATALOGUE["SENT"]


@pytest.fixture(autouse=True)
def _answers_afterwards(rc: Client) -> Iterator[None]:
    engines = rc.ids
    yield
    assert rc[:].apply_async(lambda: 1).get(TIMEOUT_S) == [1, 1]
    assert rc.ids == engines


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sent_is_refused_by_the_call(
    name: str, lv: LoadBalancedView, dv: DirectView
) -> None:
    make, text = REFUSED[name]
    obj = make()
    with pytest.raises(SerializationError, match=text):
        lv.apply_async(id, obj)
    with pytest.raises(SerializationError, match=text.replace("argument 0: ", "")):
        dv.push({"obj": obj})
    with pytest.raises(SerializationError, match=text.replace("argument 0", "")):
        lv.map_async(id, [1, obj])
    with pytest.raises(SerializationError, match="function "):
        lv.apply_async(lambda: obj)


@pytest.mark.parametrize("name", ["nested too deeply", "lock inside", "generator"])
def test_a_result_that_cannot_be_sent_is_an_error_of_its_task(
    name: str, lv: LoadBalancedView
) -> None:
    make, text = REFUSED[name]
    text = text.replace("argument 0, ", "")
    with pytest.raises(SerializationError, match=text) as caught:
        lv.apply_async(make).get(TIMEOUT_S)
    assert isinstance(caught.value, RemoteError)


def test_a_client_and_its_views_say_what_to_do_instead(
    rc: Client, lv: LoadBalancedView
) -> None:
    for obj in (rc, lv, rc[:]):
        with pytest.raises(SerializationError, match=r"make one there: Client\(\)"):
            lv.apply_async(id, obj)


def test_an_argument_that_cannot_be_made_there_is_an_error_of_its_task(
    lv: LoadBalancedView,
) -> None:
    with pytest.raises(RuntimeError, match="no setstate") as caught:
        lv.apply_async(id, CATALOGUE["FailsInSetstate"]()).get(TIMEOUT_S)
    assert isinstance(caught.value, RemoteError)
    assert "while the arguments of the task were unpickled" in caught.value.traceback


def test_a_result_that_cannot_be_made_here_costs_no_other(lv: LoadBalancedView) -> None:
    fails = CATALOGUE["FailsInSetstate"]

    def make(number: int) -> Any:
        return fails() if number == 1 else number

    results = [lv.apply_async(make, number) for number in range(3)]
    assert [results[0].get(TIMEOUT_S), results[2].get(TIMEOUT_S)] == [0, 2]
    for _ in range(2):
        with pytest.raises(SerializationError) as caught:
            results[1].get(TIMEOUT_S)
        assert results[1].msg_ids[0] in str(caught.value)
        assert "cannot be made here: RuntimeError: no setstate" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("name", SENT)
def test_what_can_be_pickled_goes_there_and_back_whatever_else_it_does(
    name: str, lv: LoadBalancedView, dv: DirectView
) -> None:
    obj = SENT[name]()
    kind = type(obj).__name__
    assert lv.apply_async(lambda x: type(x).__name__, obj).get(TIMEOUT_S) == kind
    assert type(lv.apply_async(lambda x: x, obj).get(TIMEOUT_S)).__name__ == kind
    dv.push({"obj": obj}, block=True)
    assert [type(found).__name__ for found in dv.pull("obj", block=True)] == [kind, kind]
    found = lv.map_async(lambda x: x, [obj, obj, obj]).get(TIMEOUT_S)
    assert [type(each).__name__ for each in found] == [kind] * 3
    assert lv.apply_async(lambda: type(obj).__name__).get(TIMEOUT_S) == kind


def test_classes_that_engines_do_not_have_keep_what_they_can_do(lv: LoadBalancedView) -> None:
    derived = CATALOGUE["Derived"](4)
    far, derived = lv.apply_async(lambda d: (d.more(), d), derived).get(TIMEOUT_S)
    assert (far, derived.twice, derived.more()) == (9, 8, 9)
    color = CATALOGUE["Color"].RED
    assert lv.apply_async(lambda x: (x.name, x is type(x).RED), color).get() == ("RED", True)
    cycle = lv.apply_async(lambda x: x, CATALOGUE["cyclic"]()).get(TIMEOUT_S)
    assert cycle[1]["self"] is cycle


def test_numbers_too_long_to_be_printed_are_no_trouble_in_an_error(
    lv: LoadBalancedView,
) -> None:
    def fail() -> None:
        raise ValueError(10**5000)

    with pytest.raises(ValueError, match=r"str\(\) of it failed") as caught:
        lv.apply_async(fail).get(TIMEOUT_S)
    assert caught.value.args == (10**5000,)


def test_an_object_that_ends_the_engine_costs_that_engine_only(tmp_path: Any) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            os._exit(3)

    with Cluster(n=1, profile_dir=tmp_path, restart=True) as own:
        lv = own.load_balanced_view()
        with pytest.raises(EngineError, match="is gone: "):
            lv.apply_async(Deadly).get(TIMEOUT_S)
        own.wait_for_engines(1, timeout=TIMEOUT_S)
        assert lv.apply_async(lambda: 1).get(TIMEOUT_S) == 1
