"""Several hosts on this machine: namespaces with a network of their own between them.

Each host has its own network, host name, process ids, /dev/shm and temporary directory (/mnt),
so that processes on different ones have nothing in common but other files. All of it hangs on
one process per host: when that ends, the kernel ends what runs there and takes the interfaces
away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

PROGRAMS = ("ip", "unshare", "nsenter", "tc")
NAMESPACES = ("--net", "--uts", "--mount", "--pid")
SUBNET = "10.77.0"
WAIT_S = 60
KEEPER = """
set -e
hostname "$1"
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /mnt
ip link set lo up
echo ready
exec cat
"""


def obstacle() -> str:
    """Return why there cannot be hosts on this machine; "": there can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: iproute2, util-linux)"
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root can make network namespaces"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"not even root can make network namespaces here: {tried.stderr.strip()}"
    return ""


class Host:
    """One host, and what runs on it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        keep = ["--fork", "--kill-child", "--mount-proc", "sh", "-c", KEEPER, "sh", name]
        self._keeper = subprocess.Popen(
            ["unshare", *NAMESPACES, *keep],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        ready = self._keeper.stdout.readline()
        assert ready == "ready\n", f"no host {name}: exit status {self._keeper.wait()}"
        (child,) = psutil.Process(self._keeper.pid).children()
        self.pid = child.pid
        self._started: list[subprocess.Popen[str]] = []

    def command(self, *command: str) -> list[str]:
        """Return what runs this on the host."""
        inside = ["env", f"--chdir={self.directory}", *command]
        return ["nsenter", "-t", str(self.pid), *NAMESPACES, "--", *inside]

    def run(self, *command: str) -> str:
        """Run a program to its end; return what it printed."""
        done = subprocess.run(
            self.command(*command),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command} on {self.name}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program, with pipes to its input and output; it ends with the host."""
        with (self.directory / "log").open("a") as log:
            process = subprocess.Popen(
                self.command(*command),
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._started.append(process)
        return process

    def start_module(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a module of ours as a program."""
        return self.start(sys.executable, "-m", module, *arguments)

    @property
    def environment(self) -> dict[str, str]:
        """What programs on the host find in their environment."""
        ipython_dir = str(self.directory / "ipython")
        return {**os.environ, "IPYTHONDIR": ipython_dir, "TMPDIR": "/mnt"}

    @property
    def log(self) -> str:
        """What its programs wrote to their standard error."""
        return (self.directory / "log").read_text()

    def close(self) -> None:
        """End all that runs there, and take the host away."""
        self._keeper.kill()
        for process in [self._keeper, *self._started]:
            process.wait(WAIT_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


class Network:
    """Hosts at one switch, which are cut off and slowed down as a test wants."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._switch = Host("switch", directory)
        self._switch.run("ip", "link", "add", "bridge", "type", "bridge")
        self._switch.run("ip", "link", "set", "bridge", "up")
        self.hosts: list[Host] = []

    def add(self, name: str) -> Host:
        """Add a host with the next address."""
        host = Host(name, self._directory)
        self.hosts.append(host)
        ours, pid = self._port_of(host), str(host.pid)
        switch = self._switch.run
        switch("ip", "link", "add", ours, "type", "veth", "peer", "name", "inner")
        # From here: a host cannot know the process that stands for another.
        move = ["ip", "link", "set", "inner", "netns", pid]
        subprocess.run(
            ["nsenter", "-t", str(self._switch.pid), "--net", *move], check=True, timeout=WAIT_S
        )
        switch("ip", "link", "set", ours, "master", "bridge", "up")
        host.run("ip", "link", "set", "inner", "name", "eth0")
        host.run("ip", "address", "add", f"{self.address_of(host)}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def address_of(self, host: Host) -> str:
        """Return the address by which the other hosts reach this one."""
        return f"{SUBNET}.{1 + self.hosts.index(host)}"

    def cut(self, host: Host) -> None:
        """Let nothing to or from a host get through; nobody is told."""
        self._switch.run("ip", "link", "set", self._port_of(host), "nomaster")

    def heal(self, host: Host) -> None:
        """Connect a host again."""
        self._switch.run("ip", "link", "set", self._port_of(host), "master", "bridge")

    def slow_down(self, host: Host, *shape: str) -> None:
        """Shape what goes to and from a host, as tc describes it."""
        self._switch.run("tc", "qdisc", "add", "dev", self._port_of(host), "root", *shape)
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", *shape)

    def _port_of(self, host: Host) -> str:
        return f"port{self.hosts.index(host)}"

    def close(self) -> None:
        """Take all hosts away."""
        for host in [*self.hosts, self._switch]:
            host.close()


@contextlib.contextmanager
def network_of(directory: Path, names: Sequence[str]) -> Iterator[Network]:
    """Make hosts of these names; take them away at the end."""
    network = Network(directory)
    try:
        for name in names:
            network.add(name)
        yield network
    finally:
        network.close()
