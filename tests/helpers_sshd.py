"""A real OpenSSH server on loopback, and an ssh that knows it, as long as tests need them."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("sshd", "ssh", "ssh-keygen")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
WAIT_S = 30
SERVER_CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
MaxStartups 100
"""
CLIENT_CONFIGURATION = """
Host jumped
    ProxyJump there
Host down
    Port {closed_port}
Host there jumped down localhost 127.0.0.1
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {directory}/key
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile none
"""


def find(program: str) -> str | None:
    """Return the path of a program of OpenSSH; daemons are not on everybody's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def obstacle() -> str:
    """Return why there can be no server on this machine; "": there can."""
    missing = [program for program in PROGRAMS if find(program) is None]
    return f"{', '.join(missing)}: not installed (Debian: openssh-server)" if missing else ""


class SSHD:
    """A server; ``there`` is its name for the ssh in `path`, and ``jumped`` goes through it.

    ``down`` is the name of a host on which there is none.
    """

    def __init__(self, directory: Path, more: str = "") -> None:
        self.directory = directory
        self.key = directory / "key"
        self.port, self._closed_port = _free_ports(2)
        self._server: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "key"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name]
            subprocess.run(keygen, check=True, timeout=WAIT_S)
        shutil.copy(directory / "key.pub", directory / "authorized_keys")
        host_key = (directory / "host_key.pub").read_text()
        names = f"[127.0.0.1]:{self.port}"
        (directory / "known_hosts").write_text(f"{names} {host_key}")
        server = SERVER_CONFIGURATION.format(port=self.port, directory=directory) + more
        (directory / "sshd_config").write_text(server)
        client = CLIENT_CONFIGURATION.format(
            port=self.port,
            closed_port=self._closed_port,
            directory=directory,
            user=getpass.getuser(),
        )
        (directory / "ssh_config").write_text(client)
        self._make_ssh()

    def _make_ssh(self) -> None:
        """Make a program `ssh` that is the system's with our configuration."""
        self.path = self.directory / "bin"
        self.path.mkdir()
        ssh = self.path / "ssh"
        command = shlex.join([str(find("ssh")), "-F", str(self.directory / "ssh_config")])
        ssh.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        ssh.chmod(0o700)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [str(find("sshd")), "-D", "-e", "-f", self.directory / "sshd_config"]
        with (self.directory / "sshd.log").open("ab") as log:
            self._server = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        give_up_s = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            assert self._server.poll() is None, (self.directory / "sshd.log").read_text()
            assert time.monotonic() < give_up_s

    def stop(self) -> None:
        """End it; connections that it has accepted stay."""
        assert self._server is not None
        self._server.terminate()
        self._server.wait(WAIT_S)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        made = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


@contextlib.contextmanager
def running_sshd(directory: Path, more: str = "") -> Iterator[SSHD]:
    """Run a server, with more lines of configuration; nothing is left of it."""
    server = SSHD(directory, more)
    server.start()
    try:
        yield server
    finally:
        server.stop()
