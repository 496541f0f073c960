"""Whatever can be an index of a list is an integer as an argument; a bool is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsIndex

import numpy as np
import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

from parallelz import Client, LoadBalancedView

Integer = Callable[[int], SupportsIndex]


class Indexed:
    """No number of any kind but as an index."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@pytest.fixture(params=[np.int64, np.array, Indexed])
def integer(request: pytest.FixtureRequest) -> Integer:
    return request.param  # type: ignore[no-any-return]


def test_as_chunksize(lv: LoadBalancedView, integer: Integer) -> None:
    for maps in (
        lv.map_async(abs, range(-3, 0), chunksize=integer(2)),
        lv.imap(abs, range(-3, 0), chunksize=integer(2)),
        lv.parallel(block=True, chunksize=integer(2))(abs).map(range(-3, 0)),
        lv.executor.map(abs, range(-3, 0), chunksize=integer(2)),
    ):
        assert list(maps) == [3, 2, 1]
    assert len(lv.map_async(abs, range(-3, 0), chunksize=integer(2)).msg_ids) == 2


def test_as_bounds(rc: Client, lv: LoadBalancedView, integer: Integer) -> None:
    rc.max_outstanding = integer(5)  # type: ignore[assignment]
    assert rc.max_outstanding == 5
    assert list(lv.imap(abs, range(3), max_outstanding=integer(2))) == [0, 1, 2]
    assert lv.map_sync(abs, range(3), max_outstanding=integer(2)) == [0, 1, 2]
    assert list(lv.executor.map(abs, range(3), buffersize=integer(2))) == [0, 1, 2]


def test_as_flags(lv: LoadBalancedView, integer: Integer) -> None:
    lv.set_flags(retries=integer(2), priority=integer(-1))
    assert (lv.retries, lv.priority) == (2, -1)
    with pytest.raises(ValueError, match="retries must be an int, 0 or more"):
        lv.retries = integer(-1)  # type: ignore[assignment]


def test_as_index_of_the_history(rc: Client, lv: LoadBalancedView, integer: Integer) -> None:
    kept = [lv.apply_async(abs, number) for number in range(3)]
    assert rc.wait(kept, TIMEOUT_S)
    assert rc.get_result(integer(1)).get(TIMEOUT_S) == 1
    assert lv.get_result(integer(-1)).get(TIMEOUT_S) == 2
    assert rc.get_result([integer(0), integer(2)]).get(TIMEOUT_S) == [0, 2]
    assert rc.wait(integer(0), TIMEOUT_S)
    assert rc.story(integer(0)).task_id == rc.history[0]
    assert isinstance(rc.why(integer(0)), str)
    rc.purge_local_results(integer(0))


def test_as_engine_ids(cluster: ThreadCluster, rc: Client, integer: Integer) -> None:
    assert rc[integer(-1)] is rc[1]
    assert rc.view(integer(1)) is rc[1]
    assert rc.view([integer(0), integer(1)]) is rc[0, 1]
    assert rc.apply(abs, [-3], targets=integer(1), block=True) == 3
    cluster.engines[1].hold()
    waiting = rc[1].apply_async(abs, 1)
    assert rc.queue_status(integer(1))["queue"] == 1
    assert rc.queue_status(integer(1), verbose=True)["queue"] == waiting.msg_ids
    cluster.engines[1].go_on()
    waiting.get(TIMEOUT_S)
    rc.purge_local_results(targets=integer(1))
    rc.purge_local_results(targets=[integer(0), integer(1)])
    assert waiting.msg_ids[0] not in rc.results


def test_a_bool_and_a_float_are_none(rc: Client, lv: LoadBalancedView) -> None:
    lv.apply_sync(abs, 1)
    for wrong in (True, np.True_, 1.0, np.array([1])):
        with pytest.raises(ValueError, match="chunksize must be"):
            lv.map(abs, [1], chunksize=wrong)
        with pytest.raises(ValueError, match="max_outstanding must be"):
            rc.max_outstanding = wrong  # type: ignore[assignment]
        with pytest.raises((TypeError, ValueError), match="retries must be"):
            lv.retries = wrong  # type: ignore[assignment]
    for wrong in (True, np.True_, 1.0):
        with pytest.raises(TypeError, match="Invalid msg_id"):
            rc.get_result(wrong)
        with pytest.raises(TypeError):
            rc.view(wrong)
