"""How engines come to a controller, or do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_engine import TIMEOUT_S, FakeController, start_engines

from parallelz.engine import process
from parallelz.engine.engine import EXIT_REFUSED

pytestmark = pytest.mark.process


def end_of(supervisor: subprocess.Popen[bytes], controller: FakeController) -> int:
    """Let both talk until the supervisor has ended; return its exit status."""
    code = controller.pump(supervisor.poll)
    supervisor.communicate(timeout=TIMEOUT_S)
    return code


def test_engines_wait_for_the_connection_file(tmp_path: Path) -> None:
    controller = FakeController(tmp_path)
    file = tmp_path / "engine.json"
    with start_engines(file, "-n", "2") as supervisor:
        half = tmp_path / "half.json"
        controller.write_file(half)
        half.rename(file)
        controller.pump(lambda: len(controller.lines) == 5 or None)
        supervisor.terminate()
        assert end_of(supervisor, controller) == 0
    controller.close()


def test_no_connection_file_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = process.main(["--file", str(tmp_path / "none.json"), "--wait-s", "0"])
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.json" in line
    assert "is the controller running?" in line


@pytest.mark.parametrize(
    "option", ["--labels=two words", "--resources=gpu", "--memory-limit=much"]
)
def test_option_that_makes_no_sense_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert process.main(["--file", str(tmp_path / "none.json"), option]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ipenginez: ")


def test_refused_engines_end_with_a_status_of_their_own(tmp_path: Path) -> None:
    controller = FakeController(tmp_path, refusal="another version")
    file = tmp_path / "engine.json"
    controller.write_file(file)
    with start_engines(file, "--log-dir", str(tmp_path)) as supervisor:
        assert end_of(supervisor, controller) == EXIT_REFUSED
    controller.close()


def test_engines_end_when_their_starter_is_gone(tmp_path: Path) -> None:
    controller = FakeController(tmp_path)
    file = tmp_path / "engine.json"
    controller.write_file(file)
    with start_engines(file, "--parent-pid", str(os.getppid())) as supervisor:
        end_of(supervisor, controller)
    controller.close()


def test_start_does_not_import_what_only_some_tasks_need() -> None:
    code = "import sys, parallelz.engine.process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"IPython", "traitlets", "numpy"} & set(loaded)
