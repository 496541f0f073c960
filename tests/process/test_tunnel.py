"""Clients and engines that reach their controller through SSH, by a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from helpers_processes import words_of
from helpers_sshd import SSHD, running_sshd

from parallelz import Client, Cluster, ClusterError
from parallelz.errors import ConnectionFileError

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("ssh_on_path")]

TIMEOUT_S = 60


@pytest.fixture(params=["", "127.0.0.1"], ids=["socket file", "port"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(n=2, profile_dir=tmp_path, controller_ip=request.param) as rc:
        assert isinstance(rc.cluster, Cluster)
        yield rc.cluster


@pytest.fixture
def networked(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(n=1, profile_dir=tmp_path, controller_ip="127.0.0.1") as rc:
        assert isinstance(rc.cluster, Cluster)
        yield rc.cluster


def ssh_processes() -> list[psutil.Process]:
    """Return the ssh programs below this process."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if Path(" ".join(words_of(each)[:1])).name == "ssh"]


def wait_until(is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)  # of processes that are not ours nobody tells


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """See to it that a process has ended, also where a test fails."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)


def tunnels() -> list[Path]:
    return list(Path(os.environ["TMPDIR"]).glob("parallelz-ssh-*"))


def test_a_client_works_through_a_tunnel(cluster: Cluster) -> None:
    with Client(cluster.client_connection_file, sshserver="there") as rc:
        assert len(ssh_processes()) == 1
        assert rc.ids == [0, 1]
        data = bytes(3_000_000)
        assert rc[:].apply_sync(lambda data: data, data) == [data, data]
        assert rc.load_balanced_view().map_sync(abs, range(-99, 0)) == [*range(99, 0, -1)]
    assert ssh_processes() == []
    assert tunnels() == []


@pytest.mark.parametrize("with_user", [False, True])
def test_a_server_is_named_as_for_ssh(sshd: SSHD, networked: Cluster, with_user: bool) -> None:
    name = f"{psutil.Process().username()}@127.0.0.1" if with_user else "127.0.0.1"
    file = networked.client_connection_file
    with Client(file, sshserver=f"{name}:{sshd.port}", sshkey=sshd.key) as rc:
        assert rc.ids == [0]


def test_jump_hosts_of_the_configuration_are_used(networked: Cluster) -> None:
    with Client(networked.client_connection_file, sshserver="jumped") as rc:
        assert rc.ids == [0]


def test_a_client_that_is_dropped_leaves_no_tunnel(networked: Cluster) -> None:
    rc = Client(networked.client_connection_file, sshserver="there")
    assert rc.ids == [0]
    del rc
    wait_until(lambda: not ssh_processes())


def test_nothing_is_lost_when_a_tunnel_breaks(cluster: Cluster, tmp_path: Path) -> None:
    def slow(number: int) -> int:
        time.sleep(0.01)
        return number

    with Client(cluster.client_connection_file, sshserver="there") as rc:
        result = rc.load_balanced_view().map_async(slow, range(300), chunksize=1)
        for count in (50, 150):
            rc.connection.wait(lambda count=count: result.progress >= count, TIMEOUT_S)
            (before,) = ssh_processes()
            before.kill()
            before.wait(TIMEOUT_S)
            wait_until(lambda: len(ssh_processes()) == 1)
        assert result.get(TIMEOUT_S) == [*range(300)]
        assert rc[:].apply_sync(lambda: 1) == [1, 1]


def test_a_tunnel_waits_for_its_server_to_come_back(
    networked: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "sshd"
    directory.mkdir()
    with running_sshd(directory) as server:
        monkeypatch.setenv("PATH", f"{server.path}:{os.environ['PATH']}")
        with Client(networked.client_connection_file, sshserver="there") as rc:
            server.stop()
            (before,) = ssh_processes()
            before.kill()
            before.wait(TIMEOUT_S)
            result = rc[0].apply_async(lambda: 1)
            server.start()
            assert result.get(TIMEOUT_S) == 1


def test_a_killed_client_leaves_no_tunnel(networked: Cluster) -> None:
    code = (
        "import sys; from parallelz import Client; rc = Client(sys.argv[1], sshserver='there');"
        " print(rc.ids, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(networked.client_connection_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"[0]\n"
        (ssh,) = ssh_processes()
        client.kill()
        ssh.wait(TIMEOUT_S)
    for directory in tunnels():  # what a killed process cannot remove
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def test_a_forked_process_does_not_keep_the_tunnel(networked: Cluster) -> None:
    rc = Client(networked.client_connection_file, sshserver="there")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # until our parent has looked
        os._exit(0)
    rc.close()
    wait_until(lambda: not ssh_processes())
    os.close(writing)
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("down", "Connection refused"),
        ("nobody@there", "Permission denied"),
        ("no-such-host.invalid", "no-such-host.invalid"),
        ("-oProxyCommand=x", "is not a server to log in to"),
        ("there:x", "is not a server to log in to"),
    ],
)
def test_what_ssh_says_is_in_the_error(networked: Cluster, name: str, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        Client(networked.client_connection_file, sshserver=name)
    assert tunnels() == []


def test_a_key_must_exist_and_be_of_use(networked: Cluster, tmp_path: Path) -> None:
    file = networked.client_connection_file
    with pytest.raises(ClusterError, match="there is no private key"):
        Client(file, sshserver="there", sshkey=tmp_path / "none")
    with pytest.raises(ClusterError, match="only with sshserver"):
        Client(file, sshkey=tmp_path / "none")


def test_a_controller_is_found_at_another_address(
    networked: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(networked.client_connection_file) as rc:
        port = rc[0].apply_sync(lambda: 0) or _port(networked)
    url = f"tcp://localhost:{port}"
    with Client(url, profile_dir=tmp_path) as rc:
        assert rc.ids == [0]
    with Client(url, profile_dir=tmp_path, sshserver="there") as rc:
        assert rc.ids == [0]
    for wrong in ("http://localhost:1", "tcp://localhost", "tcp://:1", "ipc://x"):
        with pytest.raises(ConnectionFileError, match="is not the address of a controller"):
            Client(wrong, profile_dir=tmp_path)


def test_an_address_is_of_no_use_without_keys(tmp_path: Path) -> None:
    with (
        Cluster(n=1, profile_dir=tmp_path),
        pytest.raises(ConnectionFileError, match="start it with --ip"),
    ):
        Client("tcp://localhost:1", profile_dir=tmp_path)


def _port(cluster: Cluster) -> int:
    from parallelz.protocol.connection import ConnectionInfo

    info = ConnectionInfo.decode(cluster.client_connection_file.read_bytes())
    return int(info.tcp_urls[0].rpartition(":")[2])


def test_engines_join_through_a_tunnel_that_breaks(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "security" / "ipcontrollerz-engine.json"
    command = [sys.executable, "-m", "parallelz.cli.ipenginez", f"--file={file}", "-n2"]
    with (
        cluster.connect_client_sync() as rc,
        subprocess.Popen([*command, "--ssh=there"]) as engines,
        ended(engines),
    ):
        rc.wait_for_engines(4, timeout=TIMEOUT_S)
        assert rc[2:].apply_sync(lambda: 1) == [1, 1]
        rc[2:].push({"kept": 7}, block=True)
        (before,) = ssh_processes()
        before.kill()
        before.wait(TIMEOUT_S)
        assert rc[2:].pull("kept").get(TIMEOUT_S) == [7, 7]
        engines.send_signal(signal.SIGTERM)
        assert engines.wait(TIMEOUT_S) == 0
        assert ssh_processes() == []


def test_engines_without_a_tunnel_say_why(networked: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "security" / "ipcontrollerz-engine.json"
    command = [sys.executable, "-m", "parallelz.cli.ipenginez", f"--file={file}"]
    done = subprocess.run(
        [*command, "--ssh=down"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ipenginez: no tunnel by ssh to down: ")
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
