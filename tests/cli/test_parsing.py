"""Command lines: what is understood, what is refused, and what help shows."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from parallelz.cli import common, ipclusterz, ipcontrollerz, ipenginez
from parallelz.errors import ClusterError

PARSERS = {
    "ipclusterz": ipclusterz.build_parser,
    "ipcontrollerz": ipcontrollerz.build_parser,
    "ipenginez": ipenginez.build_parser,
}
COMMANDS = (
    "start",
    "stop",
    "status",
    "list",
    "engines",
    "clean",
    "logs",
    "top",
    "create",
    "demo",
)


@pytest.mark.parametrize("name", PARSERS)
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        PARSERS[name]().parse_args(["--help"])
    assert exit_.value.code == 0
    assert "example:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ipclusterz.build_parser().parse_args([command, "--help"])
    assert "example:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_tells_its_exit_status(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ipclusterz.build_parser().parse_args([command, "--help"])
    assert "exit status: 0 " in capsys.readouterr().out


@pytest.mark.parametrize("name", PARSERS)
def test_each_command_knows_its_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        PARSERS[name]().parse_args(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("parallelz ")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["begin"],
        ["start", "-n", "0"],
        ["start", "-n", "many"],
        ["start", "--store", "mongodb"],
        ["start", "--store", "postgresql://scott:tiger@host/db"],
        ["start", "--store", "postgresql", "--database", "postgresql://scott:tiger@host/db"],
        ["stop", "everything"],
        ["start", "--labels", "two words"],
        ["engines", "--memory-limit", "much"],
        ["start", "--history-max-age-s", "0"],
        ["start", "--history-max-age-s", "nan"],
        ["start", "--history-max-count", "0"],
        ["start", "--history-max-bytes", "little"],
    ],
)
def test_misuse_is_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        ipclusterz.main(argv)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["strat"], "there is no 'strat'; did you mean start?"),
        (["start", "--daemonise"], "does not know --daemonise; did you mean --daemonize?"),
        (["start", "--resources=gpu"], "gpu= is not a resource: give a name and a number"),
        (["start", "-n", "x"], "argument -n: must be a whole number, 1 or more, not 'x'"),
        (["start", "--port=99999"], "argument --port: must be a port: 1 to 65535"),
        (["start", "--engines=slrum"], "argument --engines: there is no launcher called"),
        (["start", "--scheme=lastload"], "argument --scheme: there is no scheme 'lastload'"),
        (["start", "--profile=a/b"], "'a/b' is not a profile's name"),
        (["start", "--cluster-id=a/b"], "'a/b' is not a cluster id"),
        (["start", "-p", "a", "--profile-dir=b"], "not allowed with argument"),
        (["status", "-o", "yaml"], "there is no 'yaml'; there are text, json"),
        (["stop", "--Cluster.n=2"], "--Cluster.n has no meaning here"),
        (["start", "--Cluster.n"], "--Cluster.n needs a value"),
    ],
)
def test_misuse_is_explained_in_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ipclusterz.main(argv)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ipclusterz")
    assert said in line
    assert "--help)" in line


def test_help_does_not_wait_for_what_only_work_needs() -> None:
    code = (
        "import sys; from parallelz.cli import ipclusterz; ipclusterz.build_parser();"
        "print({'zmq', 'msgspec', 'psutil', 'asyncio', 'traitlets'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize("store", [None, "postgresql"])
def test_an_address_of_a_database_is_one_of_postgresql(store: str | None) -> None:
    args = argparse.Namespace(store=store, database="postgresql:///history")
    assert common.chosen_store(args) == "postgresql:///history"


def test_an_address_of_a_database_is_refused_with_another_store() -> None:
    args = argparse.Namespace(store="sqlite", database="postgresql:///history")
    with pytest.raises(ClusterError, match="--store postgresql"):
        common.chosen_store(args)


def test_without_options_no_store_is_chosen() -> None:
    args = ipclusterz.build_parser().parse_args(["start"])
    assert common.chosen_store(args) is None


def test_a_command_to_copy_names_the_same_cluster() -> None:
    parser = ipclusterz.build_parser()
    args = parser.parse_args(["status", "--profile-dir=/home/my lab", "--cluster-id=b"])
    assert common.same_cluster(args) == " '--profile-dir=/home/my lab' --cluster-id=b"
    assert common.same_cluster(parser.parse_args(["status"])) == ""
