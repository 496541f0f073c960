"""What all tests share: options, and the check that nothing is left behind."""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers_postgres import PostgresServer, find_programs, running_server
from hypothesis import Phase, settings

SETTLE_TIMEOUT_S = 5.0

# No example has a time limit: a slow disk or a busy machine is not what is tested.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "no-shrinking", phases=[Phase.explicit, Phase.generate], deadline=None
)
settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def own_temporary_directory() -> Iterator[None]:
    """Give the tests a directory of their own, so that only their leavings are found there."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="pz-") as own,
    ):
        patch.setenv("TMPDIR", own)
        patch.setattr(tempfile, "tempdir", own)
        yield


@pytest.fixture(scope="session")
def postgres_server(own_temporary_directory: None) -> Iterator[PostgresServer]:
    """Start a PostgreSQL server; where none is installed, tests are skipped or must fail."""
    programs = find_programs()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        missing = "psycopg" if programs is not None else "a PostgreSQL server"
        if os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
            pytest.fail(f"{missing} is not installed, and PARALLELZ_REQUIRE_SERVICES is set")
        pytest.skip(f"{missing} is not installed")
    with running_server(programs) as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="rewrite tests/scenarios/*.txt")


def _left() -> dict[str, set[str]]:
    """Return what a test could leave behind."""
    shared_memory = Path("/dev/shm")
    return {
        "processes": {
            f"{child.pid} {' '.join(child.cmdline())}"
            for child in psutil.Process().children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE
        },
        # pyzmq has one thread for life that frees the buffers of sends without copies.
        "threads": {
            str(thread)
            for thread in threading.enumerate()
            if type(thread).__name__ != "GarbageCollectorThread"
        },
        "shared memory": {p.name for p in shared_memory.glob("parallelz*")}
        if shared_memory.exists()
        else set(),
        "runtime directories": {
            p.name for p in Path(tempfile.gettempdir()).glob("parallelz-*")
        },
    }


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no process, thread, shared memory or directory that was not there."""
    before = _left()
    yield
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        left = {kind: names - before[kind] for kind, names in _left().items()}
        if not any(left.values()):
            return
        if time.monotonic() > deadline_s:
            break
        gc.collect()
        threading.Event().wait(0.02)  # processes take a moment to be gone for good
    pytest.fail(f"left behind: { {kind: names for kind, names in left.items() if names} }")
