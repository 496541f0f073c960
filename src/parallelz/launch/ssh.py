"""Engines on other hosts, each host by one login with the system's ssh.

A keeper (`ssh_keeper`), a process of this host, holds the logins of a set. On each host a
supervisor starts the engines; its standard input leads to the keeper, and it ends them when
that closes. So nothing stays behind there, whatever ends here.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import Place
from parallelz.launch.launcher_options import to_options
from parallelz.launch.local import (
    NO_LAUNCHER_OPTIONS,
    NO_OPTIONS,
    LocalEngines,
    LocalProcess,
)
from parallelz.transport.tunnel import SSHServer

FAILED = " ! "  # in the keeper's log, before what it says of a host
PASSED_ON = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)
STOPPED_BY = signal.SIGTSTP  # to the keeper, which nothing can tell of a SIGSTOP


class SSHOptions(msgspec.Struct, frozen=True):
    """Where to log in, and how engines are started there.

    Attributes
    ----------
    hosts
        Engines by ``[user@]host[:port]``: how many at most, or a list of that and of options
        of ``ipenginez`` for that host, such as ``[2, ["--labels=gpu"]]``.
    user, port, key
        For hosts that do not name theirs; the key is the file of a private one. ""/0: as the
        configuration of ssh says.
    args
        More arguments of ssh, such as ``["-J", "login1"]``.
    python
        Interpreter there; "": the path of the one here.
    environment
        Variables of the engines.
    directory
        Where the engines work; "": the home directory there.
    setup
        Commands of a POSIX shell to run before, such as ``module load python``.
    tunnel
        Whether engines reach the controller through the login. If not, they connect to it
        over the network, which must be open for that.
    """

    hosts: dict[str, int | tuple[int, list[str]]] = {}
    user: str = ""
    port: int = 0
    key: str = ""
    args: list[str] = []
    python: str = ""
    environment: dict[str, str] = {}
    directory: str = ""
    setup: str = ""
    tunnel: bool = True


class HasLogin(Protocol):
    """Options that say how to log in, and what to do there first."""

    @property
    def user(self) -> str:
        """For hosts that do not name theirs."""
        ...

    @property
    def port(self) -> int:
        """For hosts that do not name theirs."""
        ...

    @property
    def key(self) -> str:
        """The file of a private one."""
        ...

    @property
    def args(self) -> list[str]:
        """More arguments of ssh."""
        ...

    @property
    def python(self) -> str:
        """Interpreter there; "": the path of the one here."""
        ...

    @property
    def environment(self) -> dict[str, str]:
        """Variables of what runs there."""
        ...

    @property
    def directory(self) -> str:
        """Where it works; "": the home directory there."""
        ...

    @property
    def setup(self) -> str:
        """Commands of a shell to run before."""
        ...


class HostEngines(NamedTuple):
    """What is to run on one host."""

    host: str
    n: int
    arguments: tuple[str, ...] = ()


def to_ssh_options(launcher_options: Mapping[str, Any]) -> SSHOptions:
    """Return the options, checked as far as that is possible from here.

    Raises
    ------
    ClusterError
        If one makes no sense, or there is no host.
    """
    options = to_options(SSHOptions, launcher_options, "ssh")
    if not options.hosts:
        raise ClusterError(
            "the launcher ssh needs hosts, and how many engines each may have:"
            ' launcher_options={"hosts": {"node1": 4, "node2": 4}} (--SSH.hosts=node1=4)'
        )
    for host, n, _ in _all_hosts(options):
        server_of(options, host)
        if n < 1:
            raise ClusterError(f"the launcher ssh cannot start {n} engines on {host!r}")
    return options


def _all_hosts(options: SSHOptions) -> list[HostEngines]:
    return [
        HostEngines(host, given)
        if isinstance(given, int)
        else HostEngines(host, given[0], tuple(given[1]))
        for host, given in options.hosts.items()
    ]


def chosen_hosts(options: SSHOptions, n: int) -> list[HostEngines]:
    """Return which hosts get how many of `n` engines: the first ones are filled first.

    Raises
    ------
    ClusterError
        If they have no room for so many.
    """
    chosen: list[HostEngines] = []
    for host in _all_hosts(options):
        count = min(host.n, n - sum(each.n for each in chosen))
        if count:
            chosen.append(host._replace(n=count))
    room = sum(host.n for host in _all_hosts(options))
    if n > room:
        raise ClusterError(
            f"the hosts of the launcher ssh have room for {room} engines, not for {n}:"
            " give more of them in its option hosts"
        )
    return chosen


def server_of(options: HasLogin, host: str) -> SSHServer:
    """Return how to log in to a host."""
    server = SSHServer.of(host, options.key or None, options.args)
    if options.user and "@" not in server.host:
        server = server._replace(host=f"{options.user}@{server.host}")
    return server._replace(port=server.port or options.port)


def remote_command(
    options: SSHOptions, host: HostEngines, engine: EngineOptions, socket_path: str = ""
) -> str:
    """Return what the shell of a host is to run: a supervisor that takes its orders from us.

    Parameters
    ----------
    socket_path
        What to remove afterwards: the other end of the tunnel, which sshd leaves there.
    """
    arguments = ["-m", "parallelz.engine.process", "--orders", "-n", str(host.n)]
    script = python_script(options, [*arguments, *engine.arguments, *host.arguments])
    if socket_path:
        script = f"{script}; code=$?; rm -f {socket_path}; exit $code"
    return in_any_shell(script)


def python_script(options: HasLogin, arguments: Sequence[str]) -> str:
    """Return what a POSIX shell is to run: Python, with what is to be done before."""
    command: list[str] = []
    if options.environment:
        command += ["env", *(f"{name}={text}" for name, text in options.environment.items())]
    command += [options.python or sys.executable, *arguments]
    steps = [options.setup] if options.setup else []
    if options.directory:
        steps.append(shlex.join(["cd", options.directory]))
    steps.append(shlex.join(command))
    return " && ".join(steps)


def in_any_shell(script: str) -> str:
    """Return the same script of a POSIX shell for a login's own shell, whatever that is."""
    return shlex.join(["exec", "sh", "-c", script])


class SSHEngines(LocalEngines):
    """A set of engines on hosts that are logged in to."""

    name = "ssh"
    Options = SSHOptions

    def __init__(
        self,
        place: Place,
        n: int,
        *,
        set_id: str = "1",
        options: EngineOptions = NO_OPTIONS,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
    ) -> None:
        self._ssh = to_ssh_options(launcher_options)
        chosen_hosts(self._ssh, n)
        super().__init__(place, n, set_id=set_id, options=options)
        self.launcher_options = dict(launcher_options)

    @staticmethod
    def needs_network(launcher_options: Mapping[str, Any]) -> bool:
        """Whether the controller is to listen for other hosts."""
        return not to_ssh_options(launcher_options).tunnel

    @staticmethod
    def default_count(launcher_options: Mapping[str, Any]) -> int:
        """Return how many engines to start if nobody says: as many as there is room for."""
        return sum(host.n for host in _all_hosts(to_ssh_options(launcher_options)))

    def _command(self, log_dir: str) -> list[str]:
        check_ssh()
        place = self._place
        file = settings.connection_file(place.profile_dir, place.cluster_id, "engine")
        command = [sys.executable, "-m", "parallelz.launch.ssh_keeper", "--file", str(file)]
        command += ["-n", str(self.n), "--log-dir", log_dir]
        command += ["--launcher-options", msgspec.json.encode(self.launcher_options).decode()]
        command += self.options.arguments
        if place.parent_pid is not None:
            command += ["--parent-pid", str(place.parent_pid)]
        return command

    def signal(self, signum: int) -> None:
        """Send a signal to each engine, or to the keeper if it is about their end.

        Raises
        ------
        ClusterError
            If it is none that can be passed on.
        """
        if signum == signal.SIGSTOP:
            signum = STOPPED_BY
        elif signum not in (signal.SIGTERM, signal.SIGKILL, *PASSED_ON):
            raise ClusterError(
                f"the launcher ssh cannot pass on signal {signum}; it can:"
                f" {', '.join(each.name for each in PASSED_ON)}, SIGSTOP"
            )
        LocalProcess.signal(self, signum)  # whose pid is the keeper's

    def shortfall(self) -> str:
        """Return which hosts failed, and why, as the keeper tells it."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(line.partition(FAILED)[2] for line in lines if FAILED in line)


def check_ssh() -> None:
    """Raise ClusterError if there is no ssh."""
    if shutil.which("ssh") is None:
        raise ClusterError("there is no ssh: install OpenSSH's client")


def log_of(log_dir: Path, host: str) -> Path:
    """Return where all is written that comes from a host."""
    return log_dir / f"{host.replace('/', '_')}.log"
