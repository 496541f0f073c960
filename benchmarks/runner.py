"""Runs one peer in a process of its own, and sees to it that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.install import python_of, script_dir

ROOT = Path(__file__).parents[1]
PEERS = ("pool", "loky", "mpi4py", "ray", "parsl", "dask", "ipyparallel")
IN_OUR_ENVIRONMENT = ("parallelz", "pool")
TIME_LIMIT_S = 240.0
STOP_GRACE_S = 15.0
LOG_LENGTH_SHOWN = 300


class Outcome(NamedTuple):
    """What a peer has handed over: one dict per row, and versions by package."""

    rows: dict[str, Mapping[str, object]]
    versions: dict[str, str]
    failure: str = ""  # how it ended, if not well


def interpreter_of(venvs: Path, peer: str) -> Path | None:
    """Return what runs a peer, None if it is not installed."""
    if peer in IN_OUR_ENVIRONMENT:
        return Path(sys.executable)
    python = python_of(venvs, peer)
    return python if python.exists() else None


def run_peer(peer: str, rows: Sequence[str], venvs: Path, *, quick: bool) -> Outcome:
    """Start a peer, have it measure some rows, and end it.

    Its working directory, profiles and logs are temporary.
    """
    python = interpreter_of(venvs, peer)
    assert python is not None
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as directory:
        out, log = Path(directory, "figures"), Path(directory, "log")
        command = [str(python), "-m", "benchmarks.peers.harness", peer]
        command += ["--rows", ",".join(rows), "--out", str(out)]
        command += ["--quick"] if quick else []
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{script_dir(venvs, peer)}{os.pathsep}{os.environ['PATH']}",
            "IPYTHONDIR": str(Path(directory, "ipython")),
            "OMP_NUM_THREADS": "1",
        }
        failure = _run(command, directory, environment, log)
        if failure:
            said = log.read_text(errors="replace").strip()[-LOG_LENGTH_SHOWN:]
            failure = f"{failure}: {' '.join(said.split())}"
        facts = (
            [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        )
    versions = next((fact["versions"] for fact in facts if "versions" in fact), {})
    return Outcome({fact["row"]: fact for fact in facts if "row" in fact}, versions, failure)


def _run(command: Sequence[str], directory: str, environment: dict[str, str], log: Path) -> str:
    """Run a command to its end or the time limit; return how it failed, "" if it did not."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # Children may have sessions of their own, and lose their parent: so know them before.
    descendants: set[psutil.Process] = set()
    failure = ""
    try:
        code = _wait(process, descendants)
        if code is None:
            failure = f"not done after {TIME_LIMIT_S:.0f} s"
        elif code:
            failure = f"exit code {code}"
    finally:
        _end(process, descendants)
    return failure


def _wait(process: subprocess.Popen[bytes], descendants: set[psutil.Process]) -> int | None:
    waited_s = 0.0
    while waited_s < TIME_LIMIT_S:
        with contextlib.suppress(psutil.Error):
            descendants.update(psutil.Process(process.pid).children(recursive=True))
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1.0)
        waited_s += 1.0
    return None


def _end(process: subprocess.Popen[bytes], descendants: set[psutil.Process]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE_S)
    _, alive = psutil.wait_procs(list(descendants), timeout=2.0)
    for each in alive:
        with contextlib.suppress(psutil.Error):
            each.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
