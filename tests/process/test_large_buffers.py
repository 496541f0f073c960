"""Large buffers that go by sockets: through breaks, and in nobody's way."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from helpers_proxy import Proxy, Way

from parallelz import Client, Cluster, Reference, settings
from parallelz.client.crowding import NOTICE_S
from parallelz.protocol.connection import ConnectionInfo

np = pytest.importorskip("numpy")

pytestmark = [pytest.mark.process, pytest.mark.slow]

TIMEOUT_S = 60
MIB = 1024 * 1024
LARGE_MIB = 48


@contextlib.contextmanager
def limited(profile_dir: Path, nbytes: int, store: str = "sqlite") -> Iterator[Client]:
    """Yield a client of a cluster whose controller keeps only so much of each peer."""
    limits = {"Limits": {"peer_bytes_max": nbytes}}
    with Cluster(n=2, profile_dir=profile_dir, store=store, config=limits) as rc:
        yield rc


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Return a cluster without shared memory, which other hosts could reach."""
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    cluster = Cluster(n=2, profile_dir=tmp_path, controller_ip="127.0.0.1")
    with cluster:
        yield cluster


def large() -> Any:
    return np.arange(LARGE_MIB * MIB // 8)


def info_of(cluster: Cluster) -> ConnectionInfo:
    return ConnectionInfo.decode(Path(cluster.client_connection_file).read_bytes())


@pytest.mark.parametrize("way", ["there", "back"])
def test_what_is_cut_off_in_the_middle_is_sent_again_whole(cluster: Cluster, way: Way) -> None:
    info = info_of(cluster)
    port = urlsplit(info.tcp_urls[0]).port
    assert port is not None
    array = large()
    with Proxy(("127.0.0.1", port)) as proxy:
        urls = [f"tcp://127.0.0.1:{proxy.port}"]
        with Client(msgspec.structs.replace(info, ipc_url="", tcp_urls=urls)) as rc:
            engine = rc[0]
            proxy.cut(way, LARGE_MIB // 2 * MIB)
            engine.push({"a": array}, block=False).get(TIMEOUT_S)
            total = engine.apply_async(np.sum, Reference("a")).get(TIMEOUT_S)
            assert total == array.sum()
            got = engine.pull("a", block=False).get(TIMEOUT_S)
            assert (got == array).all()
            assert engine.apply_async(abs, -1).get(TIMEOUT_S) == 1
        assert proxy.cut_count == 1


def test_others_go_on_while_large_buffers_pass(cluster: Cluster) -> None:
    info = info_of(cluster)
    with Client(info) as rc, Client(info) as other:
        array = large()
        pushed = rc[0].push({"a": array}, block=False)
        count = 0
        while not pushed.ready():
            assert other[1].apply_sync(abs, -count) == count
            count += 1
        assert pushed.successful()
        assert count > 1


def peak_nbytes(pid: int) -> int:
    """Return how much memory a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_what_passes_is_once_in_the_memory_of_the_controller(
    cluster: Cluster,
) -> None:
    assert cluster.controller is not None
    pid = cluster.controller.pid
    with Client(info_of(cluster)) as rc:
        dv = rc[:]
        assert dv.apply_sync(abs, -1) == [1, 1]
        before = peak_nbytes(pid)
        dv.push({"a": large()}, block=True)
        grown = peak_nbytes(pid) - before
    assert LARGE_MIB * MIB / 2 < grown < LARGE_MIB * MIB * 1.5


def test_a_client_sends_no_more_than_the_controller_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_and_sum(path: str, array: Any) -> float:
        while not Path(path).exists():
            time.sleep(0.005)
        return float(array.sum())

    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    go = tmp_path / "go"
    with limited(tmp_path, 8 * MIB) as rc:
        lv = rc.load_balanced_view()
        array = np.ones(4 * MIB // 8)
        results = [lv.apply_async(wait_and_sum, str(go), array) for _ in range(6)]
        with pytest.warns(UserWarning, match=r"(?s)Limits.peer_bytes_max.*4 more calls"):
            results[0].wait(1.5 * NOTICE_S)
        status = rc.queue_status()
        assert sum(each["tasks"] + each["queue"] for each in engines_in(status)) == 2
        assert "running on engine" in rc.why(results[0])
        third, last = rc.why([*results[2].msg_ids, *results[-1].msg_ids])
        assert re.search(r"waits at its client: .* 8 MiB .*Limits.peer_bytes_max", third)
        assert third.endswith("it is the next to be sent")
        assert last.endswith("3 calls are sent before it")
        assert len(rc.hub_history()) == 2  # of those that have left; it does not wait
        go.touch()
        assert [ar.get(TIMEOUT_S) for ar in results] == [array.size] * 6


def test_tasks_that_fill_the_controller_get_the_results_that_they_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for(path: str) -> int:
        while not Path(path).exists():
            time.sleep(0.005)
        return 7

    def total(number: int, array: Any) -> float:
        return float(number + array.sum())

    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    with limited(tmp_path, 8 * MIB) as rc:
        lv = rc.load_balanced_view()
        number = lv.apply_async(wait_for, str(tmp_path / "go"))
        array = np.ones(4 * MIB // 8)
        results = [lv.apply_async(total, number, array) for _ in range(6)]
        (tmp_path / "go").touch()  # what has not left yet comes when the number is there
        assert [ar.get(TIMEOUT_S) for ar in results] == [7 + array.size] * 6


def engines_in(status: dict[Any, Any]) -> list[dict[str, int]]:
    return [each for name, each in status.items() if name != "unassigned"]


@pytest.mark.parametrize("store", ["sqlite", "none"])
def test_the_least_limit_lets_everything_pass_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    array = np.ones(2 * MIB // 8)
    with limited(tmp_path, 1, store) as rc:
        dv, lv = rc[:], rc.load_balanced_view()
        dv.push({"a": array}, block=False).get(TIMEOUT_S)
        twice = lv.map_async(lambda each: each * 2, [array] * 4)
        small = lv.map_async(abs, range(-20, 0))
        assert all((each == 2).all() for each in twice.get(TIMEOUT_S))
        assert small.get(TIMEOUT_S) == list(range(20, 0, -1))
        assert all((each == 1).all() for each in dv.pull("a", block=False).get(TIMEOUT_S))
