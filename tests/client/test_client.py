from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from helpers_client import TIMEOUT_S, ThreadCluster

import parallelz
from parallelz import (
    Client,
    ClientClosed,
    ClusterError,
    ConnectionFileError,
    DirectView,
    LoadBalancedView,
)
from parallelz.protocol.connection import ConnectionInfo


def double(x: int) -> int:
    return 2 * x


def test_import_is_cheap() -> None:
    code = "import parallelz, sys; print(*({'zmq', 'numpy', 'IPython'} & {*sys.modules}))"
    assert subprocess.check_output([sys.executable, "-c", code]).split() == []


def test_every_public_name_is_there() -> None:
    for name in parallelz.__all__:
        assert getattr(getattr(parallelz, name), "__name__", name) == name
    assert ".".join(map(str, parallelz.version_info)) == parallelz.__version__
    with pytest.raises(AttributeError):
        _ = parallelz.nonsense


def test_the_package_of_the_user_side_has_its_classes() -> None:
    code = "from parallelz import client; print(client.Client, *dir(client))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "parallelz.client.client.Client" in printed
    assert "LoadBalancedView" in printed
    with pytest.raises(AttributeError, match="nonsense"):
        _ = parallelz.client.nonsense


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="ipclusterz start -n 4") as info:
        Client(profile_dir=tmp_path, timeout=0.01)
    assert str(tmp_path) in str(info.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ConnectionFileError, match=r"x\.json"):
        Client(path)


def test_a_file_appears_while_it_is_waited_for(cluster: ThreadCluster, tmp_path: Path) -> None:
    security = tmp_path / "security"
    security.mkdir()
    content = msgspec.convert(msgspec.to_builtins(cluster.info), ConnectionInfo).encode()
    path = security / "ipcontrollerz-x-client.json"

    def write() -> None:
        (security / "new").touch(mode=0o600)
        (security / "new").write_bytes(content)
        (security / "new").rename(path)

    timer = threading.Timer(0.05, write)
    timer.start()
    with Client(profile_dir=tmp_path, cluster_id="x") as rc:
        assert rc.wait_for_engines(2, TIMEOUT_S) is None
    timer.join()


def test_a_cluster_that_is_gone_does_not_answer(cluster: ThreadCluster) -> None:
    info = msgspec.structs.replace(cluster.info, ipc_url=cluster.info.ipc_url + "-gone")
    with pytest.raises(
        ClusterError,
        match=r"did not answer within 0.1.* s at ipc://.*-gone; .*ipclusterz start",
    ):
        Client(info, timeout=0.1)


def test_a_wrong_token_is_refused(cluster: ThreadCluster) -> None:
    info = msgspec.structs.replace(cluster.info, token="wrong")
    with pytest.raises(ClusterError, match=r"refused.*token"):
        Client(info)


def test_after_close_each_call_says_so(cluster: ThreadCluster) -> None:
    rc = Client(cluster.info)
    view = rc.view()
    rc.close()
    rc.close()
    for call in (
        lambda: rc.ids,
        lambda: view.apply(double, 1),
        lambda: view.map(double, [1]),
        lambda: view.imap(double, [1]),
        lambda: view.reduce(max, [1] * 50),
        lambda: rc[0],
        lambda: rc.push({"a": 1}),
        lambda: rc.abort(),
        lambda: rc.clear(),
        lambda: rc.wait_for_engines(2),
        lambda: rc.queue_status(),
        lambda: rc.direct_view().apply(double, 1),
    ):
        with pytest.raises(ClientClosed, match="was closed"):
            call()
    assert repr(rc) == "<Client: closed>"


def test_a_client_that_is_dropped_is_closed(cluster: ThreadCluster) -> None:
    rc = Client(cluster.info)
    thread = rc.connection.pump._background
    del rc
    gc.collect()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_close_ends_a_wait_in_another_thread(cluster: ThreadCluster) -> None:
    rc = Client(cluster.info)
    rc.wait_for_engines(2, TIMEOUT_S)
    for engine in cluster.engines:
        engine.hold()
    result = rc[0].apply_async(double, 1)
    errors = []

    def wait() -> None:
        try:
            result.get()
        except ClientClosed as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    rc.close()
    thread.join(TIMEOUT_S)
    assert len(errors) == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_needs_a_client_of_its_own(
    cluster: ThreadCluster, rc: Client, dv: DirectView
) -> None:
    cluster.engines[0].hold()
    pending = dv.apply_async(double, 1)
    calls = (lambda: rc.ids, lambda: rc.view().apply(double, 1), pending.get, lambda: rc[0])
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for call in calls:
                try:
                    call()
                except ClientClosed as error:
                    os.write(writing, f"{error}\n".encode())
            rc.close()
            os.write(writing, b"closed")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        *errors, last = pipe.read().splitlines()
    assert (len(errors), last) == (len(calls), "closed")
    assert all("Client() of its own" in error for error in errors)
    cluster.engines[0].go_on()
    assert pending.get(TIMEOUT_S) == [2, 2]
    assert rc.view().apply_sync(double, 1) == 2


def test_interrupting_a_wait_leaves_the_client_usable(
    cluster: ThreadCluster, rc: Client
) -> None:
    cluster.engines[0].hold()
    result = rc[0].apply_async(double, 1)
    for _ in range(3):
        interrupt = threading.Timer(
            0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
        )
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            result.get(TIMEOUT_S)
        interrupt.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    cluster.engines[0].go_on()
    assert result.get(TIMEOUT_S) == 2
    assert rc[1].apply_sync(double, 2) == 4


def test_many_threads_use_one_client(lv: LoadBalancedView) -> None:
    sums: list[int] = []

    def work(start: int) -> None:
        sums.append(sum(lv.apply_sync(double, start + n) for n in range(50)))

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sorted(sums) == [sum(2 * (100 * n + k) for k in range(50)) for n in range(6)]


def test_results_arrive_while_nobody_waits(lv: LoadBalancedView) -> None:
    assert lv.apply_sync(double, 1) == 2
    is_done = threading.Event()
    lv.apply_async(double, 1).add_done_callback(lambda result: is_done.set())
    assert is_done.wait(TIMEOUT_S)


def test_the_end_of_the_controller_ends_a_wait(cluster: ThreadCluster, rc: Client) -> None:
    cluster.engines[0].hold()
    result = rc[0].apply_async(double, 1)
    rc.spin()
    cluster.stop_controller()
    with pytest.raises(ClusterError, match="the controller has ended"):
        result.get(TIMEOUT_S)


def test_engines_come_and_go(cluster: ThreadCluster, rc: Client) -> None:
    view = rc.direct_view()
    assert view.apply_sync(double, 1) == [2, 2]
    cluster.add_engine()
    rc.wait_for_engines(3, TIMEOUT_S)
    assert rc.ids == [0, 1, 2]
    assert view.apply_sync(double, 1) == [2, 2, 2]
