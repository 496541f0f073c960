"""What engines run before their first task."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from parallelz import Cluster
from parallelz.errors import ClusterError, EngineError

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def test_a_file_and_then_code_run_in_the_namespace(tmp_path: Path) -> None:
    file = tmp_path / "startup.py"
    file.write_text("import math\n\ndef root(x):\n    return math.sqrt(x)\n")
    with Cluster(
        1,
        profile_dir=tmp_path / "p",
        store="none",
        startup_file=file,
        startup_code="two = root(4)\n'a \"quoted\" text'",
    ) as rc:
        assert rc[0]["two"] == 2.0
        assert rc[0]["root(9) + two"] == 5.0


def test_an_engine_that_takes_the_place_of_another_runs_it_too(tmp_path: Path) -> None:
    with Cluster(
        1, profile_dir=tmp_path, store="none", restart=True, startup_code="x = 7"
    ) as rc:
        killed = rc[0].apply_async(lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(EngineError):
            killed.get(TIMEOUT_S)
        rc.wait_for_engines(1, timeout=TIMEOUT_S)
        assert rc[-1]["x"] == 7


@pytest.mark.parametrize("restart", [False, True])
def test_a_startup_that_fails_ends_the_start_with_the_reason(
    restart: bool, tmp_path: Path
) -> None:
    cluster = Cluster(
        2, profile_dir=tmp_path, store="none", startup_code="\n1/0", restart=restart
    )
    with pytest.raises(
        ClusterError, match=r"failed: ZeroDivisionError: division by zero \(.*ipenginez"
    ):
        cluster.start_and_connect_sync()
    logs = [path.read_text() for path in (tmp_path / "log").rglob("ipenginez-*.log")]
    assert len(logs) == 2
    for log in logs:
        assert '  File "<startup>", line 2, in <module>' in log
        assert "ZeroDivisionError: division by zero" in log


def test_code_that_is_no_python_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"the startup code is no Python: .*line 1"):
        Cluster(1, profile_dir=tmp_path, startup_code="x =")
