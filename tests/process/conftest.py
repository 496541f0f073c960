"""One cluster for many tests: tests that harm it start their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_sshd import SSHD, obstacle, running_sshd

from parallelz import Client, Cluster, DirectView, LoadBalancedView


@pytest.fixture(scope="module")
def cluster_profile_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the profile directory of the shared cluster."""
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def cluster(cluster_profile_dir: Path) -> Iterator[Client]:
    """Return a client of a cluster with two engines."""
    with Cluster(n=2, profile_dir=cluster_profile_dir) as rc:
        # What starts at first use starts now: each test is checked for leaving nothing.
        called = threading.Event()
        rc.load_balanced_view().apply_async(abs, -1).add_done_callback(lambda ar: called.set())
        assert called.wait(30)
        rc.hub_history()
        yield rc


@pytest.fixture
def rc(cluster: Client) -> Client:
    """Return the shared client, with engines that hold no names of earlier tests."""
    cluster.clear(block=True)
    return cluster


@pytest.fixture
def dv(rc: Client) -> DirectView:
    """Return all engines."""
    return rc[:]


@pytest.fixture
def lv(rc: Client) -> LoadBalancedView:
    """Return whichever engine is free."""
    return rc.load_balanced_view()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHD]:
    """Run an SSH server; where none is installed, tests are skipped or must fail."""
    if reason := obstacle():
        if os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    with running_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def ssh_on_path(sshd: SSHD, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ssh` be one that knows this server."""
    monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
