"""Signals that a supervisor and its engines get together, as from some batch systems."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_launchers import TIMEOUT_S, wait_until

from parallelz import Cluster
from parallelz.settings import connection_file

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_a_signal_for_the_whole_group_reaches_each_engine_once(tmp_path: Path) -> None:
    def count_signals(directory: str) -> int:
        import select
        import signal
        from pathlib import Path

        got: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, _frame: got.append(number))
        Path(directory, "begun").touch()
        select.select([], [], [], 2.0)  # goes on after a signal
        signal.signal(signal.SIGUSR1, before)
        return len(got)

    profile_dir = tmp_path / "profile"
    with Cluster(n=1, profile_dir=profile_dir) as rc:
        file = connection_file(profile_dir, "", "engine")
        command = [sys.executable, "-m", "parallelz.engine.process", "--leave-signals"]
        command += ["--file", str(file), "-n", "1"]
        with subprocess.Popen(command, start_new_session=True) as group:
            try:
                rc.wait_for_engines(2, timeout=TIMEOUT_S)
                result = rc[1].apply_async(count_signals, str(tmp_path))
                wait_until(rc, lambda: (tmp_path / "begun").exists())
                os.killpg(group.pid, signal.SIGUSR1)
                assert result.get(TIMEOUT_S) == 1
                assert rc[1].apply_sync(lambda: 1) == 1
            finally:
                group.terminate()
