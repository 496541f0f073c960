"""Who is cut off for long, or frozen, comes back as who it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from helpers_proxy import Proxy

from parallelz import Client, Cluster, EngineError
from parallelz.protocol.connection import ConnectionInfo

pytestmark = [pytest.mark.process, pytest.mark.slow]

TIMEOUT_S = 60


def wait_until(rc: Client, is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        rc.connection.wait(is_so, 1.0)


def through(proxy: Proxy, path: Path, elsewhere: Path) -> ConnectionInfo:
    """Return a connection file's content for somebody who can only reach the proxy."""
    info = ConnectionInfo.decode(path.read_bytes())
    urls = [f"tcp://127.0.0.1:{proxy.port}"]
    info = msgspec.structs.replace(info, ipc_url="", tcp_urls=urls)
    elsewhere.write_bytes(msgspec.json.encode(info))
    elsewhere.chmod(0o600)
    return info


def test_a_host_that_is_cut_off_until_it_is_given_up_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = {"Limits": {"away_grace_s": 6.0}}  # longer than clients are silent about it
    cluster = Cluster(
        n=1, profile_dir=tmp_path / "profile", controller_ip="127.0.0.1", config=limits
    )
    with cluster as rc:
        client_file = Path(cluster.client_connection_file)
        url = ConnectionInfo.decode(client_file.read_bytes()).tcp_urls[0]
        port = urlsplit(url).port
        assert port is not None
        with Proxy(("127.0.0.1", port)) as proxy:
            engine_file = client_file.with_name("ipcontrollerz-engine.json")
            through(proxy, engine_file, tmp_path / "engine.json")
            far_info = through(proxy, client_file, tmp_path / "client.json")
            command = [sys.executable, "-m", "parallelz.engine.process", "-n", "1"]
            command += ["--file", str(tmp_path / "engine.json"), "--log-dir", str(tmp_path)]
            with subprocess.Popen(command) as supervisor:
                try:
                    rc.wait_for_engines(2, timeout=TIMEOUT_S)
                    check_the_way_back(rc, far_info, proxy, rc.ids[-1])
                finally:
                    supervisor.terminate()
    assert "the controller has not answered for 5 s" in caplog.text


def check_the_way_back(rc: Client, far_info: ConnectionInfo, proxy: Proxy, far: int) -> None:
    def double(x: int) -> int:
        return 2 * x

    with Client(far_info) as far_rc:
        rc[far].push({"kept": "all of it"}, block=True)
        pid = rc[far].apply_sync(os.getpid)
        far_rc[rc.ids[0]].apply_sync(abs, -1)
        proxy.fall_silent()
        results = far_rc.load_balanced_view().map_async(double, range(1000), chunksize=1)
        lost = rc[far].apply_async(abs, -1)
        wait_until(rc, lambda: far not in rc.ids)
        with pytest.raises(EngineError, match="no sign of life"):
            lost.get(TIMEOUT_S)
        proxy.go_on()
        assert results.get(TIMEOUT_S) == [2 * x for x in range(1000)]
        wait_until(rc, lambda: far in rc.ids)
        assert rc[far]["kept"] == "all of it"
        assert rc[far].apply_sync(os.getpid) == pid
        assert far_rc[far].apply_sync(os.getpid) == pid


def test_an_engine_that_is_stopped_and_goes_on_comes_back(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        rc[:].push({"kept": 1}, block=True)
        pid = rc[1].apply_sync(os.getpid)
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(rc, lambda: 1 not in rc.ids)
            assert rc.load_balanced_view().apply_sync(abs, -5) == 5
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(rc, lambda: 1 in rc.ids)
        assert rc[:]["kept"] == [1, 1]
        assert rc[1].apply_sync(os.getpid) == pid
