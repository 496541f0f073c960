"""What every launcher of controllers must do; each has a test file that runs this with it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers_processes import words_of

from parallelz import Client, Cluster, settings
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import read_connection_file

TIMEOUT_S = 60
N = 2


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait for what no client would tell."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        select.select([], [], [], 0.05)


def controller_process(profile_dir: Path) -> psutil.Process:
    """Return the process that is the controller, wherever its launcher has put it."""
    programs = {"parallelz.controller.process", "parallelz.cli.ipcontrollerz"}
    found = []
    for process in psutil.process_iter():
        words = words_of(process)
        if programs & {*words} and str(profile_dir) in words and "-c" not in words:
            found.append(process)
    # What a controller is just starting has its words until it has those of its own.
    pids = {each.pid for each in found}
    (controller,) = (each for each in found if _parent_of(each) not in pids)
    return controller


def _parent_of(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def wait_for_end(process: psutil.Process) -> None:
    process.wait(TIMEOUT_S)


class ControllerSuite:
    """Inherited by the tests of each launcher, which say what a cluster is made with.

    Attributes
    ----------
    options
        Arguments of `Cluster`.
    prelude
        Python for a process that starts a cluster and is killed.
    """

    options: dict[str, Any]
    prelude = ""

    @property
    def arguments(self) -> list[str]:
        """The same on the command line."""
        launcher = self.options["controller"]
        made = [f"--controller={launcher}"]
        for name, value in self.options.get("controller_launcher_options", {}).items():
            made.append(f"--{self.section}.{name}={value}")
        return made

    section = ""  # of the configuration

    @pytest.fixture
    def profile_dir(self, tmp_path: Path) -> Path:
        return tmp_path / "profile"

    @pytest.fixture
    def cluster(self, profile_dir: Path) -> Cluster:
        return Cluster(n=N, profile_dir=profile_dir, **self.options)

    def run(self, profile_dir: Path, command: str, *more: str) -> str:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "parallelz.cli.ipclusterz", command),
                *(*more, "--profile-dir", str(profile_dir)),
            ],
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def test_tasks_run_and_nothing_is_left(self, cluster: Cluster, profile_dir: Path) -> None:
        with cluster as rc:
            assert rc.load_balanced_view().map_sync(abs, range(-50, 0)) == [*range(50, 0, -1)]
            large = bytes(3_000_000)
            assert rc[:].apply_sync(len, large) == [len(large)] * N
            assert len(rc.hub_history()) == 52
            for path in (profile_dir / "security").iterdir():
                assert path.stat().st_mode & 0o077 == 0
            controller = controller_process(profile_dir)
            secrets = self.secrets_of(profile_dir)
            words = " ".join([*controller.cmdline(), *controller.environ().values()])
            assert secrets
            assert not any(secret in words for secret in secrets)
        wait_for_end(controller)
        assert list((profile_dir / "security").iterdir()) == []

    def secrets_of(self, profile_dir: Path) -> list[str]:
        infos: list[ConnectionInfo] = [
            read_connection_file(settings.connection_file(profile_dir, "", role), role)
            for role in ("client", "engine")
        ]
        return [text for info in infos for text in (info.token, info.secret_key) if text]

    def test_engines_may_be_added_later(self, cluster: Cluster) -> None:
        with cluster as rc:
            cluster.start_engines_sync(1)
            cluster.wait_for_engines_sync(rc, N + 1)
            assert rc[:].apply_sync(abs, -1) == [1] * (N + 1)

    def test_other_hosts_reach_it_if_it_listens(self, profile_dir: Path) -> None:
        cluster = Cluster(n=N, profile_dir=profile_dir, controller_ip="*", **self.options)
        with cluster:
            file = settings.connection_file(profile_dir, "", "client")
            urls = read_connection_file(file, "client").tcp_urls
            with Client(urls[0], profile_dir=profile_dir) as rc:
                assert rc[:].apply_sync(abs, -1) == [1] * N

    def test_another_process_takes_it_up_and_stops_it(self, profile_dir: Path) -> None:
        cluster = Cluster(
            n=N, profile_dir=profile_dir, shutdown_atexit=False, **self.options
        ).start_cluster_sync()
        try:
            other = Cluster.from_file(profile_dir=profile_dir)
            assert other.controller is not None
            assert other.controller.state == "running"
            controller = controller_process(profile_dir)
            with other.connect_client_sync() as rc:
                other.wait_for_engines_sync(rc, N)
            other.stop_cluster_sync()
            wait_for_end(controller)
            assert list((profile_dir / "security").iterdir()) == []
        finally:
            cluster.stop_cluster_sync()

    def test_the_commands_know_it(self, profile_dir: Path) -> None:
        self.run(profile_dir, "start", "-n1", "--daemonize", *self.arguments)
        try:
            told = json.loads(self.run(profile_dir, "status", "-o", "json"))
            assert told["states"]["controller"] == "running"
            assert told["engine_ids"] == [0]
            assert "listens on" in self.run(profile_dir, "logs")
        finally:
            self.run(profile_dir, "stop")
        assert list((profile_dir / "security").iterdir()) == []

    @pytest.mark.filterwarnings("ignore:the controller has not answered:UserWarning")
    def test_a_killed_controller_comes_back(self, cluster: Cluster, profile_dir: Path) -> None:
        def slow(number: int) -> int:
            time.sleep(0.05)
            return number

        with cluster as rc:
            pids = rc[:].apply_sync(os.getpid)
            result = rc.load_balanced_view().map_async(slow, range(40))
            controller_process(profile_dir).kill()
            assert result.get(TIMEOUT_S) == [*range(40)]
            assert rc[:].apply_sync(os.getpid) == pids
            assert cluster.controller is not None
            assert not cluster.controller.has_failed

    def test_it_ends_with_the_process_that_started_it(self, profile_dir: Path) -> None:
        code = (
            f"{self.prelude}import parallelz, sys, time;"
            f" cluster = parallelz.Cluster(1, profile_dir={str(profile_dir)!r},"
            f" **{self.options!r});"
            " cluster.start_and_connect_sync(); print('up', flush=True); time.sleep(600)"
        )
        owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert owner.stdout is not None
        with owner.stdout as said:
            assert said.readline() == b"up\n"
            controller = controller_process(profile_dir)
            owner.send_signal(signal.SIGKILL)
            owner.wait(TIMEOUT_S)
        wait_for_end(controller)
        wait_for(lambda: not list((profile_dir / "security").iterdir()))
