"""Thousands of connections of strangers: whoever is there is served, and newcomers get in."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil
import pytest

from parallelz import Client, Cluster
from parallelz.protocol.connection import ConnectionInfo

pytestmark = [pytest.mark.process, pytest.mark.slow]

TIMEOUT_S = 60
MIB = 1024 * 1024


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(n=1, profile_dir=tmp_path, controller_ip="127.0.0.1") as rc:
        assert rc.cluster is not None
        yield rc.cluster


def controller_of(cluster: Cluster) -> psutil.Process:
    assert cluster.controller is not None
    return psutil.Process(cluster.controller.pid)


def from_elsewhere(cluster: Cluster) -> ConnectionInfo:
    info = ConnectionInfo.decode(cluster.client_connection_file.read_bytes())
    return msgspec.structs.replace(info, ipc_url="")


def wait_for_files(process: psutil.Process, count: int) -> None:
    """Wait until a process has so many files open."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while process.num_fds() < count:
        assert time.monotonic() < give_up_s, f"{process.num_fds()} files of {count}"
        threading.Event().wait(0.05)


@contextlib.contextmanager
def half_open(cluster: Cluster, count: int) -> Iterator[list[socket.socket]]:
    """Open connections and say nothing, or the beginning of a greeting."""
    url = urlsplit(from_elsewhere(cluster).tcp_urls[0])
    lines: list[socket.socket] = []
    try:
        for index in range(count):
            line = socket.socket()
            lines.append(line)
            line.setblocking(False)
            line.connect_ex((url.hostname, url.port))
            if index % 2:
                with contextlib.suppress(OSError):  # not connected yet
                    line.send(b"\xff" + bytes(8))
        yield lines
    finally:
        for line in lines:
            line.close()


@pytest.fixture
def many_files() -> Iterator[int]:
    """Let the test open many files; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_half_open_connections_hinder_nobody(
    cluster: Cluster, many_files: int
) -> None:
    if many_files < 11_000:
        pytest.skip(f"a process may open {many_files} files only")
    controller = controller_of(cluster)
    with Client(from_elsewhere(cluster)) as there:
        view = there.load_balanced_view()
        before = controller.memory_info().rss
        with half_open(cluster, 10_000):
            wait_for_files(controller, 10_000)
            assert view.map_sync(abs, range(-100, 0)) == list(range(100, 0, -1))
            with Client(from_elsewhere(cluster), timeout=TIMEOUT_S) as newcomer:
                assert newcomer[:].apply_sync(abs, -1) == [1]
            assert controller.memory_info().rss - before < 400 * MIB
        assert view.apply_sync(abs, -1) == 1


def test_a_controller_that_can_open_no_more_files_goes_on_with_whom_it_has(
    cluster: Cluster,
) -> None:
    controller = controller_of(cluster)
    files_max = controller.num_fds() + 60
    resource.prlimit(controller.pid, resource.RLIMIT_NOFILE, (files_max, files_max))
    log = cluster.profile_dir / "log" / "controller.log"
    with Client(from_elsewhere(cluster)) as there:
        view = there.load_balanced_view()
        with half_open(cluster, 500):
            wait_for_files(controller, files_max)
            for _ in range(20):
                assert view.map_sync(abs, range(-100, 0)) == list(range(100, 0, -1))
                threading.Event().wait(0.1)  # through some rounds of its timers
            array = np.arange(1_000_000.0)
            there[:].push({"array": array}, block=True)
            assert (there[0].pull("array", block=True) == array).all()
        with Client(from_elsewhere(cluster), timeout=TIMEOUT_S) as newcomer:
            assert newcomer[:].apply_sync(abs, -1) == [1]
    assert "Traceback" not in log.read_text()
    assert len(log.read_text().splitlines()) < 200
