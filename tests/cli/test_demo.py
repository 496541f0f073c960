from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from parallelz.cli import common, demo

COMMAND = (
    sys.executable,
    "-m",
    "parallelz.cli.ipclusterz",
    "demo",
    "-n",
    "2",
    "--files",
    "300",
)
TIMEOUT_S = 120.0


@pytest.mark.slow
@pytest.mark.process
def test_the_demo_reports_and_leaves_a_picture_and_a_database(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("   check  ") == 3
    assert len(done.stdout.splitlines()) <= 45
    assert {path.name for path in tmp_path.iterdir()} == {"imports.png", "history.sqlite"}
    assert (tmp_path / "imports.png").read_bytes().startswith(b"\x89PNG")
    with closing(sqlite3.connect(tmp_path / "history.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM tasks").fetchone()
    assert count > 100


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    "after", ["parallelz", "   engines", "1. Map", "   serial", "3. Graph"]
)
def test_an_interrupt_ends_it_with_one_line(tmp_path: Path, after: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--output", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith(after):
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == common.INTERRUPTED
    assert said.strip().splitlines() == [
        "ipclusterz demo: interrupted; all it started has ended"
    ]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("numpy", "no_such_package"))
    with pytest.raises(demo.DemoError, match=r"needs no_such_package: pip install"):
        demo.check_needed()


@pytest.mark.parametrize("shell", [None, "/usr/bin/sqlite3"])
def test_the_command_to_look_at_the_database_says_what_it_does(
    monkeypatch: pytest.MonkeyPatch, shell: str | None
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: shell)
    command = demo.sql_command(Path("a/b.sqlite"), "SELECT 1")
    assert "a/b.sqlite" in command
    assert "SELECT 1" in command
    assert command.startswith("sqlite3" if shell else "python")
