"""Processes of this host: command lines, and the life of a process and its group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import ControllerOptions, HistoryLimits, Launcher, Place
from parallelz.launch.local import (
    LocalEngines,
    LocalProcess,
    engines_command,
    is_alive,
    process_started,
)
from parallelz.launch.local_controller import LocalController, controller_command

PLACE = Place(Path("/p"), "big", 17, "/tmp/parallelz-x")


class Script(LocalProcess):
    """A process that runs a few lines of Python."""

    def __init__(self, tmp_path: Path, code: str) -> None:
        super().__init__("the script", tmp_path / "script.log")
        self.code = code

    def start(self) -> None:
        self._spawn([sys.executable, "-c", self.code])

    def first_line(self) -> str:
        """Wait until it has said something."""
        while "\n" not in (text := self.log.read_text()):
            assert not self.wait(0.01), self.explain_end()
        return text.partition("\n")[0]


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[list[Script]]:
    started: list[Script] = []
    yield started
    for script in started:
        script.stop(grace_s=0)


def start(scripts: list[Script], tmp_path: Path, code: str) -> Script:
    script = Script(tmp_path, code)
    script.start()
    scripts.append(script)
    return script


SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def test_a_controller_is_told_who_it_is_and_whose() -> None:
    command = controller_command(
        PLACE,
        ControllerOptions("*", 7, "none", hwm=3, history=HistoryLimits(9)),
        ready_fd=5,
        resume=True,
        python="py",
    )
    assert command == [
        *("py", "-P", "-m", "parallelz.cli.ipcontrollerz"),
        *("--launched", "/tmp/parallelz-x"),
        *("--profile-dir", "/p", "--cluster-id", "big", "--store", "none"),
        *("--scheme", "leastload", "--history-max-age-s=9", "--hwm", "3"),
        *("--ip", "*", "--port", "7", "--ready-fd", "5", "--parent-pid", "17", "--resume"),
    ]


def test_engines_are_told_where_their_controller_is() -> None:
    assert engines_command(PLACE, 3, log_dir=Path("/p/log/x"), python="py") == [
        *("py", "-m", "parallelz.engine.process"),
        *("--file", "/p/security/ipcontrollerz-big-engine.json", "-n", "3"),
        *("--wait-s", "0", "--log-dir", "/p/log/x", "--parent-pid", "17"),
    ]


def test_engines_are_told_their_options() -> None:
    options = EngineOptions(labels=("gpu",), memory_limit=5)
    command = engines_command(PLACE, 1, log_dir=Path("x"), options=options)
    assert {"--labels=gpu", "--memory-limit=5"} < set(command)


def test_what_is_to_outlive_us_knows_no_parent() -> None:
    place = PLACE._replace(parent_pid=None)
    assert "--parent-pid" not in controller_command(place)
    assert "--parent-pid" not in engines_command(place, 1, log_dir=Path("x"))


def test_local_launchers_are_launchers() -> None:
    launchers: list[Launcher] = [LocalController(PLACE), LocalEngines(PLACE, 2)]
    assert [each.state for each in launchers] == ["before", "before"]


def test_a_process_is_told_from_a_later_one_with_its_pid() -> None:
    started = process_started(os.getpid())
    assert is_alive(os.getpid(), started)
    assert not is_alive(os.getpid(), f"{started}0")
    assert not is_alive(2**22 + 1, "")


@pytest.mark.process
def test_a_zombie_is_not_alive(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        started = process_started(process.pid)
        assert process.stdout is not None
        process.stdout.read()  # until its end
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process.pid, started)


@pytest.mark.process
def test_the_states_of_a_process(scripts: list[Script], tmp_path: Path) -> None:
    script = Script(tmp_path, SLEEP)
    assert script.state == "before"
    script = start(scripts, tmp_path, SLEEP)
    assert (script.state, script.poll()) == ("running", None)
    script.stop()
    assert (script.state, script.poll()) == ("after", -signal.SIGTERM)


@pytest.mark.process
def test_its_end_is_told_to_whoever_asked(scripts: list[Script], tmp_path: Path) -> None:
    told = threading.Event()
    script = start(scripts, tmp_path, "input()")
    script.on_stop(told.set)
    assert told.wait(10)
    told.clear()
    script.on_stop(told.set)
    assert told.is_set()


@pytest.mark.process
def test_what_does_not_end_when_asked_is_killed(scripts: list[Script], tmp_path: Path) -> None:
    script = start(scripts, tmp_path, STUBBORN)
    script.first_line()
    script.stop(grace_s=0.05)
    assert script.poll() == -signal.SIGKILL


@pytest.mark.process
def test_an_early_end_is_explained_by_its_last_words(
    scripts: list[Script], tmp_path: Path
) -> None:
    script = start(scripts, tmp_path, "raise SystemExit('no such luck')")
    script.wait()
    assert "the script ended with exit code 1" in script.explain_end()
    assert "no such luck" in script.explain_end()
    assert str(script.log) in script.explain_end()


@pytest.mark.process
def test_a_process_is_taken_up_by_another_launcher(
    scripts: list[Script], tmp_path: Path
) -> None:
    script = start(scripts, tmp_path, SLEEP)
    other = LocalEngines.from_facts(script.to_facts(), PLACE, set_id="1")
    assert (other.state, other.pid, other.log) == ("running", script.pid, script.log)
    other.stop()
    assert script.wait(10)
    late = LocalEngines.from_facts(script.to_facts(), PLACE, set_id="1")
    assert (late.state, late.poll()) == ("after", 0)


@pytest.mark.process
def test_a_terminal_s_ctrl_c_does_not_reach_it(scripts: list[Script], tmp_path: Path) -> None:
    script = start(scripts, tmp_path, SLEEP)
    assert os.getsid(script.pid) == script.pid != os.getsid(0)


@pytest.mark.process
def test_the_log_before_this_one_is_kept(scripts: list[Script], tmp_path: Path) -> None:
    for word in ("first", "second", "third"):
        start(scripts, tmp_path, f"print('{word}')").wait()
    assert (tmp_path / "script.log").read_text() == "third\n"
    assert (tmp_path / "script.log.previous").read_text() == "second\n"


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    script = Script(tmp_path, "")
    with pytest.raises(ClusterError, match=r"cannot start the script: .*No such file"):
        script._spawn(["/no/such/program"])
    assert script.state == "before"


@pytest.mark.process
def test_an_interrupt_while_it_is_started_comes_when_it_is_known(
    scripts: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen

    def interrupted(*args: object, **kwargs: object) -> object:
        process = popen(*args, **kwargs)  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    script = Script(tmp_path, SLEEP)
    scripts.append(script)
    with pytest.raises(KeyboardInterrupt):
        script.start()
    assert script.state == "running"
