from __future__ import annotations

import inspect
import pickle
import threading

import numpy as np
import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

import parallelz
from parallelz import AsyncResult, Client, DirectView, LoadBalancedView


def scaled(x: int, by: int = 2) -> int:
    """Return a multiple."""
    return x * by


def test_a_remote_function_looks_like_the_original(dv: DirectView) -> None:
    remote = dv.remote()(scaled)
    assert repr(remote) == "<RemoteFunction scaled on <DirectView [0,1]>>"
    assert (remote.__name__, remote.__module__) == ("scaled", __name__)
    assert remote.__wrapped__ is remote.func is scaled
    assert remote.__doc__ == "RemoteFunction wrapping:\nReturn a multiple."
    assert inspect.signature(remote) == inspect.signature(scaled)
    assert dv.remote()(abs).__name__ == "abs"


def test_a_call_blocks_if_the_function_or_else_the_view_says_so(
    rc: Client, dv: DirectView, lv: LoadBalancedView
) -> None:
    assert dv.remote(block=True)(scaled)(3, by=4) == [12, 12]
    assert rc[0].remote(block=True)(scaled)(3) == 6
    remote = lv.remote()(scaled)
    assert isinstance(remote(1), AsyncResult)
    lv.block = True
    assert remote(1) == 2
    lv.block = None
    rc.block = True
    assert remote(1) == 2


def test_flags_are_those_of_the_function_for_its_calls_only(lv: LoadBalancedView) -> None:
    remote = lv.remote(retries=2, label="mine")(scaled)
    result = remote(1)
    submission = lv.client.connection.ledger.find(result.msg_ids[0])[0]  # type: ignore[index]
    assert (submission.options.retries, submission.options.label) == (2, "mine")  # type: ignore[union-attr]
    assert (lv.retries, lv.label) == (0, "")
    assert lv.history == result.msg_ids


def test_a_wrong_flag_is_refused_at_the_definition(
    dv: DirectView, lv: LoadBalancedView
) -> None:
    with pytest.raises(KeyError, match="nonsense"):
        dv.remote(nonsense=1)(scaled)
    with pytest.raises(ValueError, match="retries must be"):
        lv.parallel(retries=-1)(scaled)
    with pytest.raises(ValueError, match="dist must be"):
        lv.parallel("x")(scaled)
    with pytest.raises(ValueError, match="chunksize must be"):
        lv.parallel(chunksize=0)(scaled)
    with pytest.raises(TypeError, match="f must be callable"):
        lv.remote()(5)  # type: ignore[arg-type]


def test_calls_from_two_threads_do_not_mix_their_flags(
    cluster: ThreadCluster, dv: DirectView
) -> None:
    waiting, patient = dv.remote(block=True)(scaled), dv.remote(block=False)(scaled)
    for engine in cluster.engines:
        engine.hold()
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(waiting(1)))
    thread.start()
    dv.client.connection.wait(lambda: len(dv.history) == 2, TIMEOUT_S)
    result = patient(2)
    assert isinstance(result, AsyncResult)
    assert dv.block is False
    for engine in cluster.engines:
        engine.go_on()
    thread.join(TIMEOUT_S)
    assert found == [[2, 2]]
    assert result.get(TIMEOUT_S) == [4, 4]


def test_sent_somewhere_it_is_the_original(lv: LoadBalancedView) -> None:
    @lv.remote(block=True)
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    assert factorial(5) == 120  # all of it on one engine
    assert len(lv.history) == 1
    assert lv.apply_sync(lambda f: f(4), factorial) == 24
    assert pickle.loads(pickle.dumps(lv.remote()(scaled))) is scaled


def test_a_parallel_function_cuts_joins_and_maps(
    rc: Client, dv: DirectView, lv: LoadBalancedView
) -> None:
    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a * b

    values = np.random.default_rng(0).random((7, 3))
    for view in (dv, lv, rc[0]):
        for dist in "br":
            pmul = view.parallel(dist, block=True)(product)
            np.testing.assert_array_equal(pmul(values, values), values * values)
            assert pmul.map([1, 2, 3], [4, 5, 6]) == [4, 10, 18]
    pmul = dv.parallel()(product)
    assert repr(pmul) == "<ParallelFunction product on <DirectView [0,1]>>"
    np.testing.assert_array_equal(pmul(values, values).get(TIMEOUT_S), values * values)
    assert pmul.map([2], [3]).get(TIMEOUT_S) == [6]


def test_a_parallel_function_takes_whatever_can_be_iterated(dv: DirectView) -> None:
    @dv.parallel(block=True)
    def negated(part: list[int]) -> list[int]:
        return [-n for n in part]

    assert negated(n for n in range(3)) == [0, -1, -2]
    assert negated([]) == []
    assert negated({1: "", 2: ""}.keys()) == [-1, -2]
    with pytest.raises(ValueError, match="at least one sequence"):
        negated()
    with pytest.raises(TypeError, match="sequence to be cut"):
        negated(5)


def test_exceptions_can_take_the_place_of_results(lv: LoadBalancedView) -> None:
    @lv.parallel(block=True, return_exceptions=True)
    def inverse(x: float) -> float:
        return 1 / x

    found = inverse.map([1, 0, 2])
    assert (found[0], found[2]) == (1, 0.5)
    assert isinstance(found[1], ZeroDivisionError)


def test_chunksize_is_for_balanced_views(dv: DirectView, lv: LoadBalancedView) -> None:
    assert lv.parallel(block=True, chunksize=2)(sum)([1, 2, 3]) == [3, 3]
    result = lv.parallel(chunksize=2)(abs).map([-1, 2, -3])
    assert (result.get(TIMEOUT_S), len(result.msg_ids)) == ([1, 2, 3], 2)
    with pytest.warns(UserWarning, match="ignored unless load balancing"):
        dv.parallel(block=True, chunksize=2)(sorted)([1, 2, 3])


def test_the_decorators_are_functions_too(rc: Client, lv: LoadBalancedView) -> None:
    assert parallelz.remote(lv, block=True)(scaled)(2) == 4
    assert parallelz.parallel(rc[:], block=True)(sorted)([1, 2, 3]) == [1, 2, 3]


def test_the_client_has_them_for_any_engines(rc: Client) -> None:
    assert rc.remote(targets="all", block=True)(scaled)(1) == [2, 2]
    assert rc.remote(targets=1, block=True)(scaled)(1) == 2
    assert rc.remote(block=True)(scaled)(1) == 2
    everywhere = rc.parallel(targets="all", balanced=True, block=True)(sorted)
    assert everywhere([1, 2, 3]) == [1, 2, 3]
    parallel = rc.parallel(targets=[1], balanced=True, block=False)(sorted)
    result = parallel([3, 4])
    assert (result.get(TIMEOUT_S), {*result["engine_id"]}) == ([3, 4], {1})
