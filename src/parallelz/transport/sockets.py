"""zmq contexts, who we are, and waiting: what every process needs of sockets."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import socket
import struct
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import zmq

from parallelz.ids import SessionId
from parallelz.protocol.connection import Heartbeat
from parallelz.protocol.messages import PeerInfo

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the zmq context of this process; a forked child gets one of its own.

    libzmq's threads do not survive a fork, so a context must not either.
    """
    pid = os.getpid()
    if pid not in _contexts:
        _contexts[pid] = zmq.Context()
    return _contexts[pid]


def term_context() -> None:
    """End this process's zmq context, once all of its sockets are closed."""
    ended = _contexts.pop(os.getpid(), None)
    if ended is not None:
        ended.term()


def new_session_id() -> SessionId:
    """Return a name for one life of this process."""
    return SessionId(uuid.uuid4().hex[:16])


def host_id() -> str:
    """Return what processes share if and only if they share a kernel and its process ids."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # only Linux has these
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def peer_info() -> PeerInfo:
    """Return what this process says of itself when it joins."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid()) if hasattr(os, "getuid") else ""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return PeerInfo(
        host=platform.node(), host_id=host_id(), pid=os.getpid(), user=user, python=version
    )


# Arithmetic with members of enums takes several times as long.
NO_WAIT = int(zmq.NOBLOCK)
_POLLIN = int(zmq.POLLIN)


def has_arrivals(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received at once. Less dear than to receive in vain."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)


def read_monitor(monitor: zmq.Socket[bytes]) -> Iterator[tuple[int, int, str]]:
    """Yield the events of a monitor socket: which, its value (often a fd), and the address.

    pyzmq's own parser would bring asyncio into every process, a sixth of its start.
    The format is libzmq's, see zmq_socket_monitor(3).
    """
    while has_arrivals(monitor):
        packed, address = monitor.recv_multipart(NO_WAIT)
        event, value = struct.unpack("=Hi", packed)
        yield event, value, address.decode()


def send_heartbeats(socket: zmq.Socket[bytes], heartbeat: Heartbeat) -> None:
    """Let a socket give and expect signs of life on connections that it makes from now on."""
    socket.heartbeat_ivl = round(heartbeat.period_s * 1000)
    socket.heartbeat_timeout = round(heartbeat.timeout_s * 1000)


class Waker:
    """Wakes a thread that polls, from any other thread or a signal handler."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.settimeout(0)
        self._sender.settimeout(0)
        self._awake = False

    def fileno(self) -> int:
        """Return what to poll."""
        return self._receiver.fileno()

    def wake(self) -> None:
        """Make the next or current poll return; cheap when that is due already."""
        if self._awake:
            return
        self._awake = True
        with contextlib.suppress(BlockingIOError, OSError):  # full: it will wake; closed: late
            self._sender.send(b"!")

    def drain(self) -> None:
        """Take the wake-up in, before looking at what it was for."""
        with contextlib.suppress(BlockingIOError):
            self._receiver.recv(64)
        self._awake = False

    def close(self) -> None:
        """Free both ends."""
        self._receiver.close()
        self._sender.close()
