"""What an engine has started, where its supervisor can still read it.

An engine that is killed cannot say what it had begun. How many tasks it has started, and which
ones the controller may not have the results of, stands in memory that both share. So the
controller can tell the tasks that may have done something from those that only waited there:
these run elsewhere, as if nothing had happened.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

from parallelz.ids import TaskId

SLOTS_COUNT = 16_384
"""So many of the latest can be told, and so many starts may be without an answer."""
SLOT_BYTES = 64

_NUMBERS = struct.Struct("=QQ")


class StartedTasks:
    """Ids in shared memory, written by one process and read by another.

    Parameters
    ----------
    fd
        Of memory that another process has made; the object owns it from now on. None: a new
        one, without any.

    Attributes
    ----------
    fd
        What a child process needs to have inherited.
    """

    def __init__(self, fd: int | None = None) -> None:
        size = _NUMBERS.size + SLOTS_COUNT * SLOT_BYTES
        if fd is None:
            fd = _new_file()
            os.ftruncate(fd, size)
        self.fd = fd
        self._memory = mmap.mmap(fd, size)
        self._count, self._settled_count = _NUMBERS.unpack_from(self._memory)

    @property
    def count(self) -> int:
        """How many tasks were ever started."""
        return int(_NUMBERS.unpack_from(self._memory)[0])

    def add(self, task_id: TaskId) -> None:
        """Note one more, before it starts; for the one process that writes."""
        start = _NUMBERS.size + self._count % SLOTS_COUNT * SLOT_BYTES
        name = task_id.encode()[:SLOT_BYTES]
        self._memory[start : start + SLOT_BYTES] = name.ljust(SLOT_BYTES, b"\0")
        self._count += 1
        _NUMBERS.pack_into(self._memory, 0, self._count, self._settled_count)

    def settle(self, count: int) -> None:
        """Note that the controller has the results of the first so many."""
        self._settled_count = count

    def open(self) -> list[TaskId]:
        """Return those that are not settled, oldest first; `SLOTS_COUNT` at most."""
        count, settled_count = _NUMBERS.unpack_from(self._memory)
        ids: list[TaskId] = []
        for number in range(max(settled_count, count - SLOTS_COUNT), count):
            start = _NUMBERS.size + number % SLOTS_COUNT * SLOT_BYTES
            name = self._memory[start : start + SLOT_BYTES].rstrip(b"\0")
            ids.append(TaskId(name.decode(errors="replace")))
        return ids

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.fd)


def _new_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("parallelz-started")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
