"""What Python's own tests expect of an executor, on engines."""

from __future__ import annotations

import asyncio
import gc
import itertools
import operator
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    as_completed,
    wait,
)
from functools import partial
from pathlib import Path

import pytest

import parallelz
from parallelz import Client, Cluster, LoadBalancedView, TaskFuture, ViewExecutor

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def make_hold() -> Callable[..., int]:
    def hold(directory: str, number: int = 0) -> int:
        Path(directory, f"started-{number}").touch()
        while not Path(directory, "go").exists():
            time.sleep(0.002)
        return number

    return hold


hold = make_hold()


def wait_for_file(path: Path) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < give_up_s, f"{path} never came"
        time.sleep(0.002)


@pytest.fixture
def executor(lv: LoadBalancedView) -> Iterator[ViewExecutor]:
    with lv.executor as executor:
        yield executor


# -- submit -------------------------------------------------------------------------------


def test_submit_gives_the_result(executor: ViewExecutor) -> None:
    future = executor.submit(pow, 2, 8)
    assert future.result(TIMEOUT_S) == 256
    assert (future.done(), future.cancelled(), future.running()) == (True, False, False)
    assert future.exception() is None


def test_submit_passes_keywords_of_any_name(executor: ViewExecutor) -> None:
    future = executor.submit(dict, self=1, fn=2)
    assert future.result(TIMEOUT_S) == {"self": 1, "fn": 2}


def test_the_result_is_there_without_anybody_waiting(executor: ViewExecutor) -> None:
    is_done = threading.Event()
    future = executor.submit(abs, -1)
    future.add_done_callback(lambda _: is_done.set())
    assert is_done.wait(TIMEOUT_S)
    assert future.result(0) == 1


def test_an_exception_is_that_of_the_function(executor: ViewExecutor) -> None:
    future = executor.submit(operator.truediv, 1, 0)
    with pytest.raises(ZeroDivisionError):
        future.result(TIMEOUT_S)
    assert isinstance(future.exception(), parallelz.RemoteError)


def test_what_cannot_be_pickled_fails_at_the_call(executor: ViewExecutor) -> None:
    with pytest.raises(parallelz.SerializationError, match="argument 0"):
        executor.submit(abs, threading.Lock())


def test_a_result_that_takes_too_long_can_be_waited_for_again(
    executor: ViewExecutor, tmp_path: Path
) -> None:
    future = executor.submit(hold, str(tmp_path), 3)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0)
    (tmp_path / "go").touch()
    assert future.result(TIMEOUT_S) == 3


def test_a_task_has_its_place_in_the_history(rc: Client, executor: ViewExecutor) -> None:
    future = executor.submit(abs, -1)
    future.result(TIMEOUT_S)
    assert rc.get_result(future.msg_id).get(TIMEOUT_S) == 1


def test_direct_views_take_turns(rc: Client) -> None:
    with rc[:].executor as executor:
        pids = [executor.submit(os.getpid) for _ in range(4)]
        assert [p.result(TIMEOUT_S) for p in pids] == rc[:].apply_sync(os.getpid) * 2
    with rc.executor(0) as executor:
        assert executor.submit(os.getpid).result(TIMEOUT_S) == rc[0].apply_sync(os.getpid)


def test_callbacks_run_in_order_with_the_future_and_may_wait(executor: ViewExecutor) -> None:
    seen: list[object] = []
    is_done = threading.Event()
    future = executor.submit(abs, -1)
    future.add_done_callback(lambda f: seen.append(f))
    future.add_done_callback(lambda f: seen.append(executor.submit(abs, -2).result(TIMEOUT_S)))
    future.add_done_callback(lambda f: is_done.set())
    assert is_done.wait(TIMEOUT_S)
    assert seen == [future, 2]
    future.add_done_callback(seen.append)
    assert seen[-1] is future


def test_an_object_does_not_outlive_its_future(executor: ViewExecutor) -> None:
    executor.submit(abs, 1).result(TIMEOUT_S)
    result = executor.submit(lambda: {1, 2})
    value = result.result(TIMEOUT_S)
    is_gone = threading.Event()
    weakref.finalize(value, is_gone.set)
    del result, value
    gc.collect()
    assert is_gone.wait(TIMEOUT_S)  # the thread for callbacks may just be looking at it


# -- several futures ----------------------------------------------------------------------


def test_wait_and_as_completed_work(executor: ViewExecutor, tmp_path: Path) -> None:
    held = executor.submit(hold, str(tmp_path))
    quick = [executor.submit(abs, -n) for n in range(5)]
    done, pending = wait([held, *quick], TIMEOUT_S, FIRST_COMPLETED)
    assert done
    assert held in pending
    assert {f.result() for f in as_completed(quick, TIMEOUT_S)} == set(range(5))
    failing = executor.submit(operator.truediv, 1, 0)
    done, pending = wait([held, failing], TIMEOUT_S, FIRST_EXCEPTION)
    assert (done, pending) == ({failing}, {held})
    (tmp_path / "go").touch()
    assert wait([held, *quick], TIMEOUT_S).not_done == set()


def test_asyncio_runs_calls_in_it(executor: ViewExecutor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, abs, -n) for n in range(10)]
        return list(await asyncio.gather(*calls))

    assert asyncio.run(main()) == list(range(10))


def test_ten_thousand_futures_come(executor: ViewExecutor) -> None:
    futures = [executor.submit(abs, -n) for n in range(10_000)]
    assert [f.result(TIMEOUT_S) for f in futures] == list(range(10_000))


# -- map ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_gives_results_in_order(executor: ViewExecutor, chunksize: int) -> None:
    assert list(executor.map(pow, range(10), range(10), chunksize=chunksize)) == [
        pow(n, n) for n in range(10)
    ]
    assert list(executor.map(pow, [], [])) == []


def test_map_gives_what_came_before_an_exception(executor: ViewExecutor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_ends_in_time_and_gives_up_the_rest(
    rc: Client, executor: ViewExecutor, tmp_path: Path
) -> None:
    results = executor.map(partial(hold, str(tmp_path)), range(2000), timeout=0.2)
    with pytest.raises(TimeoutError):
        list(results)
    (tmp_path / "go").touch()
    assert rc.wait(timeout=TIMEOUT_S)
    assert len(list(tmp_path.iterdir())) < 1000


def test_map_reads_an_endless_input_as_results_are(executor: ViewExecutor) -> None:
    read = itertools.count()
    results = executor.map(abs, read, buffersize=4)
    assert list(itertools.islice(results, 20)) == list(range(20))
    assert next(read) <= 25


@pytest.mark.parametrize(("option", "value"), [("chunksize", 0), ("buffersize", 0)])
def test_map_refuses_nonsense(executor: ViewExecutor, option: str, value: int) -> None:
    with pytest.raises(ValueError, match=option):
        executor.map(abs, [1], **{option: value})


# -- giving up ----------------------------------------------------------------------------


def test_cancel_keeps_from_running_what_has_not_started(
    executor: ViewExecutor, tmp_path: Path
) -> None:
    running = [executor.submit(hold, str(tmp_path), n) for n in range(2)]
    for number in range(2):
        wait_for_file(tmp_path / f"started-{number}")
    waiting = executor.submit(hold, str(tmp_path), 2)
    called: list[object] = []
    waiting.add_done_callback(called.append)
    assert waiting.cancel()
    assert (waiting.cancelled(), waiting.done()) == (True, True)
    with pytest.raises(CancelledError):
        waiting.result()
    assert called == [waiting]
    assert waiting.cancel()
    assert not running[0].cancel()
    assert running[0].running()
    (tmp_path / "go").touch()
    assert [f.result(TIMEOUT_S) for f in running] == [0, 1]
    assert not running[0].cancel()
    assert not (tmp_path / "started-2").exists()


def test_a_task_that_was_aborted_is_a_cancelled_future(
    rc: Client, executor: ViewExecutor, tmp_path: Path
) -> None:
    for number in range(2):
        executor.submit(hold, str(tmp_path), number)
    waiting = executor.submit(hold, str(tmp_path), 2)
    for number in range(2):
        wait_for_file(tmp_path / f"started-{number}")
    rc.abort(waiting.msg_id)
    with pytest.raises(CancelledError):
        waiting.result(TIMEOUT_S)
    (tmp_path / "go").touch()


def test_shutdown_waits_and_then_takes_no_more(lv: LoadBalancedView, tmp_path: Path) -> None:
    executor = lv.executor
    future = executor.submit(hold, str(tmp_path))
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    assert not future.done()
    (tmp_path / "go").touch()
    executor.shutdown()
    assert future.done()
    assert lv.executor.submit(abs, -1).result(TIMEOUT_S) == 1  # the engines go on


def test_shutdown_can_give_up_what_has_not_started(
    lv: LoadBalancedView, tmp_path: Path
) -> None:
    executor = lv.executor
    futures = [executor.submit(hold, str(tmp_path), n) for n in range(50)]
    wait_for_file(tmp_path / "started-0")
    executor.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()
    executor.shutdown(wait=True)
    assert all(future.done() for future in futures)
    assert sum(not future.cancelled() for future in futures) < 25


# -- what breaks --------------------------------------------------------------------------


def test_a_dead_engine_is_told_by_its_future(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        executor = rc.executor()
        dead = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(parallelz.EngineError, match="SIGKILL"):
            dead.result(TIMEOUT_S)
        assert executor.submit(abs, -1).result(TIMEOUT_S) == 1


def test_no_future_is_left_pending_when_the_client_is_closed(
    cluster_profile_dir: Path, rc: Client, tmp_path: Path
) -> None:
    client = Client(profile_dir=cluster_profile_dir)
    executor = client.executor()
    future: TaskFuture[int] = executor.submit(hold, str(tmp_path))
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    client.close()
    (tmp_path / "go").touch()
    assert done.wait(TIMEOUT_S)
    with pytest.raises(BrokenExecutor, match="closed"):
        future.result(TIMEOUT_S)
    with pytest.raises(BrokenExecutor, match="closed"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_no_future_is_left_pending_when_the_cluster_ends(tmp_path: Path) -> None:
    with Cluster(n=1, profile_dir=tmp_path) as rc:
        future = rc.executor().submit(hold, str(tmp_path))
        wait_for_file(tmp_path / "started-0")
    assert future.done()
    assert isinstance(future.exception(), BrokenExecutor | parallelz.EngineError)
