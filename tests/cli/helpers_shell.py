"""Commands, run as a user runs them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers_processes import processes_of

TIMEOUT_S = 30


class Shell:
    """Runs commands for one profile."""

    def __init__(self, profile_dir: Path) -> None:
        self.profile_dir = profile_dir

    def argv(self, command: str) -> list[str]:
        program, *args = command.split()
        return [
            *(sys.executable, "-m", f"parallelz.cli.{program}"),
            *(*args, "--profile-dir", str(self.profile_dir)),
        ]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(command), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def popen(self, command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.argv(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        """All that were started for this profile."""
        return processes_of(self.profile_dir)


def read_until(process: subprocess.Popen[bytes], words: str) -> None:
    """Wait until a process has said these words; it is killed if it does not."""
    assert process.stdout is not None
    said = b""
    while words.encode() not in said:
        ready, _, _ = select.select([process.stdout], [], [], TIMEOUT_S)
        more = os.read(process.stdout.fileno(), 10_000) if ready else b""
        if not more:
            process.kill()
            pytest.fail(f"waited for {words!r}, got {said.decode()!r}")
        said += more
