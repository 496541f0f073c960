"""Orders to a supervisor that come by its standard input, from a launcher on another host.

The first line is the content of the connection file. Each further one is a signal for the
engines. The end of the input is the order to end them: so they end, too, when the launcher is
killed or the way to it is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from parallelz.errors import ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo

logger = logging.getLogger(__name__)

READ_BYTES_MAX = 65536


class SendSignal(msgspec.Struct):
    """An order to send each engine a signal."""

    signum: int


class Orders:
    """What has come by a descriptor, line by line."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._unread = b""

    def first(self) -> ConnectionInfo:
        """Wait for the first line, and return the connection file that it holds.

        Raises
        ------
        ConnectionFileError
            If the input ends before, or the line is something else.
        """
        while b"\n" not in self._unread:
            part = os.read(self.fd, READ_BYTES_MAX)
            if not part:
                raise ConnectionFileError("the launcher left before it had sent what is needed")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return ConnectionInfo.decode(line)

    def receive(self) -> list[signal.Signals] | None:
        """Return the signals for the engines that have come; None at the end of the input.

        Waits if nothing is there. A line that is no order is dropped and logged.
        """
        part = os.read(self.fd, READ_BYTES_MAX)
        if not part:
            return None
        *lines, self._unread = (self._unread + part).split(b"\n")
        found: list[signal.Signals] = []
        for line in lines:
            try:
                found.append(signal.Signals(msgspec.json.decode(line, type=SendSignal).signum))
            except (msgspec.MsgspecError, ValueError) as error:
                logger.warning("! dropped an order that makes no sense: %s", error)
        return found


@contextlib.contextmanager
def from_stdin() -> Iterator[tuple[Orders, Path]]:
    """Take standard input for orders, and give its place to an empty one.

    Yields
    ------
    Orders and Path
        What is to come, and a connection file of what came first, which goes at the end.
    """
    fd = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    orders = Orders(fd)
    try:
        info = orders.first()
        with tempfile.TemporaryDirectory(prefix="parallelz-engines-") as directory:
            file = Path(directory) / "ipcontrollerz-engine.json"
            file.touch(0o600)
            file.write_bytes(info.encode())
            yield orders, file
    finally:
        os.close(fd)
