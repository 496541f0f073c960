"""The daemons of a real service, in a directory of their own, as long as tests need them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
WAIT_S = 60


def find(program: str) -> str | None:
    """Return the path of a program; daemons are not on everybody's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def obstacle_to(programs: Sequence[str], packages: str) -> str:
    """Return why programs cannot be run here, which only root could; "": they can."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: {packages})"
    return "" if os.geteuid() == 0 else f"only root can run {programs[0]}"


def need(programs: Sequence[str], packages: str) -> None:
    """Skip the test, or let it fail where services are required, unless root has programs."""
    obstacle = obstacle_to(programs, packages)
    if obstacle and os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
        pytest.fail(obstacle)
    if obstacle:
        pytest.skip(obstacle)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at now."""
    with contextlib.ExitStack() as sockets:
        made = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


class Daemons:
    """Some daemons; whoever has `environment` finds them."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = dict(environment)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start_daemon(self, *command: str, **variables: str) -> None:
        """Start one, which does not detach itself."""
        program = find(command[0])
        assert program, command
        with (self.directory / f"{Path(command[0]).name}.out").open("ab") as output:
            daemon = subprocess.Popen(
                [program, *command[1:]],
                env={**os.environ, **self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._daemons.append(daemon)

    def run(self, *command: str) -> str:
        """Run a command to its end, whether it fails or not; return what it printed."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that the daemons do; they must not end meanwhile."""
        give_up_s = time.monotonic() + WAIT_S
        while not is_so():
            ended = [each.args for each in self._daemons if each.poll() is not None]
            assert not ended, f"{ended}: {self.logs}"
            assert time.monotonic() < give_up_s, self.logs
            time.sleep(0.05)

    @property
    def logs(self) -> str:
        """What the daemons have said."""
        paths = [*self.directory.glob("*.log"), *self.directory.glob("*.out")]
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in paths)

    def stop(self) -> None:
        """End all of them, the last one first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(WAIT_S)
