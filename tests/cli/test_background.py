"""What ipclusterz does when a controller dies, in the foreground and in the background."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from helpers_shell import TIMEOUT_S, Shell, read_until

from parallelz import Client
from parallelz.launch import clusters
from parallelz.launch.cluster_file import ClusterFacts
from parallelz.launch.local_controller import RESTARTS_MAX
from parallelz.settings import connection_file, log_file

pytestmark = pytest.mark.process

START = "ipclusterz start -n 1 --store=none"


def facts_of(shell: Shell) -> ClusterFacts:
    (facts,) = clusters.find(shell.profile_dir).clusters
    return facts


def controller_pid(shell: Shell) -> int:
    controller = facts_of(shell).controller
    assert controller is not None
    return controller.pid


def watcher_pid(shell: Shell) -> int:
    watcher = facts_of(shell).watcher
    assert watcher is not None
    return watcher.pid


def kill_controller(shell: Shell) -> None:
    os.kill(controller_pid(shell), signal.SIGKILL)


def wait_until_back(shell: Shell) -> None:
    """Wait until the engine has come back to a controller that was started again."""
    with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
        rc.wait_for_engines(1, timeout=TIMEOUT_S)


def files(shell: Shell) -> list[Path]:
    return list((shell.profile_dir / "security").iterdir())


def watcher_log(shell: Shell) -> str:
    return log_file(shell.profile_dir, "", "watcher").read_text()


def test_the_foreground_starts_a_killed_controller_again_and_says_so(shell: Shell) -> None:
    with shell.popen(START) as process:
        read_until(process, "Stop it with: Ctrl-C")
        kill_controller(shell)
        read_until(
            process,
            "ipclusterz: the controller was killed by signal 9 (SIGKILL); started again (pid ",
        )
        wait_until_back(shell)
        shown = shell.run("ipclusterz status")
        assert shown.returncode == 0, shown.stdout
        assert f"controller   running  pid {controller_pid(shell)} " in shown.stdout
        assert "1 engines answer: [0]" in shown.stdout
        assert shell.run("ipclusterz stop").returncode == 0
        assert process.wait(TIMEOUT_S) == 0
    assert shell.processes() == []
    assert files(shell) == []


def test_the_background_starts_a_killed_controller_again(shell: Shell) -> None:
    assert shell.run(f"{START} --daemonize").returncode == 0
    before = controller_pid(shell)
    kill_controller(shell)
    wait_until_back(shell)
    assert controller_pid(shell) != before
    shown = shell.run("ipclusterz status")
    assert shown.returncode == 0, shown.stdout
    assert f"controller   running  pid {controller_pid(shell)} " in shown.stdout
    assert f"watcher      running  pid {watcher_pid(shell)} " in shown.stdout
    assert f"started again (pid {controller_pid(shell)})" in watcher_log(shell)
    assert "started again" in shell.run("ipclusterz logs").stdout
    assert shell.run("ipclusterz stop").returncode == 0
    assert shell.processes() == []
    assert files(shell) == []


def test_a_controller_that_dies_too_often_takes_its_cluster_with_it_and_says_why(
    shell: Shell,
) -> None:
    with shell.popen(START) as process:
        read_until(process, "Stop it with: Ctrl-C")
        for _ in range(RESTARTS_MAX):
            kill_controller(shell)
            read_until(process, "started again")
        kill_controller(shell)
        read_until(
            process,
            "ipclusterz: the controller was killed by signal 9 (SIGKILL). It died 6 times"
            " within 60 s and is not started again. Its last words:",
        )
        assert process.wait(TIMEOUT_S) == 1
    assert shell.processes() == []
    assert files(shell) == []


def test_a_stop_before_the_watcher_has_seen_the_death_waits_for_its_end(shell: Shell) -> None:
    shell.run(f"{START} --daemonize")
    watcher = psutil.Process(watcher_pid(shell))
    watcher.suspend()
    kill_controller(shell)
    with shell.popen("ipclusterz stop") as stopping:
        while files(shell):
            with pytest.raises(subprocess.TimeoutExpired):
                stopping.wait(0.01)
        watcher.resume()
        assert stopping.wait(TIMEOUT_S) == 0
    assert shell.processes() == []
    assert files(shell) == []


def test_a_cluster_outlives_its_watcher_and_says_that_it_has_none(shell: Shell) -> None:
    shell.run(f"{START} --daemonize")
    os.kill(watcher_pid(shell), signal.SIGKILL)
    shown = shell.run("ipclusterz status")
    assert shown.returncode == 1
    assert "watcher      ended " in shown.stdout
    assert "1 engines answer" in shown.stdout
    assert shell.run("ipclusterz stop").returncode == 0
    assert shell.processes() == []
    assert files(shell) == []


def test_a_watcher_that_is_told_to_end_stops_its_cluster(shell: Shell) -> None:
    shell.run(f"{START} --daemonize")
    watcher = psutil.Process(watcher_pid(shell))
    watcher.terminate()
    psutil.wait_procs([watcher], timeout=TIMEOUT_S)
    assert shell.processes() == []
    assert files(shell) == []


def test_a_client_that_shuts_everything_down_leaves_no_watcher(shell: Shell) -> None:
    shell.run(f"{START} --daemonize")
    watcher = psutil.Process(watcher_pid(shell))
    with Client(str(connection_file(shell.profile_dir, "", "client"))) as rc:
        rc.shutdown(hub=True)
    psutil.wait_procs([watcher], timeout=TIMEOUT_S)
    assert shell.processes() == []
    assert files(shell) == []


def test_ctrl_c_while_the_background_is_being_started_leaves_nothing(shell: Shell) -> None:
    with shell.popen(f"{START} --daemonize") as process:
        controller = log_file(shell.profile_dir, "", "controller")
        while not controller.exists():
            with pytest.raises(subprocess.TimeoutExpired):  # else it is too late
                process.wait(0.001)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
    assert shell.processes() == []
    assert files(shell) == []


def test_the_background_keeps_no_terminal(shell: Shell) -> None:
    shell.run(f"{START} --daemonize")
    pid = watcher_pid(shell)
    assert os.getsid(pid) == pid
    log = str(log_file(shell.profile_dir, "", "watcher"))
    descriptors = Path(f"/proc/{pid}/fd")
    if descriptors.exists():
        assert [os.readlink(descriptors / str(n)) for n in range(3)] == ["/dev/null", log, log]
