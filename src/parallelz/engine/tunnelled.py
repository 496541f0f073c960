"""Engines that reach their controller through SSH: a process around theirs keeps the tunnel.

It is one of its own, as a process that has threads, such as the one that keeps up a tunnel,
is not to fork engines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.tunnel import SSHServer, Tunnel

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TUNNEL_TIMEOUT_S = 60.0  # to log in, perhaps by way of other hosts


def run_through(server: SSHServer, info: ConnectionInfo, arguments: Sequence[str]) -> int:
    """Run engines until they end, or this process is told to; return the exit status.

    Parameters
    ----------
    arguments
        Of `engine.process`, but for its connection file.

    Raises
    ------
    ClusterError
        If there is no tunnel to be had; says what ssh said.
    """
    tunnel = Tunnel(server, info, TUNNEL_TIMEOUT_S)
    try:
        file = tunnel.directory / "ipcontrollerz-engine.json"  # in a directory of ours only
        file.touch(0o600)
        file.write_bytes(tunnel.info.encode())
        command = [sys.executable, "-m", "parallelz.engine.process", "--file", str(file)]
        command += [*arguments, "--parent-pid", str(os.getpid())]
        return _run(command)
    finally:
        tunnel.close()


def _run(command: Sequence[str]) -> int:
    signals: list[int] = []  # that came before the process was there
    engines: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if engines is None:
            signals.append(number)
        else:
            engines.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        engines = subprocess.Popen(command)
        for number in signals:
            engines.send_signal(number)
        code = engines.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
