"""How many tasks an engine has ever started, where its supervisor can still read it.

An engine that is killed cannot say what it had begun. The number stands in memory that both
share, so the controller can tell the tasks that may have done something from those that only
waited there: these run elsewhere, as if nothing had happened.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

_NUMBER = struct.Struct("=Q")


class StartedCount:
    """A number in a page of shared memory, written by one process and read by another.

    Parameters
    ----------
    fd
        Of a page that another process has made; the object owns it from now on. None: a new
        one, at 0.

    Attributes
    ----------
    fd
        What a child process needs to have inherited.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = _new_file()
            os.ftruncate(fd, _NUMBER.size)
        self.fd = fd
        self._page = mmap.mmap(fd, _NUMBER.size)
        self._count = self.value

    @property
    def value(self) -> int:
        """The number as it is now."""
        return int(_NUMBER.unpack_from(self._page)[0])

    def add(self) -> None:
        """Count one more; for the one process that writes."""
        self._count += 1
        _NUMBER.pack_into(self._page, 0, self._count)

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()
        os.close(self.fd)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("parallelz-started")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
