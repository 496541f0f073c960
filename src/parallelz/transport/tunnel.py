"""A way to a controller through SSH: one socket file here that leads to it.

The system's own ``ssh`` does it, so its configuration, agents and jump hosts are respected. It
is started again when it ends. The shell around it ends it when this process does, however that
ends: then the shell's standard input closes.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from parallelz.errors import ClusterError
from parallelz.protocol.connection import ConnectionInfo

logger = logging.getLogger(__name__)

READY_CHECK_PERIOD_S = 0.02  # a socket file cannot be awaited everywhere
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0  # before ssh is started again
STEADY_S = 10.0  # who lasted for so long has not failed at the start
ENDED_TIMEOUT_S = 5.0

SSH_OPTIONS = (
    "-T",
    *("-o", "BatchMode=yes"),  # nobody is there to be asked
    *("-o", "ExitOnForwardFailure=yes"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "StreamLocalBindUnlink=yes"),
)

_UNTIL_EOF = """\
exec 3<&0
"$@" </dev/null &
child=$!
(cat <&3 >/dev/null; kill $child) &
exec 3<&-
wait $child
"""
"""Runs a command; ends it when standard input closes, and returns its exit code."""


class SSHServer(NamedTuple):
    """Where to log in.

    Attributes
    ----------
    host
        As ssh understands it: ``user@host``, or a name of its configuration.
    port
        0: as ssh's configuration says.
    """

    host: str
    port: int = 0
    key: str = ""
    arguments: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        server: str,
        key: str | os.PathLike[str] | None = None,
        arguments: Sequence[str] = (),
    ) -> SSHServer:
        """Return a server from ``[user@]host[:port]`` and the file of a private key.

        Raises
        ------
        ClusterError
            If it is no server, or there is no such file.
        """
        host, _, port = server.rpartition(":") if server.count(":") == 1 else (server, "", "")
        if not host or host.startswith("-") or (port and not port.isdecimal()):
            raise ClusterError(
                f"{server!r} is not a server to log in to: give [user@]host[:port]"
            )
        if key is not None and not Path(key).expanduser().is_file():
            raise ClusterError(f"there is no private key {os.fspath(key)}")
        path = "" if key is None else str(Path(key).expanduser())
        return cls(host, int(port or 0), path, tuple(arguments))

    def command(self, *options: str) -> list[str]:
        """Return the beginning of a command line of ssh, up to the host."""
        chosen = [*self.arguments, *SSH_OPTIONS]  # the first of two counts
        if self.port:
            chosen += ["-p", str(self.port)]
        if self.key:
            chosen += ["-i", self.key]
        return ["ssh", *chosen, *options, self.host]


def target_of(info: ConnectionInfo) -> str:
    """Return what ssh is to forward to: the controller's address, or its socket file there."""
    if info.tcp_urls:
        parts = urlsplit(info.tcp_urls[0])
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port}"
    return info.ipc_url.removeprefix("ipc://")


def through(info: ConnectionInfo, socket_path: str | os.PathLike[str]) -> ConnectionInfo:
    """Return the connection file of whoever goes through this socket file to `target_of`."""
    made = msgspec.structs.replace(
        info, ipc_url="", tcp_urls=[f"ipc://{os.fspath(socket_path)}"], shared_memory=""
    )
    if info.tcp_urls:
        return made
    # The controller's socket file, which needs no keys and knows none.
    return msgspec.structs.replace(made, server_key="", public_key="", secret_key="")


class Tunnel:
    """Leads to a controller until it is closed.

    Parameters
    ----------
    server
        A host from which the controller can be reached; its own will do.
    info
        Of the connection file of the controller.

    Attributes
    ----------
    info
        The same, for whoever goes through the tunnel.

    Raises
    ------
    ClusterError
        If it does not lead there within `timeout_s`, with what ssh says. Nothing is left.
    """

    def __init__(self, server: SSHServer, info: ConnectionInfo, timeout_s: float) -> None:
        if shutil.which("ssh") is None:
            raise ClusterError("there is no ssh: install OpenSSH's client")
        self._server = server
        self._directory = Path(tempfile.mkdtemp(prefix="parallelz-ssh-"))
        self._path = self._directory / "controller.sock"
        self._log = self._directory / "ssh.log"
        self._target = target_of(info)
        self._is_closing = threading.Event()
        self._process = self._start()
        self.info = through(info, self._path)
        try:
            self._wait_ready(timeout_s)
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(
            target=self._keep_up, name="keeps up a tunnel", daemon=True
        )
        self._thread.start()

    @property
    def directory(self) -> Path:
        """For its owner only, and removed at the end."""
        return self._directory

    def disown(self) -> None:
        """Leave it to the process that this one was forked from."""
        self._is_closing.set()
        self._close_input()

    def close(self) -> None:
        """End it."""
        if not self._is_closing.is_set():
            self._is_closing.set()
            self._end_process()
            self._thread.join(ENDED_TIMEOUT_S)
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._server.command("-N", "-L", f"{self._path}:{self._target}")
        with self._log.open("wb") as log:
            return subprocess.Popen(
                ["sh", "-c", _UNTIL_EOF, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait_ready(self, timeout_s: float) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not self._path.exists():
            if self._process.poll() is not None or time.monotonic() >= give_up_s:
                raise ClusterError(
                    f"no tunnel by ssh to {self._server.host}: {self._last_words()}"
                )
            time.sleep(READY_CHECK_PERIOD_S)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it does not answer"

    def _keep_up(self) -> None:
        """Start ssh again whenever it ends, in a thread of its own."""
        pause_s = PAUSE_FIRST_S
        while True:
            started_s = time.monotonic()
            self._process.wait()
            if self._is_closing.is_set():
                return
            if time.monotonic() - started_s > STEADY_S:
                pause_s = PAUSE_FIRST_S
            logger.warning(
                "! the tunnel to %s broke and is built again: %s",
                self._server.host,
                self._last_words(),
            )
            if self._is_closing.wait(pause_s):
                return
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
            self._close_input()
            self._process = self._start()
            if self._is_closing.is_set():  # while it was started
                self._end_process()
                return

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _end_process(self) -> None:
        self._close_input()
        try:
            self._process.wait(ENDED_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end(self) -> None:
        self._end_process()
        shutil.rmtree(self._directory, ignore_errors=True)
