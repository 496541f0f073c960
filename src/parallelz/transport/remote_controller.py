"""What a keeper here and the guard of a controller on another host tell each other.

They talk through one login. The keeper's first line says what to start, later ones that it is
still there, or that the controller is to end. The guard's first line holds the secrets that it
has made up or was given, another one says that the controller listens.
"""

from __future__ import annotations

import os

import msgspec

from parallelz.protocol.connection import Heartbeat
from parallelz.transport.security import ClusterSecrets

STILL_HERE = b"here"
END = b"end"
READY = b"ready"
MARK = b"parallelz:"
"""Begins each line of the guard: what else comes is of the shell over there."""

SIGN_PERIOD_S = 5.0
SILENCE_S = 45.0  # without a sign the keeper counts as gone
RETURN_GRACE_S = 30.0  # for a keeper to come back before the controller is ended

LOST = 75
"""Exit code of a guard that has ended its controller since nobody came back."""

LINE_BYTES_MAX = 1024 * 1024


class StartOrder(msgspec.Struct, frozen=True):
    """What a guard is to start.

    Attributes
    ----------
    runtime_dir
        A directory for the controller's socket file, which is made and removed.
    profile_dir
        For the history; ``~`` is the home directory over there.
    cluster_id, ip, port, location, heartbeat
        As for `security.new_secrets`.
    arguments
        More of the controller.
    secrets
        Of a controller before, whose place this one takes; None: new ones.
    resume
        Whether tasks of before go on.
    """

    runtime_dir: str
    profile_dir: str
    cluster_id: str
    ip: str
    port: int
    location: str
    heartbeat: Heartbeat
    arguments: list[str]
    secrets: ClusterSecrets | None = None
    resume: bool = False


class Lines:
    """What comes by a descriptor, line by line."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._unread = b""

    def fileno(self) -> int:
        """Return what to poll."""
        return self.fd

    def receive(self) -> list[bytes] | None:
        """Return the lines that have come, none if it is not a whole one; None at the end.

        Waits if nothing is there. A line of impossible length is dropped.
        """
        part = os.read(self.fd, 65536)
        if not part:
            return None
        *lines, self._unread = (self._unread + part).split(b"\n")
        if len(self._unread) > LINE_BYTES_MAX:
            self._unread = b""
        return lines
