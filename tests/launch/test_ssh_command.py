"""What is run where, by the launcher ssh."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import Place
from parallelz.launch.ssh import (
    HostEngines,
    SSHEngines,
    chosen_hosts,
    remote_command,
    server_of,
    to_ssh_options,
)

HOSTS = {"a": 2, "me@b:2222": [3, ["--labels=gpu"]]}


def script(socket_path: str = "", **options: Any) -> str:
    """Return what `sh -c` gets on a host."""
    made = to_ssh_options({"hosts": HOSTS, "python": "python3", **options})
    command = remote_command(made, HostEngines("a", 2), EngineOptions(), socket_path)
    *before, text = shlex.split(command)
    assert before == ["exec", "sh", "-c"]
    return text


def test_hosts_are_filled_in_their_order() -> None:
    options = to_ssh_options({"hosts": HOSTS})
    assert chosen_hosts(options, 5) == [("a", 2, ()), ("me@b:2222", 3, ("--labels=gpu",))]
    assert chosen_hosts(options, 3) == [("a", 2, ()), ("me@b:2222", 1, ("--labels=gpu",))]
    assert chosen_hosts(options, 1) == [("a", 1, ())]
    with pytest.raises(ClusterError, match="have room for 5 engines, not for 6"):
        chosen_hosts(options, 6)


def test_all_that_is_needed_is_in_the_command() -> None:
    assert script() == "python3 -m parallelz.engine.process --orders -n 2"
    assert script(environment={"A": "b c"}, directory="/my data", setup="module load x") == (
        "module load x && cd '/my data' &&"
        " env 'A=b c' python3 -m parallelz.engine.process --orders -n 2"
    )
    assert script("/tmp/x.sock").endswith("-n 2; code=$?; rm -f /tmp/x.sock; exit $code")


def test_options_of_engines_and_of_the_host_are_told() -> None:
    options = to_ssh_options({"hosts": HOSTS, "python": "python3"})
    host = chosen_hosts(options, 5)[1]
    command = remote_command(options, host, EngineOptions(restart=True))
    assert command.endswith("--orders -n 3 --restart --labels=gpu'")


def test_a_host_may_name_user_and_port() -> None:
    options = to_ssh_options({"hosts": HOSTS, "user": "you", "port": 22, "args": ["-J", "x"]})
    assert server_of(options, "a")[:2] == ("you@a", 22)
    assert server_of(options, "me@b:2222")[:2] == ("me@b", 2222)
    command = server_of(options, "a").command("-N")
    assert command[:3] == ["ssh", "-J", "x"]
    assert command[-4:] == ["-p", "22", "-N", "you@a"]


def test_as_many_as_there_is_room_for_are_the_default() -> None:
    assert SSHEngines.default_count({"hosts": HOSTS}) == 5


def test_the_controller_need_not_listen_if_there_are_tunnels() -> None:
    assert not SSHEngines.needs_network({"hosts": HOSTS})
    assert SSHEngines.needs_network({"hosts": HOSTS, "tunnel": False})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs hosts"),
        ({"hosts": {"a": 0}}, "cannot start 0 engines on 'a'"),
        ({"hosts": {"a": "many"}}, "cannot use its option hosts"),
        ({"hosts": {"-oProxyCommand=rm": 1}}, "is not a server to log in to"),
        ({"hosts": HOSTS, "key": "/no/such/key"}, "there is no private key /no/such/key"),
        ({"host": {"a": 1}}, "did you mean hosts"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_starts(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        SSHEngines(Place(tmp_path, "", None), 1, launcher_options=options)
