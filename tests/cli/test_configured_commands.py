"""Configuration, as it reaches the processes of a cluster."""

from __future__ import annotations

import pytest
from helpers_processes import words_of
from helpers_shell import TIMEOUT_S, Shell, read_until

from parallelz.client.client import Client
from parallelz.protocol.connection import Heartbeat
from parallelz.settings import connection_file
from parallelz.transport.security import read_connection_file

pytestmark = pytest.mark.process


def processes(shell: Shell, words: str) -> list[str]:
    lines = [" ".join(words_of(process)) for process in shell.processes()]
    return [line for line in lines if words in line]


def controller_of(shell: Shell) -> str:
    (line,) = processes(shell, "ipcontrollerz --launched")
    return line


def write(shell: Shell, name: str, text: str) -> None:
    shell.profile_dir.mkdir(exist_ok=True)
    (shell.profile_dir / name).write_text(text)


def test_a_cluster_is_as_the_files_of_its_profile_say(shell: Shell) -> None:
    write(shell, "ipclusterz_config.py", "c.Cluster.n = 2\nc.History.store = 'none'\n")
    write(shell, "ipenginez_config.py", "c.Engine.labels = ['blue']\n")
    started = shell.run("ipclusterz start --daemonize --Scheduler.scheme=lru")
    assert (started.returncode, started.stderr) == (0, "")
    assert "with 2 engines" in started.stdout
    assert "--store none --scheme lru" in controller_of(shell)
    with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
        view = rc.load_balanced_view()
        with view.temp_flags(labels=["blue"]):
            assert view.apply_sync(lambda: 1) == 1


def test_short_options_count_more_than_files(shell: Shell) -> None:
    write(shell, "ipclusterz_config.py", "c.Cluster.n = 2\nc.Scheduler.scheme = 'lru'\n")
    started = shell.run("ipclusterz start --daemonize -n 1 --scheme=weighted")
    assert "with 1 engines" in started.stdout
    assert "--scheme weighted" in controller_of(shell)


def test_engines_that_are_added_are_as_configured(shell: Shell) -> None:
    shell.run("ipclusterz start --daemonize -n 1")
    added = shell.run("ipclusterz engines --daemonize -n 1 --Engine.labels=red")
    assert added.returncode == 0, added.stderr
    assert processes(shell, "--labels=red") != []


def test_a_broken_file_starts_nothing_and_does_not_keep_a_cluster_from_being_stopped(
    shell: Shell,
) -> None:
    assert shell.run("ipclusterz start --daemonize -n 1").returncode == 0
    write(shell, "ipclusterz_config.py", "\n1/0\n")
    assert shell.run("ipclusterz stop").returncode == 0
    started = shell.run("ipclusterz start -n 1")
    assert started.returncode == 1
    path = shell.profile_dir / "ipclusterz_config.py"
    assert started.stderr == f"ipclusterz: {path}:2: ZeroDivisionError: division by zero\n"
    assert shell.processes() == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ipclusterz start --Cluster.m=2", "section Cluster has no option 'm'"),
        ("ipcontrollerz --Slurm.queue=x", "ipcontrollerz does not know it, but ipclusterz"),
        ("ipenginez --Engine.n=0", "must be a whole number, 1 or more"),
        ("ipclusterz stop --Cluster.n=2", "has no meaning here"),
    ],
)
def test_misused_options_are_status_2(command: str, said: str, shell: Shell) -> None:
    ran = shell.run(command)
    assert ran.returncode == 2
    assert said in ran.stderr.splitlines()[-1]


def test_a_controller_and_engines_alone_are_as_configured(shell: Shell) -> None:
    write(shell, "ipcontrollerz_config.py", "c.History.store = 'none'\n")
    write(shell, "ipenginez_config.py", "c.Engine.n = 2\n")
    with shell.popen("ipcontrollerz") as controller:
        read_until(controller, "Engines join with")
        with shell.popen("ipenginez") as engines:
            file = str(connection_file(shell.profile_dir, "", "client"))
            with Client(file) as rc:
                rc.wait_for_engines(2, timeout=TIMEOUT_S)
            assert not (shell.profile_dir / "parallelz.sqlite").exists()
            engines.terminate()
        controller.terminate()


def test_create_writes_commented_files_and_keeps_those_there(shell: Shell) -> None:
    write(shell, "ipenginez_config.py", "c.Engine.n = 2\n")
    created = shell.run("ipclusterz create")
    assert created.returncode == 0, created.stderr
    names = sorted(path.name for path in shell.profile_dir.glob("*_config.py"))
    assert names == ["ipclusterz_config.py", "ipcontrollerz_config.py", "ipenginez_config.py"]
    assert (shell.profile_dir / "ipenginez_config.py").read_text() == "c.Engine.n = 2\n"
    assert f"Kept {shell.profile_dir / 'ipenginez_config.py'}" in created.stdout


def test_a_file_is_generated_and_kept_unless_told_otherwise(shell: Shell) -> None:
    assert shell.run("ipenginez --generate-config").returncode == 0
    path = shell.profile_dir / "ipenginez_config.py"
    assert "# c.Engine.labels = []" in path.read_text()
    path.write_text("c.Engine.n = 2\n")
    again = shell.run("ipenginez --generate-config")
    assert again.returncode == 1
    assert "--overwrite" in again.stdout
    assert path.read_text() == "c.Engine.n = 2\n"
    assert shell.run("ipenginez --generate-config --overwrite").returncode == 0
    assert "# c.Engine.labels = []" in path.read_text()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("ipclusterz start", "--Slurm.queue=<Unicode>"),
        ("ipcontrollerz", "--Controller.port=<Int>"),
        ("ipenginez", "--Engine.restart=<Bool>"),
    ],
)
def test_help_all_shows_all_that_can_be_set(command: str, option: str, shell: Shell) -> None:
    shown = shell.run(f"{command} --help-all")
    assert shown.returncode == 0
    assert option in shown.stdout


@pytest.mark.parametrize("command", ["ipclusterz start -n 1", "ipcontrollerz"])
def test_limits_and_heartbeats_arrive(command: str, shell: Shell) -> None:
    text = "c.Heartbeat.period_s = 3\nc.Heartbeat.timeout_s = 9\nc.Limits.away_grace_s = 77\n"
    write(shell, "ipcontrollerz_config.py", text)
    with shell.popen(command) as process:
        read_until(process, "ipenginez" if command == "ipcontrollerz" else "Stop it with")
        info = read_connection_file(connection_file(shell.profile_dir, "", "engine"), "engine")
        assert info.heartbeat == Heartbeat(3.0, 9.0)
        if command != "ipcontrollerz":
            assert '"away_grace_s":77.0' in controller_of(shell)
        process.terminate()
