"""Results that are pickled, awaited and waited for in other ways than by `get`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from parallelz import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    AsyncResult,
    Client,
    DetachedResult,
    DirectView,
    LoadBalancedView,
    RemoteError,
)

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def wait_for(path: str) -> str:
    while not os.path.exists(path):
        threading.Event().wait(0.01)
    return path


wait_for.__module__ = "__main__"  # goes by value


# -- the first of several -----------------------------------------------------------------


def test_the_first_that_ended_is_told_from_the_others(
    lv: LoadBalancedView, tmp_path: Path
) -> None:
    late = lv.apply_async(wait_for, str(tmp_path / "go"))
    early = lv.apply_async(abs, -1)
    both = AsyncResult.join(late, early)
    done, pending = both.wait(TIMEOUT_S, return_when=FIRST_COMPLETED)
    assert [result.msg_ids for result in done] == [early.msg_ids]
    assert [result.msg_ids for result in pending] == [late.msg_ids]
    (tmp_path / "go").touch()
    done, pending = both.wait(TIMEOUT_S, return_when=ALL_COMPLETED)
    assert (len(done), pending) == (2, set())


def test_the_first_error_can_be_had_before_the_others_end(
    lv: LoadBalancedView, tmp_path: Path
) -> None:
    late = lv.apply_async(wait_for, str(tmp_path / "go"))
    both = AsyncResult.join(late, lv.apply_async(divmod, 1, 0))
    with pytest.raises(ZeroDivisionError) as caught:
        both.get(TIMEOUT_S, return_when=FIRST_EXCEPTION)
    assert isinstance(caught.value, RemoteError)
    assert not late.ready()
    (tmp_path / "go").touch()
    late.get(TIMEOUT_S)


def test_without_an_error_all_are_waited_for(lv: LoadBalancedView) -> None:
    result = lv.map_async(abs, range(-3, 0), chunksize=1)
    assert result.get(TIMEOUT_S, return_when=FIRST_EXCEPTION) == [3, 2, 1]
    done, pending = result.wait(TIMEOUT_S, return_when=FIRST_EXCEPTION)
    assert (len(done), len(pending)) == (3, 0)


def test_nonsense_is_refused(lv: LoadBalancedView) -> None:
    result = lv.apply_async(abs, -1)
    with pytest.raises(ValueError, match="FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED"):
        result.wait(return_when="SOON")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"use wait\(return_when=FIRST_COMPLETED\)"):
        result.get(return_when=FIRST_COMPLETED)
    assert result.get(TIMEOUT_S) == 1


# -- pickled ------------------------------------------------------------------------------


def detached(result: AsyncResult) -> DetachedResult:
    loaded = pickle.loads(pickle.dumps(result))
    assert isinstance(loaded, DetachedResult)
    return loaded


def test_another_client_takes_up_a_result_in_its_shape(
    rc: Client, lv: LoadBalancedView, dv: DirectView, cluster_profile_dir: Path
) -> None:
    dv.scatter("part", list(range(10)), block=True)
    results = [
        lv.apply_async(abs, -1),
        dv.apply_async(abs, -2),
        lv.map_async(abs, range(-10, 0), chunksize=3),
        lv.map_async(abs, range(-10, 0), chunksize=1, ordered=False),
        dv.gather("part"),
        lv.map_async(divmod, [1, 2], [0, 1], chunksize=1, return_exceptions=True),
    ]
    rc.hub_history()  # what was submitted has come now, whoever asks
    with Client(profile_dir=cluster_profile_dir) as other:
        for result in results:
            taken_up = other.get_result(detached(result))
            mine = rc.get_result(detached(result))
            assert repr(taken_up.get(TIMEOUT_S)) == repr(result.get(TIMEOUT_S))
            assert repr(mine.get(TIMEOUT_S)) == repr(result.get(TIMEOUT_S))
            assert taken_up.msg_ids == result.msg_ids
        chunks = other.get_result(detached(results[2]))
        assert (len(chunks), list(chunks), chunks[9]) == (10, [*range(10, 0, -1)], 1)


def test_another_process_takes_up_a_result_before_it_is_there(
    lv: LoadBalancedView, tmp_path: Path, cluster_profile_dir: Path
) -> None:
    result = lv.map_async(wait_for, [str(tmp_path / "go")] * 3, chunksize=2)
    lv.client.hub_history()
    (tmp_path / "result").write_bytes(pickle.dumps(result))
    program = (
        "import pickle, sys; from parallelz import Client\n"
        "loaded = pickle.load(open(sys.argv[1], 'rb'))\n"
        "with Client(profile_dir=sys.argv[2]) as rc:\n"
        "    taken_up = rc.get_result(loaded)\n"
        "    print(taken_up.ready(), flush=True)\n"
        "    print(len(taken_up.get(30)))\n"
    )
    command = [sys.executable, "-c", program, tmp_path / "result", cluster_profile_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "False\n"
        (tmp_path / "go").touch()
        assert process.stdout.readline() == "3\n"
    result.get(TIMEOUT_S)


def test_what_was_pickled_says_what_to_do(lv: LoadBalancedView) -> None:
    result = lv.map_async(abs, [1, 2], chunksize=1)
    assert repr(detached(result)) == "<DetachedResult(abs): 2 tasks>"
    with pytest.raises(RuntimeError, match=r"rc\.get_result"):
        detached(result).get()
    result.get(TIMEOUT_S)


# -- asyncio and futures ------------------------------------------------------------------


async def collected(result: AsyncResult) -> list[Any]:
    return [value async for value in result]


def test_results_are_iterated_in_an_event_loop(lv: LoadBalancedView, dv: DirectView) -> None:
    assert asyncio.run(collected(lv.map_async(abs, range(-5, 0), chunksize=2))) == [
        5,
        4,
        3,
        2,
        1,
    ]
    unordered = lv.map_async(abs, range(-5, 0), chunksize=1, ordered=False)
    assert sorted(asyncio.run(collected(unordered))) == [1, 2, 3, 4, 5]
    assert asyncio.run(collected(dv.apply_async(abs, -1))) == [1, 1]
    dv.scatter("part", range(5), block=True)
    assert asyncio.run(collected(dv.gather("part"))) == [0, 1, 2, 3, 4]


def test_an_event_loop_gets_results_as_they_come(lv: LoadBalancedView, tmp_path: Path) -> None:
    late = str(tmp_path / "go")

    async def watch() -> list[str]:
        result = lv.map_async(
            lambda path: wait_for(path) if path else "", [late, ""], chunksize=1, ordered=False
        )
        found = []
        async for value in result:
            found.append(value)
            Path(late).touch()  # only now can the other one end
        return found

    assert asyncio.run(watch()) == ["", late]


def test_an_error_is_raised_in_its_place(lv: LoadBalancedView) -> None:
    async def watch(found: list[int]) -> None:
        async for quotient in lv.map_async(lambda x: 1 // x, [1, 0, 1], chunksize=1):
            found.append(quotient)  # noqa: PERF401 - what came before the error counts

    found: list[int] = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(watch(found))
    assert found == [1]


def test_results_of_others_are_iterated_in_an_event_loop(
    lv: LoadBalancedView, cluster_profile_dir: Path
) -> None:
    result = lv.map_async(abs, range(-5, 0), chunksize=2)
    lv.client.hub_history()
    with Client(profile_dir=cluster_profile_dir) as other:
        taken_up = other.get_result(detached(result))
        assert asyncio.run(collected(taken_up)) == [5, 4, 3, 2, 1]


def test_one_result_cannot_be_iterated(lv: LoadBalancedView) -> None:
    async def iterate() -> None:
        async for _ in lv.apply_async(abs, -1):
            pass

    with pytest.raises(TypeError, match="not iterable"):
        asyncio.run(iterate())


def test_who_stops_awaiting_does_not_stop_the_task(
    lv: LoadBalancedView, tmp_path: Path
) -> None:
    result = lv.apply_async(wait_for, str(tmp_path / "go"))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result, 0.01)

    asyncio.run(give_up())
    (tmp_path / "go").touch()  # it ends when that loop is closed
    assert result.get(TIMEOUT_S) == str(tmp_path / "go")
    assert lv.apply_async(abs, -1).get(TIMEOUT_S) == 1


def test_real_futures_go_where_real_futures_are_needed(lv: LoadBalancedView) -> None:
    good, bad = lv.apply_async(abs, -1).future(), lv.apply_async(divmod, 1, 0).future()
    done, _ = concurrent.futures.wait([good, bad], TIMEOUT_S)
    assert done == {good, bad}
    assert good.result() == 1
    assert isinstance(bad.exception(), ZeroDivisionError)

    async def wrapped() -> object:
        return await asyncio.wrap_future(lv.map_async(abs, [-1, -2]).future())

    assert asyncio.run(wrapped()) == [1, 2]


def test_a_notebook_shows_how_far_it_is(lv: LoadBalancedView) -> None:
    result = lv.map_async(abs, [1, 2, 3], chunksize=1)
    result.get(TIMEOUT_S)
    shown = result._repr_html_()
    assert "AsyncMapResult" in shown
    assert "finished, 3 of 3 done" in shown
