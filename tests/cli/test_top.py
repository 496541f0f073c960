"""`ipclusterz top`, as a user watches a cluster by it."""

from __future__ import annotations

import json
import os
import signal

import pytest
from helpers_shell import Shell
from helpers_terminal import Terminal

from parallelz.client.client import Client
from parallelz.launch import cluster_file
from parallelz.settings import cluster_file as cluster_file_path
from parallelz.settings import connection_file

pytestmark = pytest.mark.process
TOP = "ipclusterz top --refresh=0.2"


@pytest.fixture
def cluster(shell: Shell) -> Shell:
    started = shell.run("ipclusterz start -n 2 --daemonize --store=none")
    assert started.returncode == 0, started.stderr
    return shell


def test_one_look_is_a_text_or_json(cluster: Shell) -> None:
    def wait_for(path: str) -> None:
        with open(path) as fifo:
            fifo.read()

    fifo = cluster.profile_dir / "fifo"
    os.mkfifo(fifo)
    with Client(str(connection_file(cluster.profile_dir, "", "client"))) as rc:
        lv = rc.load_balanced_view()
        with pytest.raises(ZeroDivisionError):
            lv.apply_sync(lambda: 1 / 0)
        result = lv.apply_async(wait_for, str(fifo))
        text = cluster.run("ipclusterz top --once")
        shown = json.loads(cluster.run("ipclusterz top --once -o json").stdout)
        fifo.write_text("")
        result.get(30)
    assert (text.returncode, text.stderr) == (0, "")
    assert "2 engines: 1 busy, 1 idle\n" in text.stdout
    assert f"wait_for {result.msg_ids[0]}\n" in text.stdout
    assert "ZeroDivisionError: division by zero\n" in text.stdout
    (busy,) = (each for each in shown["engines"] if each["state"] == "busy")
    assert (busy["function"], busy["task"]) == ("wait_for", result.msg_ids[0])
    assert busy["memory_bytes"] > 1_000_000
    assert busy["cpu_percent"] < 50
    assert (shown["tasks_per_s"], shown["ended_counts"]) == (0, {"error": 1})


def test_without_a_cluster_it_says_so(shell: Shell) -> None:
    shown = shell.run("ipclusterz top")
    assert shown.returncode == 11
    assert "start one with: ipclusterz start" in shown.stderr


@pytest.mark.parametrize("keys", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_a_terminal_is_left_as_it_was(cluster: Shell, keys: bytes) -> None:
    with Terminal(cluster.argv(TOP)) as terminal:
        terminal.wait_until(lambda text: "2 engines: 2 idle" in text)
        assert not terminal.is_as_before
        if keys == b"q":
            terminal.press(keys)
        else:  # what the terminal does by this key if it controls the session
            terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_end() == 0
        assert terminal.is_as_before
        assert "Traceback" not in terminal.text


def test_it_follows_the_size_of_its_terminal(cluster: Shell) -> None:
    with Terminal(cluster.argv(TOP), rows=3) as terminal:
        terminal.wait_until(lambda text: "2 engines: 2 idle" in text)
        assert "ENGINE" not in terminal.text
        terminal.resize(24)
        terminal.wait_until(lambda text: "ENGINE" in text)
        terminal.resize(1)
        terminal.wait_until(lambda text: text == "2 engines: 2 idle")


def test_a_cluster_that_is_stopped_ends_it(cluster: Shell) -> None:
    with Terminal(cluster.argv(TOP)) as terminal:
        terminal.wait_until(lambda text: "2 engines: 2 idle" in text)
        cluster.run("ipclusterz stop")
        assert terminal.wait_end() == 0
        assert "the cluster has ended: " in terminal.text
        assert terminal.is_as_before


def test_a_controller_that_is_started_again_is_waited_for(cluster: Shell) -> None:
    facts = cluster_file.read(cluster_file_path(cluster.profile_dir, ""))
    assert facts is not None
    assert facts.controller is not None
    pid = facts.controller.pid
    with Terminal(cluster.argv(TOP)) as terminal:
        terminal.wait_until(lambda text: f"the controller {pid} was started" in text)
        os.kill(pid, signal.SIGSTOP)
        terminal.wait_until(lambda text: "waiting for the controller" in text)
        os.kill(pid, signal.SIGKILL)
        terminal.wait_until(
            lambda text: (
                "2 engines: 2 idle" in text
                and f"the controller {pid} " not in text
                and "waiting" not in text
            )
        )


def test_a_cluster_that_is_killed_ends_it(cluster: Shell) -> None:
    with Terminal(cluster.argv(TOP)) as terminal:
        terminal.wait_until(lambda text: "2 engines: 2 idle" in text)
        others = [p for p in cluster.processes() if p.pid != terminal.process.pid]
        for process in others:
            process.suspend()  # so that nobody starts what another has lost
        for process in others:
            process.kill()
        assert terminal.wait_end() == 0
        assert "the cluster has ended: its processes are gone" in terminal.text
    assert cluster.run("ipclusterz clean").returncode == 0


def test_a_terminal_that_cannot_move_its_cursor_gets_one_text_after_the_other(
    cluster: Shell,
) -> None:
    with Terminal(cluster.argv(TOP), kind="dumb") as terminal:
        terminal.wait_until(lambda text: text.count("2 engines: 2 idle") > 1)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait_end() == 0
