"""Where the files of a cluster are."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelz import settings
from parallelz.errors import ClusterError


@pytest.fixture
def ipython_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path


def test_profiles_are_where_ipython_has_them(ipython_dir: Path) -> None:
    assert settings.profile_dir() == ipython_dir / "profile_default"
    assert settings.profile_dir("mpi") == ipython_dir / "profile_mpi"


def test_without_ipythondir_profiles_are_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert settings.profile_dir() == Path("/somewhere/.ipython/profile_default")


def test_a_profile_directory_needs_no_particular_name(tmp_path: Path) -> None:
    assert settings.profile_dir(profile_dir=tmp_path / "x") == tmp_path / "x"


def test_a_relative_profile_directory_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.profile_dir(profile_dir="x") == tmp_path / "x"


def test_a_profile_and_a_directory_at_once_are_refused() -> None:
    with pytest.raises(ClusterError, match="not both"):
        settings.profile_dir("mpi", "/tmp/x")


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_path_is_no_profile_name(name: str) -> None:
    with pytest.raises(ClusterError, match="--profile-dir"):
        settings.profile_dir(name)


@pytest.mark.parametrize("cluster_id", ["a/b", "-x", "..", "a b", "x" * 65])
def test_a_cluster_id_that_is_no_file_name_is_refused(cluster_id: str) -> None:
    with pytest.raises(ClusterError, match="is not a cluster id"):
        settings.connection_file(Path("p"), cluster_id, "client")


def test_clusters_of_one_profile_have_different_files() -> None:
    profile = Path("p")
    names = [
        function(profile, cluster_id)
        for function in (settings.cluster_file, settings.database_file)
        for cluster_id in ("", "a", "b")
    ]
    names += [settings.connection_file(profile, each, "engine") for each in ("", "a", "b")]
    names += [settings.connection_file(profile, each, "client") for each in ("", "a", "b")]
    names += [settings.log_file(profile, each, "controller") for each in ("", "a", "b")]
    assert len(set(names)) == 15


def test_what_holds_secrets_is_closed_to_others(tmp_path: Path) -> None:
    security = tmp_path / "p" / "security"
    security.mkdir(parents=True, mode=0o755)
    settings.make_profile_dir(tmp_path / "p")
    assert security.stat().st_mode & 0o777 == 0o700
    assert settings.log_dir(tmp_path / "p").is_dir()
