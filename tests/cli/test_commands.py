"""The commands, run as a user runs them."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import psutil
import pytest
from helpers_shell import TIMEOUT_S, Shell, read_until

from parallelz import settings
from parallelz.client.client import Client
from parallelz.launch import cluster_file
from parallelz.launch.cluster_file import ProcessId
from parallelz.launch.launcher import LaunchedFacts
from parallelz.settings import connection_file

pytestmark = pytest.mark.process


def test_a_cluster_in_the_background_is_ready_and_can_be_stopped(shell: Shell) -> None:
    started = shell.run("ipclusterz start -n 2 --daemonize")
    assert started.returncode == 0, started.stderr
    assert "Started the cluster with 2 engines" in started.stdout
    with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
        assert len(rc) == 2
    shown = shell.run("ipclusterz status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "2 engines answer" in shown.stdout
    database = shell.profile_dir / "parallelz.sqlite"
    assert f"  history      written  sqlite  {database}\n" in shown.stdout
    again = shell.run("ipclusterz start -n 1")
    assert again.returncode == 10
    assert "runs already" in again.stderr
    assert shell.run("ipclusterz stop").returncode == 0
    assert shell.processes() == []
    assert list((shell.profile_dir / "security").iterdir()) == []
    stopped = shell.run("ipclusterz stop")
    assert stopped.returncode == 11
    assert "ipclusterz start" in stopped.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_stops_a_cluster_in_the_foreground(shell: Shell, signum: signal.Signals) -> None:
    with shell.popen("ipclusterz start -n 1") as process:
        read_until(process, "Stop it with: Ctrl-C")
        process.send_signal(signum)
        assert process.wait(TIMEOUT_S) == 0
    assert shell.processes() == []
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_kill_9_of_the_foreground_leaves_nothing(shell: Shell) -> None:
    with shell.popen("ipclusterz start -n 1") as process:
        read_until(process, "Stop it with: Ctrl-C")
        left = [each for each in shell.processes() if each.pid != process.pid]
        process.kill()
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_a_controller_whose_launcher_is_gone_removes_the_files(shell: Shell) -> None:
    socket_dir = cluster_file.establish(shell.profile_dir, "")
    with cluster_file.changing(shell.profile_dir, "", socket_dir=socket_dir) as facts:
        facts.owner = ProcessId(1, "long ago")
    ran = shell.run(f"ipcontrollerz --launched={socket_dir} --store=none --parent-pid=1")
    assert ran.returncode == 0, ran.stderr
    assert list((shell.profile_dir / "security").iterdir()) == []
    assert not Path(socket_dir).exists()


@pytest.mark.parametrize(
    ("parent", "reuse"),
    [("", False), ("--parent-pid=1", False), ("--parent-pid=1", True)],
    ids=["alone", "orphan", "orphan with the same files"],
)
def test_a_controller_that_comes_too_late_leaves_the_next_cluster_alone(
    shell: Shell, parent: str, reuse: bool
) -> None:
    """It was started again just before all of its cluster was killed."""
    first = cluster_file.establish(shell.profile_dir, "", reuse=reuse)
    cluster_file.release(shell.profile_dir, "", socket_dir=first)
    second = cluster_file.establish(shell.profile_dir, "", reuse=reuse)
    assert (first == second) is reuse
    try:
        files = sorted((shell.profile_dir / "security").iterdir())
        shell.run(f"ipcontrollerz --launched={first} --store=none {parent} --resume")
        assert sorted((shell.profile_dir / "security").iterdir()) == files
        assert list(Path(second).iterdir()) == []
    finally:
        cluster_file.release(shell.profile_dir, "", socket_dir=second)


def test_a_controller_is_found_whose_launcher_was_killed_before_it_had_written_it_down(
    shell: Shell,
) -> None:
    socket_dir = cluster_file.establish(shell.profile_dir, "")
    with cluster_file.changing(shell.profile_dir, "", socket_dir=socket_dir) as facts:
        facts.owner = None
        facts.controller = LaunchedFacts("local", 1, "long ago", "/log")
    command = f"ipcontrollerz --launched={socket_dir} --store=none --resume"
    with shell.popen(command) as process:
        with Client(str(connection_file(shell.profile_dir, "", "client"))):
            pass
        status = shell.run("ipclusterz status -o json")
        assert json.loads(status.stdout)["controller"]["pid"] == process.pid
        assert shell.run("ipclusterz stop").returncode == 0
        assert process.wait(TIMEOUT_S) == 0
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_stopping_a_cluster_ends_its_foreground(shell: Shell) -> None:
    with shell.popen("ipclusterz start -n 1") as process:
        read_until(process, "Stop it with: Ctrl-C")
        assert shell.run("ipclusterz stop").returncode == 0
        assert process.wait(TIMEOUT_S) == 0


def test_two_clusters_share_a_profile(shell: Shell) -> None:
    assert shell.run("ipclusterz start -n 1 --daemonize").returncode == 0
    assert shell.run("ipclusterz start -n 1 --daemonize --cluster-id=b").returncode == 0
    listed = json.loads(shell.run("ipclusterz list -o json").stdout)
    assert [(each["cluster_id"], each["state"]) for each in listed] == [
        ("b", "running"),
        ("", "running"),
    ]
    assert shell.run("ipclusterz stop --cluster-id=b").returncode == 0
    assert shell.run("ipclusterz status").returncode == 0
    assert shell.run("ipclusterz status --cluster-id=b").returncode == 11
    assert shell.run("ipclusterz stop --all").returncode == 0
    assert shell.processes() == []


def test_engines_join_a_cluster_that_runs(shell: Shell) -> None:
    shell.run("ipclusterz start -n 1 --daemonize")
    added = shell.run("ipclusterz engines -n 2 --daemonize")
    assert added.stdout.startswith("Added 2 engines as set 2")
    with shell.popen("ipclusterz engines -n 1") as process:
        read_until(process, "Ctrl-C stops them")
        assert "4 engines answer" in shell.run("ipclusterz status").stdout
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)
    assert "3 engines answer" in shell.run("ipclusterz status").stdout


def test_a_controller_and_engines_can_be_started_by_hand(shell: Shell) -> None:
    with (
        shell.popen("ipenginez -n 2") as engines,  # waits for its controller
        shell.popen("ipcontrollerz --store=none") as controller,
    ):
        read_until(controller, "Engines join with: ipenginez --profile-dir=")
        with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
            rc.wait_for_engines(2, timeout=TIMEOUT_S)
        assert shell.run("ipcontrollerz").returncode == 10
        engines.send_signal(signal.SIGINT)
        engines.communicate(timeout=TIMEOUT_S)
        controller.send_signal(signal.SIGINT)
        controller.communicate(timeout=TIMEOUT_S)
        assert controller.returncode == 0
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_a_failed_start_is_one_error_and_leaves_nothing(shell: Shell) -> None:
    ran = shell.run("ipclusterz start -n 1 --daemonize --ip 192.0.2.1")
    assert ran.returncode == 1
    assert ran.stderr.startswith("ipclusterz: ")
    assert "Traceback" not in ran.stderr.partition("\n")[0]
    assert shell.processes() == []
    assert list((shell.profile_dir / "security").iterdir()) == []


def leave_killed_cluster(shell: Shell) -> None:
    shell.run("ipclusterz start -n 1 --daemonize")
    killed = shell.processes()
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=10)


def test_what_was_killed_is_cleaned_up(shell: Shell) -> None:
    leave_killed_cluster(shell)
    assert shell.run("ipclusterz status").returncode == 11
    assert "Removed the files of the cluster" in shell.run("ipclusterz clean").stdout
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_a_damaged_file_hides_no_other_cluster(shell: Shell) -> None:
    leave_killed_cluster(shell)
    shell.run("ipclusterz start -n 1 --daemonize --cluster-id alive")
    damaged = settings.cluster_file(shell.profile_dir, "damaged")
    damaged.write_text('{"cluster_id": ')
    complaint = f"ipclusterz: {damaged} is not a cluster file (Input data was truncated);"

    listed = shell.run("ipclusterz list -o json")
    assert [each["state"] for each in json.loads(listed.stdout)] == ["running", "ended"]
    assert (listed.returncode, listed.stderr.count(complaint)) == (1, 1)

    cleaned = shell.run("ipclusterz clean --force")
    assert "Removed the files of the cluster" in cleaned.stdout
    assert (cleaned.returncode, cleaned.stderr.count(complaint)) == (1, 1)
    assert damaged.exists()

    stopped = shell.run("ipclusterz stop --all")
    assert "Stopped cluster 'alive'" in stopped.stdout
    assert (stopped.returncode, stopped.stderr.count(complaint)) == (1, 1)
    assert shell.processes() == []


def test_a_cluster_that_cannot_be_stopped_keeps_no_other_from_being(shell: Shell) -> None:
    for cluster_id in ("a", "b"):
        shell.run(f"ipclusterz start -n 1 --daemonize --cluster-id {cluster_id}")
    file = settings.cluster_file(shell.profile_dir, "a")
    facts = json.loads(file.read_text())
    facts["engine_sets"]["1"]["launcher"] = "of a plugin"
    file.write_text(json.dumps(facts))

    stopped = shell.run("ipclusterz stop --all")
    assert stopped.stdout.splitlines() == [f"Stopped cluster 'b' in {shell.profile_dir}"]
    assert (stopped.returncode, stopped.stderr.count("'of a plugin'")) == (1, 1)

    facts["engine_sets"]["1"]["launcher"] = "local"
    file.write_text(json.dumps(facts))
    assert "Stopped cluster 'a'" in shell.run("ipclusterz stop --all").stdout
    assert shell.processes() == []


def test_logs_are_shown_by_file(shell: Shell) -> None:
    shell.run("ipclusterz start -n 1 --daemonize")
    shown = shell.run("ipclusterz logs -n 1")
    assert f"==> {shell.profile_dir / 'log' / 'controller.log'} <==" in shown.stdout


def test_a_profile_is_made_once(shell: Shell) -> None:
    assert shell.run("ipclusterz create").stdout.startswith(f"Made {shell.profile_dir}\n")
    assert shell.run("ipclusterz create").stdout.startswith("There was already")


# -- ipcontrollerz ---------------------------------------------------------------------------


def test_reused_files_are_valid_for_the_next_controller(shell: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "client.json"
    for command in ("ipcontrollerz -r --ip=127.0.0.1", "ipcontrollerz --reuse"):
        with shell.popen(command) as controller:
            read_until(controller, "Engines join with")
            if not copy.exists():
                copy.write_bytes(connection_file(shell.profile_dir, "", "client").read_bytes())
                copy.chmod(0o600)
            with Client(str(copy)) as rc:
                assert rc.ids == []
            controller.terminate()
            assert controller.wait(TIMEOUT_S) == 0
    assert shell.run("ipclusterz status").returncode == 11


def test_a_port_that_is_taken_is_told_in_one_line(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = f"--ip=127.0.0.1 --port={port}"
        for command in (f"ipcontrollerz {options}", f"ipclusterz start -n 1 {options}"):
            ran = shell.run(command)
            assert ran.returncode == 1
            said = f"cannot listen on tcp://127.0.0.1:{port}: Address already in use."
            assert said in ran.stderr
            assert "Traceback" not in ran.stderr
    assert list((shell.profile_dir / "security").iterdir()) == []


def test_engines_wait_for_a_controller_that_comes_later(shell: Shell) -> None:
    shell.profile_dir.mkdir()
    with shell.popen("ipenginez -n 1") as engines, shell.popen("ipcontrollerz") as controller:
        read_until(controller, "Engines join with")
        with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
            rc.wait_for_engines(1, timeout=TIMEOUT_S)
        controller.terminate()
        engines.terminate()


def test_a_controller_that_was_started_alone_can_be_looked_at_used_and_stopped(
    shell: Shell,
) -> None:
    with shell.popen("ipcontrollerz") as controller:
        read_until(controller, "Engines join with")
        assert shell.run("ipclusterz engines -n 1 --daemonize").returncode == 0
        shown = shell.run("ipclusterz status")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert f"controller   running  pid {controller.pid}" in shown.stdout
        assert "1 engines answer: [0]" in shown.stdout
        assert shell.run("ipclusterz stop").returncode == 0
        assert controller.wait(TIMEOUT_S) == 0
    assert shell.processes() == []
    assert list((shell.profile_dir / "security").iterdir()) == []


# -- for programs, and in detail --------------------------------------------------------------


def test_status_can_be_read_by_a_program(shell: Shell) -> None:
    shell.run("ipclusterz start -n 2 --daemonize")
    shown = shell.run("ipclusterz status -o json")
    status = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert status["engine_ids"] == [0, 1]
    states = {"controller": "running", "watcher": "running", "engines 1": "running"}
    assert status["states"] == states
    assert status["recorder"]["trouble"] == ""
    assert status["engine_sets"]["1"]["n"] == 2


def test_two_profiles_and_two_ids_at_once_do_not_meet(shell: Shell, tmp_path: Path) -> None:
    other = Shell(tmp_path / "other")
    starts = [
        (shell, "ipclusterz start -n 1 --daemonize"),
        (shell, "ipclusterz start -n 2 --daemonize --cluster-id=b"),
        (other, "ipclusterz start -n 3 --daemonize"),
    ]
    try:
        for each, command in starts:
            assert each.run(command).returncode == 0
        files = [
            connection_file(shell.profile_dir, "", "client"),
            connection_file(shell.profile_dir, "b", "client"),
            connection_file(other.profile_dir, "", "client"),
        ]
        counts = []
        for file in files:
            with Client(str(file)) as rc:
                counts.append(len(rc))
        assert counts == [1, 2, 3]
        assert shell.run("ipclusterz stop --all").returncode == 0
        assert shell.processes() == []
        assert "3 engines answer" in other.run("ipclusterz status").stdout
    finally:
        other.run("ipclusterz stop --all")


def test_logs_of_engines_that_are_dead_and_of_jobs_are_shown(shell: Shell) -> None:
    shell.run("ipclusterz start -n 1 --daemonize")
    shell.run("ipclusterz stop")
    log_dir = shell.profile_dir / "log"
    job = log_dir / "engines-2" / "job-1" / "ipenginez-5.log"
    job.parent.mkdir(parents=True)
    job.write_text("said by an engine of a job\n")
    other = log_dir / "engines-1-b.log"  # of another cluster
    other.write_text("x")
    shown = shell.run("ipclusterz logs -n 1")
    (engine_log,) = (log_dir / "engines-1").iterdir()
    assert f"==> {engine_log} <==" in shown.stdout
    assert "said by an engine of a job" in shown.stdout
    assert str(other) not in shown.stdout


def test_logs_that_come_later_are_followed(shell: Shell) -> None:
    log_dir = shell.profile_dir / "log"
    log_dir.mkdir(parents=True)
    (log_dir / "controller.log").write_text("early\n")
    with shell.popen("ipclusterz logs --follow") as process:
        read_until(process, "early")
        (log_dir / "engines-1.log").write_text("late\n")
        read_until(process, "late")
        process.send_signal(signal.SIGINT)


def test_what_an_option_of_a_launcher_says_reaches_it(shell: Shell) -> None:
    ran = shell.run("ipclusterz start -n 1 --engines=mpi --MPI.mpiexec=no-such-mpiexec")
    assert ran.returncode == 1
    assert "no-such-mpiexec" in ran.stderr


def test_engines_of_other_hosts_need_a_controller_that_listens(shell: Shell) -> None:
    assert shell.run("ipclusterz start -n 1 --daemonize").returncode == 0
    ran = shell.run("ipclusterz engines -n 1 --engines=slurm")
    assert ran.returncode == 1
    assert "start the cluster with --ip='*'" in ran.stderr


def test_the_startup_of_engines_can_be_given_to_commands(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "first.py"
    file.write_text("a = 1")
    assert shell.run(f"ipclusterz start -n 1 --daemonize --startup={file}").returncode == 0
    with (
        Client(str(connection_file(shell.profile_dir, "", "client"))) as rc,
        shell.popen("ipenginez -c b=2") as engines,
    ):
        rc.wait_for_engines(2, timeout=TIMEOUT_S)
        assert rc[0]["a"] == 1
        assert rc[1]["b"] == 2
        engines.terminate()
