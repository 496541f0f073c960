"""Large data between processes of one host: written once, never lost, never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parallelz import Client, Cluster, ClusterError, DirectView, EngineError, settings
from parallelz.launch import cluster_file
from parallelz.protocol.messages import EngineInfo

np = pytest.importorskip("numpy")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not settings.shared_memory_root().is_dir(), reason="this system has no /dev/shm"
    ),
]

TIMEOUT_S = 30
MIB = 1024 * 1024
KILLS = 6
RESTARTS_MAX = 5  # of engines within a minute


def facts_of(profile_dir: Path) -> cluster_file.ClusterFacts:
    facts = cluster_file.read(settings.cluster_file(profile_dir, ""))
    assert facts is not None
    return facts


def runs(profile_dir: Path) -> bool:
    facts = cluster_file.read(settings.cluster_file(profile_dir, ""))
    return facts is not None and facts.is_running


def directory_of(profile_dir: Path) -> Path:
    """Return where the processes of a cluster share memory."""
    return settings.shared_memory_dir(Path(facts_of(profile_dir).socket_dir))


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.01)


@pytest.fixture
def shared(cluster_profile_dir: Path, rc: Client) -> Path:
    return directory_of(cluster_profile_dir)


def test_a_push_is_written_once_for_all_engines(
    cluster_profile_dir: Path, dv: DirectView, shared: Path
) -> None:
    array = np.arange(MIB, dtype=float)
    dv.push({"a": array}, block=True)
    assert len(files(shared / dv.client.connection.session_id)) == 1
    assert dv["a.sum()"] == [array.sum()] * 2
    assert dv["a.flags.writeable"] == [False] * 2


def test_results_are_read_only_and_right(dv: DirectView, shared: Path) -> None:
    results = dv.apply_sync(lambda n: (np.full(n, 1.5), {"b": bytes(n)}), MIB)
    assert len(list(shared.iterdir())) >= 2
    for array, more in results:
        assert (array == 1.5).all()
        assert not array.flags.writeable
        assert more["b"] == bytes(MIB)


def test_in_place_work_on_an_argument_says_what_to_do(dv: DirectView) -> None:
    def double(array: object) -> None:
        array *= 2  # type: ignore[operator]

    with pytest.raises(ValueError, match=r"x = x\.copy\(\)"):
        dv.client[0].apply_sync(double, np.ones(MIB))


def test_the_buffer_of_a_call_may_be_changed_at_once(dv: DirectView) -> None:
    array = np.ones(MIB)
    total = dv.apply_async(lambda a: a.sum(), array)
    array[:] = 0
    assert total.get(TIMEOUT_S) == [MIB, MIB]


def test_a_result_outlives_its_cluster(tmp_path: Path) -> None:
    with Cluster(n=1, profile_dir=tmp_path) as rc:
        shared = directory_of(tmp_path)
        array = rc[0].apply_sync(np.ones, 4 * MIB)
        assert files(shared)
    assert not shared.exists()
    assert array.sum() == 4 * MIB


def test_who_does_not_share_gets_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "0")
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        shared = directory_of(tmp_path)
        monkeypatch.delenv(settings.SHARED_MEMORY_VARIABLE)
        with Client(profile_dir=tmp_path) as sharing:
            # The controller reads for the engines what this client has put there.
            assert sharing[:].apply_sync(np.sum, np.ones(MIB)) == [MIB, MIB]
            assert [path.parent.name for path in files(shared)] == [
                sharing.connection.session_id
            ]
        assert rc[:].apply_sync(np.ones, MIB)[1].sum() == MIB


def test_the_limit_sends_the_rest_by_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, str(20 * MIB))
    with Cluster(n=1, profile_dir=tmp_path) as rc:
        arrays = rc[0].map_sync(lambda n: np.full(MIB, n), range(4))
        arrays += [rc[0].apply_sync(np.full, MIB, n) for n in range(4, 8)]
        assert [array[-1] for array in arrays] == list(range(8))
        assert sum(path.stat().st_size for path in files(directory_of(tmp_path))) < 20 * MIB


def test_nonsense_as_the_limit_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.SHARED_MEMORY_VARIABLE, "1GB")
    with pytest.raises(ClusterError, match="must be a number of bytes"):
        settings.shared_memory_bytes_max()


def test_a_client_may_leave_before_its_task_begins(tmp_path: Path) -> None:
    def wait_for(path: str) -> None:
        while not os.path.exists(path):
            time.sleep(0.01)

    go = tmp_path / "go"
    with Cluster(n=1, profile_dir=tmp_path / "p") as rc:
        rc[0].apply_async(wait_for, str(go))
        with Client(profile_dir=tmp_path / "p") as leaving:
            msg_id = leaving[0].push({"a": np.ones(MIB)}, block=False).msg_ids[0]
        wait_until(lambda: msg_id in rc.hub_history(), "what it sent never came")
        go.touch()
        rc.get_result(msg_id).get(TIMEOUT_S)
        assert rc[0]["a.sum()"] == MIB


# -- whoever is killed --------------------------------------------------------------------

CLIENT = """
import sys
import numpy as np
from parallelz import Client
with Client(profile_dir=sys.argv[1]) as rc:
    dv = rc[:]
    while True:
        dv.push({"a": np.ones(2**20)}, block=False)
        dv.apply_sync(np.ones, 2**20)
        print("!", flush=True)
"""


def test_a_killed_client_leaves_nothing_and_harms_nobody(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        shared = directory_of(tmp_path)
        for rounds in range(KILLS):
            process = subprocess.Popen(
                [sys.executable, "-c", CLIENT, str(tmp_path)], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            with process:
                for _ in range(1 + rounds):
                    assert process.stdout.readline()
                process.kill()
        rc[:].apply_sync(abs, 1)
        rc.clear(block=True)
        own = {rc.connection.session_id, *(e.session_id for e in engines_of(rc))}
        wait_until(
            lambda: {path.name for path in shared.iterdir()} <= own,
            "the memory of killed clients is still there",
        )


def engines_of(rc: Client) -> list[EngineInfo]:
    return list(rc.connection.ledger.engines.values())


def test_a_killed_engine_leaves_nothing_but_what_is_read(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path, restart=True) as rc:
        shared = directory_of(tmp_path)
        kept = rc[0].apply_sync(np.ones, MIB)
        dead = {engine.session_id for engine in engines_of(rc)}
        results = []
        for _ in range(RESTARTS_MAX // 2):
            rc.wait_for_engines(2, TIMEOUT_S)
            pids = rc[:].apply_sync(os.getpid)
            results.append(rc[:].apply_async(np.ones, MIB))
            dead |= {engine.session_id for engine in engines_of(rc)}
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for each in results[-1].split():
                with contextlib.suppress(EngineError):  # or it was fast enough
                    assert each.get(TIMEOUT_S).sum() == MIB
        assert kept.sum() == MIB
        del kept, results, each
        rc.wait_for_engines(2, TIMEOUT_S)
        dead -= {engine.session_id for engine in engines_of(rc)}
        wait_until(
            lambda: not dead & {path.name for path in shared.iterdir()},
            "the memory of killed engines is still there",
        )


def test_a_killed_controller_loses_nothing(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path) as rc:
        cluster = rc.cluster
        assert isinstance(cluster, Cluster)
        lv = rc.load_balanced_view()
        for _ in range(3):
            sums = [lv.apply_async(lambda a: a + 1, np.full(MIB, n)) for n in range(8)]
            assert cluster.controller is not None
            os.kill(cluster.controller.pid, signal.SIGKILL)
            assert [ar.get(TIMEOUT_S)[0] for ar in sums] == list(range(1, 9))
        shared = directory_of(tmp_path)
    assert not shared.exists()


EVERYBODY = textwrap.dedent("""
    import os, sys
    import numpy as np
    import psutil
    from parallelz import Cluster
    rc = Cluster(n=2, profile_dir=sys.argv[1]).start_and_connect_sync()
    array = rc[:].apply_sync(np.ones, 2**20)
    print("!", flush=True)
    pids = [str(child.pid) for child in psutil.Process().children(recursive=True)]
    # All at once, this program with its threads first: it would start the controller again.
    os.execv("/bin/sh", ["sh", "-c", "kill -9 " + " ".join(pids)])
""")


@pytest.fixture
def _without_leavings() -> Iterator[None]:
    before = set(settings.shared_memory_root().iterdir())
    yield
    assert set(settings.shared_memory_root().iterdir()) <= before


@pytest.mark.usefixtures("_without_leavings")
def test_what_is_left_when_all_were_killed_goes_with_the_next_start(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", EVERYBODY, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"!\n"
    left = directory_of(tmp_path)
    assert files(left)
    wait_until(lambda: not runs(tmp_path), "what was killed still runs")
    with Cluster(n=1, profile_dir=tmp_path) as rc:
        rc[0].apply_sync(abs, 1)
        assert not left.exists()
