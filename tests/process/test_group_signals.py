"""Signals that engines get together with others, as from batch systems, and inherited ones."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_launchers import TIMEOUT_S, wait_until

from parallelz import Client, Cluster, RemoteError, TaskAborted
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


def test_engines_that_a_script_starts_in_its_background_can_be_interrupted(
    tmp_path: Path,
) -> None:
    def wait(path: str) -> None:
        import threading
        from pathlib import Path

        Path(path).touch()
        threading.Event().wait(60)

    profile_dir = tmp_path / "profile"
    command = [sys.executable, "-m", "parallelz.cli.ipclusterz", "start", "-n", "1"]
    command += ["--daemonize", "--store=none", "--profile-dir", str(profile_dir)]
    # Without a terminal, a shell has what it starts by & ignore SIGINT.
    subprocess.run(["sh", "-c", f"{shlex.join(command)} & wait"], timeout=TIMEOUT_S, check=True)
    try:
        with Client(profile_dir=profile_dir) as rc:
            engine = rc[0]
            pid = engine.apply_sync(os.getpid)
            interrupted = engine.apply_async(wait, str(tmp_path / "first"))
            wait_until(rc, (tmp_path / "first").exists)
            rc.interrupt()
            with pytest.raises(RemoteError, match="KeyboardInterrupt"):
                interrupted.get(TIMEOUT_S)
            cancelled = engine.apply_async(wait, str(tmp_path / "second"))
            wait_until(rc, (tmp_path / "second").exists)
            rc.cancel(cancelled, grace=TIMEOUT_S)
            with pytest.raises(TaskAborted):
                cancelled.get(TIMEOUT_S)
            assert engine.apply_sync(os.getpid) == pid
    finally:
        Cluster.from_file(profile_dir=profile_dir).stop_cluster_sync()
