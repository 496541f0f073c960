"""What is run where, by the launcher ssh of a controller."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from parallelz import Cluster
from parallelz.errors import ClusterError
from parallelz.launch.launcher import ControllerOptions, Place
from parallelz.launch.ssh_controller import (
    SSHController,
    profile_dir_there,
    to_ssh_controller_options,
)
from parallelz.launch.ssh_controller_keeper import guard_command, seen_from_here
from parallelz.transport.security import new_secrets
from parallelz.transport.sockets import host_id


def test_the_guard_is_run_with_what_is_to_be_done_before() -> None:
    options = to_ssh_controller_options(
        {"host": "a", "python": "py", "setup": "module load x", "environment": {"A": "b c"}}
    )
    assert shlex.split(guard_command(options)) == [
        *("exec", "sh", "-c"),
        "module load x && env 'A=b c' py -P -m parallelz.controller.guard",
    ]


def test_the_history_is_at_the_same_place_below_the_home_directory() -> None:
    options = to_ssh_controller_options({"host": "a"})
    assert profile_dir_there(options, Path.home() / "x" / "profile_y") == "~/x/profile_y"
    assert profile_dir_there(options, Path("/data/profile_y")) == "/data/profile_y"
    options = to_ssh_controller_options({"host": "a", "profile_dir": "/far"})
    assert profile_dir_there(options, Path("/data/profile_y")) == "/far"


def test_processes_of_this_host_are_led_to_the_forwarded_socket(tmp_path: Path) -> None:
    made = new_secrets("", runtime_dir=tmp_path, ip="127.0.0.1", location="far.example")
    seen = seen_from_here(made, "/tmp/x/controller.sock")
    info = seen.infos["client"]
    assert (info.ipc_url, info.host_id) == ("ipc:///tmp/x/controller.sock", host_id())
    assert info.tcp_urls == made.infos["client"].tcp_urls
    assert seen.bind_urls == made.bind_urls


def test_another_process_knows_what_the_launcher_was_told(tmp_path: Path) -> None:
    place = Place(tmp_path, "", None)
    told = {"host": "me@a:2222"}
    controller = SSHController(place, ControllerOptions(), launcher_options=told)
    facts = controller.to_facts()
    assert (facts.launcher, facts.launcher_options) == ("ssh", told)
    assert SSHController.from_facts(facts, place).launcher_options == told


@pytest.mark.parametrize(
    ("controller", "options", "said"),
    [
        ("ssh", {}, "needs a host to log in to"),
        ("ssh", {"host": "-oProxyCommand=rm"}, "is not a server to log in to"),
        ("ssh", {"host": "a", "key": "/no/such/key"}, "there is no private key /no/such/key"),
        ("ssh", {"hosts": "a"}, "did you mean host"),
        ("local", {"host": "a"}, "launcher local of a controller has no options"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(
    tmp_path: Path, controller: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        Cluster(
            profile_dir=tmp_path / "p",
            controller=controller,
            controller_launcher_options=options,
        )
    assert not (tmp_path / "p").exists()
