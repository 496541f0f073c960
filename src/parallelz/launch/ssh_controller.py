"""A controller on another host, by one login with the system's ssh.

A keeper (`ssh_controller_keeper`), a process of this host, holds the login; over there a guard
(`controller.guard`) holds the controller. The login forwards one socket file, so for this host
the controller is as if it ran here. Whatever dies in between is started again: the keeper by
this launcher, the login by the keeper, the controller by either, with what is recorded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from parallelz.errors import ClusterError
from parallelz.launch.cluster_file import ChangingFacts
from parallelz.launch.launcher import ControllerOptions, Place
from parallelz.launch.launcher_options import to_options
from parallelz.launch.local import NO_LAUNCHER_OPTIONS
from parallelz.launch.local_controller import DEFAULTS, LocalController
from parallelz.launch.ssh import check_ssh, server_of


class SSHControllerOptions(msgspec.Struct, frozen=True):
    """Where to log in, and how the controller is started there.

    Attributes
    ----------
    host
        ``[user@]host[:port]``, as ssh understands it.
    user, port, key
        If `host` does not say it; the key is the file of a private one. ""/0: as the
        configuration of ssh says.
    args
        More arguments of ssh, such as ``["-J", "gateway"]``.
    python
        Interpreter there; "": the path of the one here.
    environment
        Variables of the controller.
    directory
        Where the controller works; "": the home directory there.
    setup
        Commands of a POSIX shell to run before, such as ``module load python``.
    profile_dir
        Directory there for the history; "": as here, below the home directory there if it is
        below the one here.
    """

    host: str = ""
    user: str = ""
    port: int = 0
    key: str = ""
    args: list[str] = []
    python: str = ""
    environment: dict[str, str] = {}
    directory: str = ""
    setup: str = ""
    profile_dir: str = ""


def to_ssh_controller_options(launcher_options: Mapping[str, Any]) -> SSHControllerOptions:
    """Return the options, checked as far as that is possible from here.

    Raises
    ------
    ClusterError
        If one makes no sense, or there is no host.
    """
    options = to_options(SSHControllerOptions, launcher_options, "ssh of a controller")
    if not options.host:
        raise ClusterError(
            "the launcher ssh of a controller needs a host to log in to:"
            ' controller_launcher_options={"host": "login1"} (--SSHController.host=login1)'
        )
    server_of(options, options.host)
    return options


def profile_dir_there(options: SSHControllerOptions, here: Path) -> str:
    """Return the directory for the history; ``~`` is the home directory there."""
    if options.profile_dir:
        return options.profile_dir
    home = Path.home()
    return f"~/{here.relative_to(home)}" if here.is_relative_to(home) else str(here)


class SSHController(LocalController):
    """A controller that is logged in to; its process here is the keeper."""

    name = "ssh"
    Options = SSHControllerOptions
    makes_files = True

    def __init__(
        self,
        place: Place,
        options: ControllerOptions = DEFAULTS,
        *,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
        changing_facts: ChangingFacts | None = None,
    ) -> None:
        self._ssh = to_ssh_controller_options(launcher_options)
        super().__init__(
            place, options, launcher_options=launcher_options, changing_facts=changing_facts
        )
        self._name = f"the keeper of the controller on {self._ssh.host}"

    @classmethod
    def check(cls, launcher_options: Mapping[str, Any]) -> None:
        """Raise ClusterError if it cannot use these options."""
        to_ssh_controller_options(launcher_options)

    def _command(self, *, ready_fd: int | None = None, resume: bool = False) -> list[str]:
        check_ssh()
        place, options = self._place, self._options
        command = [sys.executable, "-P", "-m", "parallelz.launch.ssh_controller_keeper"]
        command += ["--profile-dir", str(place.profile_dir), "--cluster-id", place.cluster_id]
        command += ["--socket-dir", place.socket_dir]
        command += ["--launcher-options", msgspec.json.encode(self.launcher_options).decode()]
        command += ["--ip", options.ip, "--port", str(options.port)]
        command += ["--location", options.location]
        command += ["--heartbeat", msgspec.json.encode(options.heartbeat).decode()]
        if ready_fd is not None:
            command += ["--ready-fd", str(ready_fd)]
        if place.parent_pid is not None:
            command += ["--parent-pid", str(place.parent_pid)]
        if resume:
            command.append("--resume")
        return [*command, *options.arguments]
