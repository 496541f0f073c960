"""Cluster files: claims, stale and damaged files, and what is removed with them."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from parallelz import settings
from parallelz.errors import ClusterError
from parallelz.launch import cluster_file, clusters
from parallelz.launch.cluster_file import ClusterRunning, NoCluster, ProcessId

TraceFunction = Callable[[FrameType, str, Any], Any]


@pytest.fixture
def profile_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    sockets = tempfile.mkdtemp(prefix="pz-")  # tmp_path is too long for sockets
    monkeypatch.setattr("tempfile.tempdir", sockets)
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv(settings.SHARED_MEMORY_DIR_VARIABLE, str(tmp_path / "shm"))
    settings.make_profile_dir(tmp_path / "p")
    yield tmp_path / "p"
    shutil.rmtree(sockets)


def changing(
    profile_dir: Path, cluster_id: str = ""
) -> AbstractContextManager[cluster_file.ClusterFacts]:
    facts = cluster_file.read(settings.cluster_file(profile_dir, cluster_id))
    assert facts is not None
    return cluster_file.changing(profile_dir, cluster_id, socket_dir=facts.socket_dir)


def kill(profile_dir: Path, cluster_id: str = "") -> None:
    """Let a cluster look as if all of its processes had been killed."""
    with changing(profile_dir, cluster_id) as facts:
        facts.owner = ProcessId(os.getpid(), "long ago")


def ids(profile_dir: Path) -> list[str]:
    return [each.cluster_id for each in clusters.find(profile_dir).clusters]


def files(profile_dir: Path) -> list[str]:
    return sorted(path.name for path in (profile_dir / "security").iterdir())


def test_all_secrets_are_for_their_owner_only(profile_dir: Path) -> None:
    socket_dir = cluster_file.establish(profile_dir, "")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (profile_dir / "security").iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"cluster.json", "ipcontrollerz-client.json", "ipcontrollerz-engine.json"} <= set(
        modes
    )
    assert Path(socket_dir).stat().st_mode & 0o777 == 0o700
    cluster_file.release(profile_dir, "", socket_dir=socket_dir)
    assert files(profile_dir) == []
    assert not Path(socket_dir).exists()
    assert not list((profile_dir.parent / "shm").iterdir())


def interrupt_at(step: int, names: frozenset[str]) -> TraceFunction:
    """Return what raises KeyboardInterrupt before that line in all calls of these functions."""
    seen = itertools.count(1)

    def trace(frame: FrameType, event: str, arg: object) -> TraceFunction | None:
        code = frame.f_code
        if code.co_filename != cluster_file.__file__ or code.co_name not in names:
            return None
        if event == "line" and next(seen) == step:
            raise KeyboardInterrupt
        return trace

    return trace


@pytest.mark.parametrize("reuse", [False, True])
def test_an_interrupt_of_a_start_leaves_nothing(profile_dir: Path, reuse: bool) -> None:
    for step in itertools.count(1):
        before = sys.gettrace()
        sys.settrace(interrupt_at(step, frozenset({"claim", "write_files"})))
        try:
            socket_dir = cluster_file.establish(profile_dir, "", reuse=reuse)
        except KeyboardInterrupt:
            pass
        else:
            break
        finally:
            sys.settrace(before)
        assert "cluster.json" not in files(profile_dir)
        assert not list(Path(tempfile.gettempdir()).iterdir())
        assert not list((profile_dir.parent / "shm").iterdir())
        for name in files(profile_dir):  # with --reuse they stay, and are begun with again
            (profile_dir / "security" / name).unlink()
    assert step > 10
    cluster_file.release(profile_dir, "", socket_dir=socket_dir)


def test_an_id_is_claimed_once(profile_dir: Path) -> None:
    socket_dir = cluster_file.establish(profile_dir, "a")
    with pytest.raises(ClusterRunning, match="with the id 'a' runs already"):
        cluster_file.establish(profile_dir, "a")
    assert os.listdir(Path(socket_dir).parent) == [Path(socket_dir).name]
    cluster_file.establish(profile_dir, "b")
    assert ids(profile_dir) == ["a", "b"]


def test_a_killed_cluster_does_not_keep_its_id(profile_dir: Path) -> None:
    old = cluster_file.establish(profile_dir, "")
    kill(profile_dir)
    new = cluster_file.establish(profile_dir, "")
    assert not Path(old).exists()
    assert Path(new).exists()


def test_who_comes_late_does_not_remove_the_files_of_a_successor(profile_dir: Path) -> None:
    old = cluster_file.establish(profile_dir, "")
    kill(profile_dir)
    cluster_file.establish(profile_dir, "")
    before = files(profile_dir)
    cluster_file.release(profile_dir, "", socket_dir=old)
    assert files(profile_dir) == before


def test_who_comes_late_does_not_change_what_is_said_of_a_successor(
    profile_dir: Path,
) -> None:
    old = cluster_file.establish(profile_dir, "")
    kill(profile_dir)
    cluster_file.establish(profile_dir, "")
    with (
        pytest.raises(ClusterError, match="stopped by someone else"),
        cluster_file.changing(profile_dir, "", socket_dir=old) as facts,
    ):
        facts.engine_sets.clear()


def test_cleaning_removes_what_was_killed_and_nothing_else(profile_dir: Path) -> None:
    killed = cluster_file.establish(profile_dir, "killed")
    alive = cluster_file.establish(profile_dir, "alive")
    kill(profile_dir, "killed")
    assert clusters.clean(profile_dir) == (["killed"], [])
    assert not Path(killed).exists()
    assert Path(alive).exists()
    assert ids(profile_dir) == ["alive"]


def test_of_another_host_nobody_can_tell(profile_dir: Path) -> None:
    cluster_file.establish(profile_dir, "")
    kill(profile_dir)
    with changing(profile_dir) as facts:
        facts.host = "elsewhere"
    assert clusters.clean(profile_dir) == ([], [])
    with pytest.raises(ClusterError, match="runs on elsewhere"):
        cluster_file.read_running(settings.cluster_file(profile_dir, ""))
    assert clusters.clean(profile_dir, force=True) == ([""], [])


def test_a_foreign_directory_is_never_removed(profile_dir: Path, tmp_path: Path) -> None:
    cluster_file.establish(profile_dir, "")
    (tmp_path / "precious").mkdir()
    kill(profile_dir)
    with changing(profile_dir) as facts:
        facts.socket_dir = str(tmp_path / "precious")
    clusters.clean(profile_dir)
    assert (tmp_path / "precious").exists()


def test_where_no_cluster_runs_the_error_says_how_to_start_one(profile_dir: Path) -> None:
    with pytest.raises(NoCluster, match="start one with: ipclusterz start"):
        cluster_file.read_running(settings.cluster_file(profile_dir, ""))


@pytest.mark.parametrize("text", [b"", b'{"cluster_id": 1}', b'{"cluster_id": "\xff"}', b"[]"])
def test_a_damaged_file_is_named_and_hides_no_other(text: bytes, profile_dir: Path) -> None:
    path = settings.cluster_file(profile_dir, "damaged")
    path.write_bytes(text)
    with pytest.raises(ClusterError, match=f"{path} is not a cluster file .* remove it if"):
        cluster_file.read(path)
    cluster_file.establish(profile_dir, "alive")
    cluster_file.establish(profile_dir, "killed")
    kill(profile_dir, "killed")
    found = clusters.find(profile_dir)
    assert [each.cluster_id for each in found.clusters] == ["alive", "killed"]
    assert str(path) in str(*found.errors)
    cleaned = clusters.clean(profile_dir, force=True)
    assert cleaned.cluster_ids == ["killed"]
    assert str(path) in str(*cleaned.errors)
    assert path.read_bytes() == text


def test_what_cannot_be_read_is_named_and_stays(profile_dir: Path) -> None:
    path = settings.cluster_file(profile_dir, "directory")
    path.mkdir()
    cleaned = clusters.clean(profile_dir, force=True)
    assert f"{path} cannot be read (Is a directory)" in str(*cleaned.errors)
    assert path.exists()


def test_a_copy_of_a_stale_file_does_not_let_the_cluster_of_today_be_cleaned(
    profile_dir: Path,
) -> None:
    cluster_file.establish(profile_dir, "")
    kill(profile_dir)
    path = settings.cluster_file(profile_dir, "")
    copy = Path(shutil.copy(path, path.with_name("cluster-old.json")))
    cluster_file.establish(profile_dir, "")
    before = files(profile_dir)
    cleaned = clusters.clean(profile_dir)
    assert f"{copy} is a copy of the file of another cluster, ''" in str(*cleaned.errors)
    assert ids(profile_dir) == [""]
    assert files(profile_dir) == before


def test_a_long_temporary_directory_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    socket_dir = cluster_file.make_socket_dir()
    try:
        assert len(f"{socket_dir}/controller.sock") < settings.SOCKET_PATH_LENGTH_MAX
        assert list(long.iterdir()) == []
    finally:
        Path(socket_dir).rmdir()


# -- connection files that stay ------------------------------------------------------------


def texts(profile_dir: Path) -> dict[str, str]:
    paths = (profile_dir / "security").glob("ipcontrollerz*.json")
    return {path.name: path.read_text() for path in paths}


def test_files_to_be_used_again_stay_and_are_used(profile_dir: Path) -> None:
    old = cluster_file.establish(profile_dir, "", ip="127.0.0.1", reuse=True)
    before = texts(profile_dir)
    assert len(before) == 3
    cluster_file.release(profile_dir, "", socket_dir=old)
    assert not Path(old).exists()
    assert texts(profile_dir) == before
    again = cluster_file.establish(profile_dir, "", reuse=True)
    assert again == old
    assert Path(old).stat().st_mode & 0o777 == 0o700
    assert texts(profile_dir) == before


def test_files_stay_when_their_cluster_was_killed(profile_dir: Path) -> None:
    cluster_file.establish(profile_dir, "", reuse=True)
    before = texts(profile_dir)
    kill(profile_dir)
    cluster_file.establish(profile_dir, "", reuse=True)
    assert texts(profile_dir) == before


def test_a_start_without_reuse_makes_new_keys_and_removes_them(profile_dir: Path) -> None:
    old = cluster_file.establish(profile_dir, "", reuse=True)
    before = texts(profile_dir)
    cluster_file.release(profile_dir, "", socket_dir=old)
    new = cluster_file.establish(profile_dir, "")
    assert not set(texts(profile_dir).values()) & set(before.values())
    cluster_file.release(profile_dir, "", socket_dir=new)
    assert texts(profile_dir) == {}


def test_a_running_cluster_is_not_touched_by_who_would_use_its_files(profile_dir: Path) -> None:
    socket_dir = cluster_file.establish(profile_dir, "", reuse=True)
    with pytest.raises(ClusterRunning):
        cluster_file.establish(profile_dir, "", reuse=True)
    assert Path(socket_dir).exists()


@pytest.mark.parametrize(("ip", "port"), [("", 1), ("127.0.0.2", 0), ("*", 0)])
def test_files_for_another_address_are_not_used(ip: str, port: int, profile_dir: Path) -> None:
    socket_dir = cluster_file.establish(profile_dir, "", ip="127.0.0.1", reuse=True)
    cluster_file.release(profile_dir, "", socket_dir=socket_dir)
    with pytest.raises(ClusterError, match=r"are for 127\.0\.0\.1 port \d+: leave out"):
        cluster_file.establish(profile_dir, "", ip=ip, port=port, reuse=True)
    assert clusters.find(profile_dir) == ([], [])


def test_a_directory_that_is_not_surely_ours_is_not_made_again(
    profile_dir: Path, tmp_path: Path
) -> None:
    old = cluster_file.establish(profile_dir, "", reuse=True)
    cluster_file.release(profile_dir, "", socket_dir=old)
    path = settings.connection_file(profile_dir, "", "controller")
    (tmp_path / "precious").mkdir()
    path.write_text(path.read_text().replace(old, str(tmp_path / "precious")))
    with pytest.raises(ClusterError, match=r"precious.* is not of this user"):
        cluster_file.establish(profile_dir, "", reuse=True)
    assert (tmp_path / "precious").exists()
