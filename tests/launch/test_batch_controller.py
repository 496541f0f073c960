"""Controllers as jobs: what is submitted, and who ends them."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from parallelz import Cluster
from parallelz.errors import ClusterError
from parallelz.launch import cluster_file
from parallelz.launch.batch_controller import (
    OWNER_SILENCE_S,
    SlurmController,
    can_be_reached,
)
from parallelz.launch.controller_job import OwnerFile
from parallelz.launch.launcher import ControllerOptions, HistoryLimits, Place
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import new_secrets


def script_for(tmp_path: Path, options: ControllerOptions, **more: Any) -> str:
    """Return the script of a job whose cluster has claimed its id."""
    cluster_file.establish(tmp_path, "big", writes_files=False)
    place = Place(tmp_path, "big", more.pop("parent_pid", None))
    ((_, script),) = SlurmController(place, options, launcher_options=more)._scripts()
    return script


@pytest.fixture(autouse=True)
def _released(tmp_path: Path) -> Any:
    yield
    facts = cluster_file.read(tmp_path / "security" / "cluster-big.json")
    if facts is not None:
        cluster_file.release(tmp_path, "big", socket_dir=facts.socket_dir)


def test_a_job_has_all_that_a_controller_is_told(tmp_path: Path) -> None:
    options = ControllerOptions("0.0.0.0", 7, "none", hwm=3, history=HistoryLimits(9))
    script = script_for(tmp_path, options, queue="long", python="py", memory="2GB", cores=2)
    assert "#SBATCH --partition=long" in script
    assert "#SBATCH --mem=2000M" in script
    assert "#SBATCH --cpus-per-task=2" in script
    words = shlex.split(script.splitlines()[-1])
    assert words[:5] == ["exec", "py", "-P", "-m", "parallelz.launch.controller_job"]
    told = msgspec.json.decode(words[words.index("--options") + 1], type=ControllerOptions)
    assert told == options
    assert "--owner-file" not in words


def test_a_job_whose_owner_it_does_not_outlive_is_told_who_that_is(tmp_path: Path) -> None:
    script = script_for(tmp_path, ControllerOptions(), parent_pid=os.getpid())
    assert f"--owner-silence-s {OWNER_SILENCE_S:g}" in script
    assert f"--owner-file {tmp_path}/log/controller-big/owner" in script


def test_another_process_knows_its_job_and_what_it_was_told(tmp_path: Path) -> None:
    told = {"queue": "long"}
    controller = SlurmController(Place(tmp_path, "", None), launcher_options=told)
    facts = controller.to_facts()
    assert (facts.launcher, facts.pid, facts.launcher_options) == ("slurm", 0, told)
    assert facts.details == {"jobs": ""}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cores": 0}, "cores must be 1 or more"),
        ({"nodes": 2}, "has no option 'nodes'"),
        ({"walltime": []}, "cannot use its option walltime"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        Cluster(profile_dir=tmp_path, controller="slurm", controller_launcher_options=options)


def test_connection_files_cannot_be_used_again(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot use connection files again"):
        SlurmController(Place(tmp_path, "", None), ControllerOptions(reuse=True))


def test_an_owner_who_gives_signs_is_there(tmp_path: Path) -> None:
    file = tmp_path / "owner"
    owner = OwnerFile(file, silence_s=10.0, now_s=0.0)
    for now_s in range(0, 100, 8):
        file.touch()
        os.utime(file, ns=(now_s, now_s))
        assert not owner.is_silent(float(now_s))
    assert not owner.is_silent(105.0)
    assert owner.is_silent(107.0)


@pytest.mark.parametrize("was_there", [True, False], ids=["deleted", "never-there"])
def test_an_owner_without_a_file_is_gone(tmp_path: Path, was_there: bool) -> None:
    file = tmp_path / "owner"
    if was_there:
        file.touch()
    owner = OwnerFile(file, silence_s=10.0, now_s=0.0)
    assert not owner.is_silent(1.0)
    file.unlink(missing_ok=True)
    assert not owner.is_silent(9.0)
    assert owner.is_silent(12.0)


def elsewhere(tmp_path: Path, *urls: str) -> ConnectionInfo:
    info = new_secrets("", runtime_dir=tmp_path).infos["client"]
    return msgspec.structs.replace(info, host_id="elsewhere", tcp_urls=list(urls))


def test_a_controller_is_reached_at_any_address_that_is_not_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listening:
        port = listening.getsockname()[1]
        urls = ("tcp://127.0.0.3:1", f"tcp://127.0.0.2:{port}")
        assert can_be_reached(elsewhere(tmp_path, *urls))
    assert not can_be_reached(elsewhere(tmp_path, *urls))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert not can_be_reached(elsewhere(tmp_path, f"tcp://127.0.0.1:{port}"))
