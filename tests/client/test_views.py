from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

from parallelz import (
    BroadcastView,
    Client,
    DirectView,
    InvalidDependency,
    LoadBalancedView,
    NoEnginesRegistered,
    Reference,
    TaskAborted,
)


def double(x: int) -> int:
    return 2 * x


def count(namespace: dict[str, int], by: int) -> int:
    namespace["n"] = namespace.get("n", 0) + by
    return namespace["n"]


def test_reprs(rc: Client) -> None:
    assert repr(rc[0]) == "<DirectView 0>"
    assert repr(rc[0, 1]) == "<DirectView [0,1]>"
    assert repr(rc.direct_view()) == "<DirectView all>"
    assert repr(rc.view()) == "<LoadBalancedView None>"
    assert repr(rc) == "<Client: 2 engines>"


def test_indices_and_slices_address_the_list_of_ids(rc: Client) -> None:
    assert rc[-1].targets == 1
    assert rc[::2].targets == [0]
    assert rc[:].targets == [0, 1]
    assert [view.targets for view in rc] == [0, 1]
    assert len(rc) == 2
    with pytest.raises(IndexError, match="No such engine: 7"):
        rc[7]
    with pytest.raises(TypeError):
        rc[None]
    with pytest.raises(TypeError):
        rc.view("some")


def test_the_same_view_is_the_same_object(rc: Client) -> None:
    assert rc.view() is rc.view(balanced=True)
    assert rc.view([0, 1], balanced=True) is rc.view([0, 1], balanced=True)
    assert rc[:] is rc[0, 1]
    assert rc.view("all") is rc.view(None, balanced=False)
    assert rc.direct_view() is not rc.direct_view()
    assert rc.load_balanced_view() is not rc.view()


def test_targets_and_balanced_cannot_be_assigned(rc: Client) -> None:
    with pytest.raises(AttributeError, match=r"client\.view\(1, balanced=False\)"):
        rc[0].targets = 1
    with pytest.raises(AttributeError, match=r"client\.view\(None, balanced=False\)"):
        rc.view().balanced = False
    with pytest.raises(AttributeError, match=r"client\.view\(\[1\], balanced=True\)"):
        rc.view().set_flags(retries=1, targets=[1])
    assert rc.view().retries == 0


def test_flags_by_name(lv: LoadBalancedView) -> None:
    assert lv.set_flags(block=True, retries=3) is lv
    with lv.temp_flags(block=False, retries=0):
        assert (lv.block, lv.retries) == (False, 0)
    assert (lv.block, lv.retries) == (True, 3)
    with pytest.raises(KeyError, match="nonsense"):
        lv.set_flags(block=False, nonsense=1)
    assert lv.block is True


def test_views_take_block_from_their_client(rc: Client) -> None:
    rc.block = True
    assert rc.direct_view().apply(double, 2) == [4, 4]
    assert rc.apply(double, [2]) == 4


def test_a_view_follows_its_client_until_it_has_a_block_of_its_own(
    rc: Client, dv: DirectView
) -> None:
    rc.block = True
    assert dv.block is True
    assert dv.apply(double, 2) == [4, 4]
    with dv.temp_flags(block=False):
        assert dv.apply(double, 2).get(TIMEOUT_S) == [4, 4]
    rc.block = False
    assert dv.block is False
    dv.block = True
    assert dv.map(double, [1]) == rc.map(double, [1], targets="all", block=True) == [2]
    assert rc[:].block is True


def test_flags_of_nested_with_blocks_end_in_turn_also_by_exceptions(
    lv: LoadBalancedView,
) -> None:
    def fail() -> None:
        with lv.temp_flags(retries=2, priority=5):
            assert (lv.retries, lv.priority) == (2, 5)
            raise RuntimeError

    with lv.temp_flags(retries=1):
        with pytest.raises(RuntimeError):
            fail()
        assert (lv.retries, lv.priority) == (1, 0)
    assert (lv.retries, lv.priority) == (0, 0)
    with pytest.raises(KeyError, match="nonsense"), lv.temp_flags(retries=1, nonsense=1):
        pytest.fail("unreachable")
    assert lv.retries == 0


def test_flags_are_set_all_or_none(lv: LoadBalancedView) -> None:
    with pytest.raises(ValueError, match="retries must be"):
        lv.set_flags(block=True, priority=3, retries=-1)
    assert (lv.block, lv.priority, lv.retries) == (False, 0, 0)


def test_a_copy_with_other_flags_shares_the_history(lv: LoadBalancedView) -> None:
    other = lv.with_flags(block=True, retries=2)
    assert other.apply(double, 1) == 2
    assert (lv.block, lv.retries) == (False, 0)
    assert lv.history == other.history
    assert len(lv.history) == 1


def test_bound_functions_get_the_namespace(rc: Client, dv: DirectView) -> None:
    assert dv.apply_sync_bound(count, 2) == [2, 2]
    assert dv.apply_async_bound(count, 3).get(TIMEOUT_S) == [5, 5]
    assert rc.apply(count, (1,), bound=True, block=True, targets=0) == 6
    dv.bound = dv.block = True
    assert dv.apply(count, 1) == [7, 6]
    assert dv.map_sync(count, [1, 1]) == [8, 7]


def test_apply_says_what_is_wrong(rc: Client) -> None:
    with pytest.raises(ValueError, match="balanced"):
        rc.apply(double, (1,), targets=0, after=["x-1"])
    with pytest.raises(TypeError, match="args"):
        rc.apply(double, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kwargs"):
        rc.apply(double, (), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="f must be callable"):
        rc.apply("double", (1,))  # type: ignore[arg-type]


def test_targets_decide_the_shape_and_balanced_the_number(rc: Client) -> None:
    assert rc.apply(double, (2,), block=True) == 4
    assert rc.apply(double, (2,), block=True, targets="all") == [4, 4]
    assert rc.apply(double, (2,), block=True, targets=[1]) == [4]
    result = rc.apply(double, (2,), targets=[1], balanced=True)
    assert (result.get(TIMEOUT_S), result["engine_id"]) == (4, 1)


def test_calls_for_no_engines_fail_at_once_and_balanced_ones_warn(
    cluster: ThreadCluster, rc: Client
) -> None:
    rc.shutdown()
    rc.connection.wait(lambda: not rc.ids, TIMEOUT_S)
    with pytest.raises(NoEnginesRegistered):
        rc[:]
    with pytest.raises(NoEnginesRegistered):
        rc.direct_view().apply(double, 1)
    result = rc.view().apply_async(double, 1)
    with pytest.warns(UserWarning, match="no engines"):
        result.wait(TIMEOUT_S / 10)
    cluster.add_engine()
    assert result.get(TIMEOUT_S) == 2
    with pytest.raises(TimeoutError, match=r"3 engines not ready in 0\.01 seconds"):
        rc.wait_for_engines(3, 0.01)


def test_all_arguments_of_apply_in_their_order(rc: Client) -> None:
    first = rc.apply(double, (1,), targets=[1], balanced=True)
    where = (
        [1],
        True,
        [first],
        first.msg_ids,
        60.0,
    )  # targets, balanced, after, follow, timeout
    result = rc.apply(count, [2], {}, True, False, True, *where)
    assert (result.get(TIMEOUT_S), result["engine_id"]) == (2, 1)
    assert rc.apply(dict, None, {"f": 1, "targets": 2}, block=True) == {"f": 1, "targets": 2}


def test_timeouts_and_dependencies_are_for_balanced_calls_only(rc: Client) -> None:
    for name, value in {"after": [], "follow": "x-1", "timeout": 5}.items():
        for targets, balanced in ((0, None), ("all", None), (None, False)):
            with pytest.raises(ValueError, match="balanced=True or no targets"):
                rc.apply(double, (1,), targets=targets, balanced=balanced, **{name: value})
    with pytest.raises(InvalidDependency):
        rc.apply(double, (1,), after=5)
    with pytest.raises(ValueError, match="timeout must be"):
        rc.apply(double, (1,), timeout=-1)


def test_keywords_that_are_not_there_are_refused(dv: DirectView, lv: LoadBalancedView) -> None:
    for view in (dv, lv):
        for call in (view.map_async, view.map_sync, view.imap):
            with pytest.raises(TypeError, match="block"):
                call(double, [1], block=True)  # type: ignore[operator]


def test_the_client_maps_over_all_or_some_engines(rc: Client) -> None:
    assert rc.map(double, range(3), block=True) == [0, 2, 4]
    result = rc.map(double, range(4), targets="all")
    assert (result.get(TIMEOUT_S), result["engine_id"]) == ([0, 2, 4, 6], [0, 1])
    result = rc.map(double, range(4), targets=[1], balanced=True)
    assert (result.get(TIMEOUT_S), {*result["engine_id"]}) == ([0, 2, 4, 6], {1})
    assert list(itertools.islice(rc.imap(double, itertools.count()), 3)) == [0, 2, 4]
    assert rc.reduce(operator.sub, [9, 2, 3], targets=0) == 4


@pytest.mark.parametrize("chunksize", [None, 2])
def test_maps_take_whatever_can_be_iterated(
    rc: Client, dv: DirectView, lv: LoadBalancedView, chunksize: int | None
) -> None:
    inputs = [
        (n for n in range(5)),
        dict.fromkeys(range(5)),
        dict.fromkeys(range(5)).keys(),
        frozenset(range(5)),
        np.arange(5),
        "01234",
    ]
    for view, given in itertools.product((dv, lv), inputs[1:]):
        size = None if view is dv else chunksize
        assert view.map_sync(str, given, chunksize=size) == ["0", "1", "2", "3", "4"]
    assert dv.map_sync(str, (n for n in range(3))) == ["0", "1", "2"]
    assert lv.map_sync(str, inputs[0], chunksize=chunksize) == ["0", "1", "2", "3", "4"]


def test_a_map_of_nothing_is_an_empty_result(dv: DirectView, lv: LoadBalancedView) -> None:
    for view in (dv, lv):
        result = view.map_async(double, [])
        assert (result.ready(), result.get(), len(result), list(result)) == (True, [], 0, [])


def test_exceptions_in_a_map_can_take_the_place_of_results(
    dv: DirectView, lv: LoadBalancedView
) -> None:
    for view in (dv, lv):
        found = view.map(
            operator.truediv, [1, 1, 1], [1, 0, 2], block=True, return_exceptions=True
        )
        assert (found[0], found[2]) == (1, 0.5)
        assert isinstance(found[1], ZeroDivisionError)


def test_a_broadcast_view_always_gives_lists(rc: Client) -> None:
    view = rc.broadcast_view(0, is_coalescing=True, block=True)
    assert isinstance(view, BroadcastView)
    assert isinstance(view, DirectView)
    assert repr(view) == "<BroadcastView [0]>"
    assert view.apply(double, 2) == [4]
    assert rc.broadcast_view().targets == [0, 1]
    assert rc.broadcast_view().apply_sync(double, 2) == [4, 4]


def test_control_of_some_engines_only(cluster: ThreadCluster, rc: Client) -> None:
    cluster.engines[1].hold()
    result = rc[1].apply_async(double, 1)
    rc[0].apply_sync(double, 1)  # when it has ended, the one before has arrived
    assert rc.queue_status(targets=[1])[1] == {"queue": 1, "completed": 0, "tasks": 0}
    assert 0 not in rc.queue_status(targets=[1])
    rc.abort(targets=0)
    assert rc.queue_status(targets=1)["queue"] == 1
    rc.abort(targets=1)
    cluster.engines[1].go_on()
    with pytest.raises(TaskAborted):
        result.get(TIMEOUT_S)
    rc.shutdown(targets=0)
    rc.connection.wait(lambda: rc.ids == [1], TIMEOUT_S)
    assert rc.ids == [1]


def test_indices_are_evaluated_when_they_are_used(cluster: ThreadCluster, rc: Client) -> None:
    before = rc[:]
    cluster.add_engine()
    rc.connection.wait(lambda: len(rc) == 3, TIMEOUT_S)
    assert before.targets == [0, 1]
    assert rc[:].targets == [0, 1, 2]
    assert (rc[-1].targets, rc[np.int64(0)], rc[[0, -1]].targets) == (2, rc[0], [0, 2])
    assert rc[range(2)] is before
    assert rc.direct_view().apply_sync(double, 1) == [2, 2, 2]
    assert rc.view("ALL") is rc.view("all")
    for wrong in (True, 0.5, "0", {0}):
        with pytest.raises(TypeError):
            rc[wrong]  # type: ignore[index]
    with pytest.raises(NoEnginesRegistered):
        rc[5:].apply_sync(double, 1)


def test_maps_of_both_views(dv: DirectView, lv: LoadBalancedView) -> None:
    expected = [10, 21, 32]
    for view in (dv, lv):
        assert view.map_sync(operator.add, range(10), []) == []
        assert view.map(operator.add, [10, 20, 30], range(9), block=True) == expected
        assert view.map_async(operator.add, [10, 20, 30], itertools.count()).get() == expected
        assert list(view.imap(operator.add, [10, 20, 30], range(3))) == expected
        with pytest.raises(ValueError, match="at least one"):
            view.map(double)
    assert lv.map_sync(operator.add, [10, 20, 30], range(3), chunksize=2) == expected
    with pytest.raises(ValueError, match="chunksize"):
        lv.map_sync(double, [1], chunksize=0)
    with pytest.warns(UserWarning, match="ignored"):
        dv.map_sync(double, [1], chunksize=5)


def test_items_with_large_buffers_take_part_in_a_map(lv: LoadBalancedView) -> None:
    items = [np.full(5000, n) if n % 3 else n for n in range(10)]
    sums = lv.map_sync(np.sum, items)
    assert sums == [int(np.sum(item)) for item in items]


def test_imap_reads_no_further_than_it_may(lv: LoadBalancedView) -> None:
    taken = []
    results = lv.imap(
        double, (taken.append(n) or n for n in itertools.count()), max_outstanding=5
    )
    assert list(itertools.islice(results, 20)) == [2 * n for n in range(20)]
    assert len(taken) <= 26
    unordered = lv.imap(double, range(50), ordered=False, max_outstanding=7)
    assert sorted(unordered) == [2 * n for n in range(50)]
    assert list(lv.imap(double, range(3), max_outstanding=0)) == [0, 2, 4]


def test_reduce_keeps_the_order(dv: DirectView, lv: LoadBalancedView) -> None:
    words = [str(n) for n in range(200)]
    for view in (dv, lv):
        assert view.reduce(operator.add, words) == "".join(words)
        assert view.reduce(operator.add, words[:1], "x") == "x0"
        with pytest.raises(TypeError):
            view.reduce(operator.add, [])


def test_a_reference_stands_for_a_function(rc: Client, cluster: ThreadCluster) -> None:
    cluster.engines[0].namespace["shout"] = str.upper
    assert rc[0].apply_sync(Reference("shout"), "hi") == "HI"  # type: ignore[arg-type]


def test_decorated_functions(rc: Client) -> None:
    @rc.remote(block=True, targets="all")
    def triple(x: int) -> int:
        """Return three times x."""
        return 3 * x

    assert triple(2) == [6, 6]
    assert triple.__name__ == "triple"
    assert "three times" in triple.__doc__

    @rc.parallel(block=True, targets="all")
    def square(x: np.ndarray) -> np.ndarray:
        return x * x

    values = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(square(values), values * values)
    assert square.map(range(4)) == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="equal length"):
        square([1, 2], [1])

    @rc.parallel(block=True, balanced=True, chunksize=2)
    def negated(part: list[int]) -> list[int]:
        return [-item for item in part]

    assert negated([1, 2, 3, 4, 5]) == [-1, -2, -3, -4, -5]


def test_histories_of_views_and_client(
    rc: Client, dv: DirectView, lv: LoadBalancedView
) -> None:
    first = dv.apply_async(double, 1)
    second = lv.map_async(double, range(3))
    third = dv.apply_async(double, 1)
    assert rc.history == [*first.msg_ids, *second.msg_ids, *third.msg_ids]
    assert dv.history == [*first.msg_ids, *third.msg_ids]
    assert rc.wait(timeout=TIMEOUT_S)
    assert dv.wait([first, third.msg_ids], TIMEOUT_S)
    assert rc.barrier([0, 1, second], TIMEOUT_S)
    assert rc.outstanding == dv.outstanding == set()
    rc.spin()
    assert rc.results[first.msg_ids[0]] == 2
    assert rc.metadata[first.msg_ids[1]]["engine_id"] == 1
    assert rc.get_result(0).get() == 2
    assert rc.get_result(second).get() == [0, 2, 4]
    with pytest.raises(TypeError, match="msg_id"):
        rc.wait(1.5)  # type: ignore[arg-type]


def test_queue_status(cluster: ThreadCluster, rc: Client) -> None:
    cluster.engines[1].hold()
    result = rc[1].apply_async(double, 1)
    rc[0].apply_sync(double, 1)
    assert rc.queue_status(1, verbose=True)["queue"] == result.msg_ids
    assert rc.queue_status()[0] == {"queue": 0, "completed": 1, "tasks": 0}
    assert rc.queue_status()["unassigned"] == 0
    assert rc[1].queue_status()["queue"] == 1
    cluster.engines[1].go_on()


def test_clear_forgets_names_and_an_empty_abort_aborts_nothing(
    cluster: ThreadCluster, rc: Client
) -> None:
    rc[:].apply_sync_bound(count, 1)
    rc.clear(block=True)
    assert all(not engine.namespace for engine in cluster.engines)
    cluster.engines[0].hold()
    result = rc[0].apply_async(double, 1)
    rc.abort([])
    cluster.engines[0].go_on()
    assert result.get(TIMEOUT_S) == 2
