from __future__ import annotations

import itertools
import operator
import signal
import threading
from collections.abc import Iterator

import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

from parallelz import Client, DirectView, LoadBalancedView, SerializationError, TaskAborted


def numbers_until_it_breaks(count: int) -> Iterator[int]:
    yield from range(count)
    raise RuntimeError("the input broke")


def inverse(x: int) -> float:
    return 1 / x


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", [None, 3])
def test_all_results_come_and_in_order_if_asked_for(
    lv: LoadBalancedView, dv: DirectView, ordered: bool, chunksize: int | None
) -> None:
    for view in (lv, dv):
        found = list(view.imap(operator.neg, range(20), ordered=ordered, chunksize=chunksize))
        assert (found if ordered else sorted(found, reverse=True)) == [-n for n in range(20)]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_is_read_no_further_than_it_may(
    lv: LoadBalancedView, dv: DirectView, ordered: bool
) -> None:
    for view in (lv, dv):
        endless = itertools.count()
        with view.imap(operator.neg, endless, max_outstanding=5, ordered=ordered) as results:
            for _ in range(20):
                next(results)
        assert 20 <= next(endless) <= 25


def test_auto_is_a_few_per_engine_and_zero_is_all(
    cluster: ThreadCluster, lv: LoadBalancedView
) -> None:
    for engine in cluster.engines:
        engine.hold()
    few = lv.imap(operator.neg, range(100))
    assert len(lv.outstanding) == 8
    every = lv.imap(operator.neg, range(100), max_outstanding=0)
    assert len(lv.outstanding) == 108
    for engine in cluster.engines:
        engine.go_on()
    assert list(few) == list(every) == [-n for n in range(100)]


@pytest.mark.parametrize("nonsense", [-1, 1.5, "all", True])
def test_nonsense_for_max_outstanding_is_refused(
    lv: LoadBalancedView, nonsense: object
) -> None:
    with pytest.raises(ValueError, match="max_outstanding must be 'auto', a count, or 0"):
        lv.imap(abs, [1], max_outstanding=nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_an_exception_of_the_input_comes_after_the_results_of_what_was_before(
    lv: LoadBalancedView, ordered: bool, chunksize: int
) -> None:
    results = lv.imap(abs, numbers_until_it_breaks(5), ordered=ordered, chunksize=chunksize)
    assert sorted(next(results) for _ in range(5)) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="the input broke"):
        next(results)
    assert list(results) == []


def test_what_cannot_be_called_or_cut_is_refused_at_the_call(lv: LoadBalancedView) -> None:
    with pytest.raises(TypeError, match="f must be callable"):
        lv.imap("abs", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one sequence"):
        lv.imap(abs)
    with pytest.raises(ValueError, match="chunksize must be 1 or more"):
        lv.imap(abs, [1], chunksize=0)


def test_an_item_that_cannot_be_sent_loses_no_result_before_it(lv: LoadBalancedView) -> None:
    results = lv.imap(repr, [1, 2, threading.Lock(), 3])
    assert [next(results), next(results)] == ["1", "2"]
    with pytest.raises(SerializationError):
        next(results)


def test_what_a_call_raises_is_raised_in_its_place_and_the_rest_still_comes(
    lv: LoadBalancedView,
) -> None:
    results = lv.imap(inverse, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [0.5]
    found = list(lv.imap(inverse, [1, 0, 2], return_exceptions=True, chunksize=2))
    assert (found[0], found[2]) == (1, 0.5)
    assert isinstance(found[1], ZeroDivisionError)


def test_unordered_results_do_not_wait_for_slower_ones(
    cluster: ThreadCluster, rc: Client
) -> None:
    cluster.engines[0].hold()
    results = rc[:].imap(operator.neg, range(6), ordered=False)
    assert [next(results) for _ in range(3)] == [-1, -3, -5]  # those of the other engine
    cluster.engines[0].go_on()
    assert sorted(results) == [-4, -2, 0]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_interrupted_wait_loses_no_result(
    cluster: ThreadCluster, rc: Client, ordered: bool
) -> None:
    cluster.engines[0].hold()
    results = rc[0].imap(operator.neg, range(3), ordered=ordered)
    interrupt = threading.Timer(
        0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
    )
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    interrupt.join()
    cluster.engines[0].go_on()
    assert list(results) == [0, -1, -2]


def test_cancel_stops_reading_and_gives_what_was_read(lv: LoadBalancedView) -> None:
    results = lv.imap(operator.neg, itertools.count(), max_outstanding=4)
    assert next(results) == 0
    results.cancel()
    assert list(results) == list(range(-1, -1 - len(lv.history) + 1, -1))
    assert len(lv.history) <= 5


def test_closing_gives_up_what_has_not_started(
    cluster: ThreadCluster, rc: Client, lv: LoadBalancedView
) -> None:
    for engine in cluster.engines:
        engine.hold()
    with lv.imap(operator.neg, itertools.count(), max_outstanding=6) as results:
        tasks = rc.get_result(lv.history)
    assert list(results) == []
    for engine in cluster.engines:
        engine.go_on()
    assert tasks.wait(TIMEOUT_S)
    errors = tasks.get(return_exceptions=True)
    assert all(isinstance(error, TaskAborted) for error in errors)
    results.close()


def test_bound_functions_get_the_namespace(rc: Client) -> None:
    def note(namespace: dict[str, int], by: int) -> int:
        namespace["n"] = namespace.get("n", 0) + by
        return namespace["n"]

    assert list(rc[0].imap(note, [1, 2, 3], bound=True)) == [1, 3, 6]
    assert list(rc[0].imap(note, [1, 1], bound=True, chunksize=2)) == [7, 8]


def test_several_sequences_end_with_the_shortest(lv: LoadBalancedView) -> None:
    assert list(lv.imap(operator.add, itertools.count(), {10: "", 20: ""})) == [10, 21]
    assert list(lv.imap(abs, [])) == []
