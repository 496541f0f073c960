"""What all tests share: options, and the check that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers_postgres import PostgresServer, find_programs, running_server
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings

from parallelz import settings

SETTLE_TIMEOUT_S = 5.0

# No example has a time limit: a slow disk or a busy machine is not what is tested.
hypothesis_settings.register_profile("default", deadline=None)
hypothesis_settings.register_profile(
    "no-shrinking", phases=[Phase.explicit, Phase.generate], deadline=None
)
hypothesis_settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def own_temporary_directory() -> Iterator[None]:
    """Give the tests directories of their own, so that only their leavings are found there."""
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        own = stack.enter_context(tempfile.TemporaryDirectory(prefix="pz-"))
        patch.setenv("TMPDIR", own)
        patch.setattr(tempfile, "tempdir", own)
        root = settings.shared_memory_root()
        if root.is_dir():
            shared = stack.enter_context(_shared_memory_of_this_run(root))
            patch.setenv(settings.SHARED_MEMORY_DIR_VARIABLE, shared)
        yield


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let tests, and what they start, be interrupted as from a terminal.

    A script's shell has what it starts by ``&`` ignore SIGINT, and that is inherited.
    """
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _shared_memory_of_this_run(root: Path) -> Iterator[str]:
    """Make a directory, and remove those of runs that were killed, which could not do so."""
    for left in root.glob("pz-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)  # another run may be at it as well
    with tempfile.TemporaryDirectory(prefix=f"pz-{os.getpid()}-", dir=root) as own:
        yield own


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


def _left() -> dict[str, dict[object, str]]:
    """Return what a test could leave behind: how to know it again, and what it is."""
    return {
        "processes": _descendants(),
        # pyzmq has one thread for life that frees the buffers of sends without copies.
        "threads": {
            thread.ident: str(thread)
            for thread in threading.enumerate()
            if type(thread).__name__ != "GarbageCollectorThread"
        },
        "shared memory": _parallelz_in(settings.shared_memory_root()),
        "runtime directories": _parallelz_in(Path(tempfile.gettempdir())),
    }


def _descendants() -> dict[object, str]:
    found: dict[object, str] = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = " ".join(child.cmdline())
    return found


def _parallelz_in(directory: Path) -> dict[object, str]:
    return {path.name: str(path) for path in directory.glob("parallelz-*")}


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no process, thread, shared memory or directory that was not there."""
    before = _left()
    yield
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        now = _left()
        left = {kind: now[kind].keys() - before[kind].keys() for kind in now}
        if not any(left.values()):
            return
        if time.monotonic() > deadline_s:
            break
        gc.collect()
        threading.Event().wait(0.02)  # processes take a moment to be gone for good
    pytest.fail(f"left behind: {[now[kind][key] for kind in left for key in left[kind]]}")
