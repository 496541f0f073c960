"""A cluster over several hosts: the controller on one, engines on two, a client on a fourth."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from helpers_hosts import Host, Network, network_of, obstacle

from parallelz.protocol.connection import ConnectionInfo

pytestmark = [pytest.mark.service, pytest.mark.process, pytest.mark.slow]

PREPARE = """
import json, sys, time
import numpy as np
import parallelz
rc = parallelz.Client("client.json", timeout=20)
rc.wait_for_engines({engines}, timeout=60)
lv = rc.load_balanced_view()
def where():
    import socket
    return socket.gethostname()
def engines_of(host):
    found = rc[:].apply_async(where).get_dict(60)
    return sorted(engine for engine, name in found.items() if name == host)
def tell(value):
    print(json.dumps(value), flush=True)
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    reason = obstacle()
    if reason and "root" not in reason and os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with network_of(tmp_path, ["head", "worker-a", "worker-b", "desk"]) as network:
        yield network


def start_controller(host: Host, *options: str) -> None:
    controller = host.start_module("parallelz.cli.ipcontrollerz", *options)
    assert controller.stdout is not None
    assert controller.stdout.readline().startswith("Engines join with"), host.log


def copy_file(role: str, source: Host, target: Host) -> Path:
    security = source.directory / "ipython" / "profile_default" / "security"
    copied = target.directory / f"{role}.json"
    shutil.copy(security / f"ipcontrollerz-{role}.json", copied)
    return copied


def start_engines(host: Host, n: int = 2) -> None:
    host.start_module("parallelz.cli.ipenginez", "-n", str(n), "--file", "engine.json")


class Script:
    """A client's program on a host, and what it tells the test."""

    def __init__(self, host: Host, source: str, engines: int = 4) -> None:
        self._host = host
        code = PREPARE.replace("{engines}", str(engines)) + source
        self._process = host.start(sys.executable, "-c", code)

    def hear(self) -> object:
        """Return the next thing that it tells."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._host.log
        return json.loads(line)

    def go_on(self) -> None:
        """Let its `input()` return."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@pytest.fixture
def cluster(network: Network) -> Network:
    """Start it all, but for the client."""
    head, *workers, desk = network.hosts
    start_controller(head, "--ip=*")
    for worker in workers:
        copy_file("engine", head, worker)
        start_engines(worker)
    copy_file("client", head, desk)
    return network


def test_files_that_were_copied_are_enough_for_a_cluster_over_hosts(cluster: Network) -> None:
    desk = cluster.hosts[-1]
    script = Script(
        desk,
        """
tell(sorted(rc[:].apply_sync(where)))
array = np.arange(4_000_000.0)
rc[:].push({"array": array}, block=True)
tell([float(total) for total in rc[:].apply_sync(lambda: array.sum())])
tell(bool((rc[0].pull("array", block=True) == array).all()))
tell(lv.map_sync(lambda x: x * x, range(100)))
""",
    )
    assert script.hear() == ["worker-a", "worker-a", "worker-b", "worker-b"]
    assert script.hear() == [sum(range(4_000_000))] * 4
    assert script.hear() is True
    assert script.hear() == [x * x for x in range(100)]


def test_an_address_that_is_dead_from_here_costs_seconds(network: Network) -> None:
    head, worker, _, desk = network.hosts
    start_controller(head, "--ip=*")
    for role, host in (("engine", worker), ("client", desk)):
        file = copy_file(role, head, host)
        info = ConnectionInfo.decode(file.read_bytes())
        (url, *others) = info.tcp_urls
        silent = url.replace(network.address_of(head), "10.77.0.99")
        closed = url.replace(network.address_of(head), network.address_of(host))
        urls = [silent, closed, url, *others]
        file.write_bytes(msgspec.structs.replace(info, tcp_urls=urls).encode())
    start_engines(worker)
    script = Script(desk, "tell(lv.map_sync(abs, [-1, -2]))", engines=2)
    assert script.hear() == [1, 2]


def test_a_controller_of_several_addresses_is_reached_by_its_location_first(
    network: Network,
) -> None:
    head, _, _, desk = network.hosts
    head.run("ip", "address", "add", "10.77.0.200/24", "dev", "eth0")
    start_controller(head, "--ip=*", "--location=10.77.0.200")
    info = ConnectionInfo.decode(copy_file("client", head, desk).read_bytes())
    addresses = [url.rpartition("/")[2].rpartition(":")[0] for url in info.tcp_urls]
    assert addresses == ["10.77.0.200", network.address_of(head), "127.0.0.1"]
    assert Script(desk, "tell(len(rc.ids)); input()", engines=0).hear() == 0
    assert "10.77.0.200:" in head.run("ss", "-Htn", "state", "established")


def test_a_controller_without_an_address_says_so_to_other_hosts(network: Network) -> None:
    head, _, _, desk = network.hosts
    start_controller(head)
    copy_file("client", head, desk)
    script = Script(desk, "")
    with pytest.raises(AssertionError, match="start it with --ip"):
        script.hear()


def test_large_data_cross_a_slow_network_without_a_break(cluster: Network) -> None:
    """They take several times as long as a host may give no sign of life."""
    head, _, worker_b, desk = cluster.hosts
    script = Script(
        desk,
        """
slow = rc[engines_of("worker-b")[0]]
tell("ready")
input()
array = np.arange(2_000_000.0)
slow.push({"array": array}, block=True)
tell(bool((slow.pull("array", block=True) == array).all()))
""",
    )
    assert script.hear() == "ready"
    cluster.slow_down(worker_b, *("tbf", "rate", "20mbit", "burst", "32kb", "latency", "400ms"))
    script.go_on()
    assert script.hear() is True
    assert "broke" not in head.log


def partition(network: Network, host: Host, length_s: float) -> None:
    network.cut(host)
    threading.Event().wait(length_s)
    network.heal(host)


@pytest.mark.parametrize("name", ["worker-b", "desk"])
def test_a_host_that_is_cut_off_for_ten_seconds_loses_nothing(
    cluster: Network, name: str
) -> None:
    head, *_, desk = cluster.hosts
    script = Script(
        desk,
        """
def work(number):
    with open("../runs", "a") as runs:
        runs.write(f"{number}\\n")
    time.sleep(0.1)
    return number * number
rc[:].execute("import time", block=True)
before = {host: engines_of(host) for host in ("worker-a", "worker-b")}
results = lv.map_async(work, range(500))
next(iter(results))
tell("under way")
tell(results.get(60) == [n * n for n in range(500)])
tell({host: engines_of(host) for host in before} == before)
""",
    )
    assert script.hear() == "under way"
    partition(cluster, next(h for h in cluster.hosts if h.name == name), 10)
    assert script.hear() is True, "every result is there, and right"
    assert script.hear() is True, "each host has the engines that it had"
    runs = Counter((head.directory.parent / "runs").read_text().split())
    assert runs == Counter(map(str, range(500))), "each task ran once"
    assert "lost" not in head.log


def test_a_host_that_stays_away_ends_its_tasks_with_the_cause_and_may_come_back(
    cluster: Network,
) -> None:
    _, _, worker_b, desk = cluster.hosts
    script = Script(
        desk,
        """
there = engines_of("worker-b")
rc[there].push({"kept": 42}, block=True)
def long(directory):
    import pathlib, time
    pathlib.Path(directory, "started").touch()
    time.sleep(22)
doomed = rc[there[0]].apply_async(long, "..")
waiting = rc[there[0]].apply_async(where)
tell("submitted")
input()
for result in (doomed, waiting):
    try:
        result.get(60)
    except parallelz.EngineError as error:
        tell(str(error))
tell(lv.map_sync(abs, range(-20, 0)) == list(range(20, 0, -1)))
tell("may come back")
rc.wait_for_engines(4, timeout=60)
tell(engines_of("worker-b") == there)
tell(rc[there].pull("kept", block=True))
""",
    )
    assert script.hear() == "submitted"
    cluster.cut(worker_b)
    script.go_on()
    for _ in range(2):
        assert "worker-b has been unreachable for 15 s" in str(script.hear())
    assert script.hear() is True, "the others go on"
    assert script.hear() == "may come back"
    cluster.heal(worker_b)
    assert script.hear() is True, "the same engines, by their ids"
    assert script.hear() == [42, 42], "with what they had in memory"
