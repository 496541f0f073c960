"""When the buffers of a call may be changed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallelz import Client, Cluster, settings

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.process

TIMEOUT_S = 30
LENGTH = 2**18  # 2 MiB


@pytest.fixture(params=["sqlite", "none"])
def by_sockets(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """Return a client of a cluster without shared memory."""
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    with Cluster(n=2, profile_dir=tmp_path, store=request.param) as rc:
        yield rc


def make_wait_and_sum() -> Callable[[str, Any], float]:
    def wait_and_sum(path: str, array: Any) -> float:
        while not Path(path).exists():
            time.sleep(0.005)
        return float(array.sum())

    return wait_and_sum


wait_and_sum = make_wait_and_sum()


def test_what_is_shared_or_small_may_be_changed_at_once(rc: Client, tmp_path: Path) -> None:
    large, small = np.ones(LENGTH), np.ones(3)
    results = [rc[:].apply_async(wait_and_sum, str(tmp_path / "go"), a) for a in (large, small)]
    assert [ar.sent for ar in results] == [True, True]
    large[:] = small[:] = 0
    (tmp_path / "go").touch()
    assert [ar.get(TIMEOUT_S) for ar in results] == [[LENGTH] * 2, [3] * 2]


def test_what_goes_by_sockets_is_needed_until_nobody_may_ask_for_it_again(
    by_sockets: Client, tmp_path: Path
) -> None:
    array = np.ones(LENGTH)
    ar = by_sockets[:].apply_async(wait_and_sum, str(tmp_path / "go"), array)
    assert not ar.sent
    (tmp_path / "go").touch()
    assert ar.wait_for_send(TIMEOUT_S)
    array[:] = 0  # whatever is read now, nobody sees it
    assert ar.get(TIMEOUT_S) == [LENGTH] * 2
    assert ar.sent


def test_the_parts_of_a_map_and_of_a_scatter_are_watched(
    by_sockets: Client, tmp_path: Path
) -> None:
    go = str(tmp_path / "go")
    by_sockets[:].apply_async(wait_and_sum, go, np.ones(1))  # keeps the engines busy
    scattered = by_sockets[:].scatter("a", np.ones(2 * LENGTH), block=False)
    lv = by_sockets.load_balanced_view()
    mapped = lv.map_async(np.sum, [np.ones(LENGTH)] * 3)
    Path(go).touch()
    assert scattered.wait_for_send(TIMEOUT_S)
    assert mapped.wait_for_send(TIMEOUT_S)
    assert list(mapped) == [LENGTH] * 3


def test_a_wait_for_the_sending_ends_in_time(by_sockets: Client, tmp_path: Path) -> None:
    ar = by_sockets[:].apply_async(wait_and_sum, str(tmp_path / "go"), np.ones(LENGTH))
    ar.wait_for_send(0.01)
    (tmp_path / "go").touch()
    assert ar.wait_for_send(TIMEOUT_S)
