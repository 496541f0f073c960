"""The memory that one process shares with others of its host.

A buffer is written once, and everybody on the host reads it where it lies. Segments are used
again and again: to write into memory that was used before is several times as fast as into new
one, which the kernel must find and clear.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from parallelz import settings
from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.shared import Buffer, SharedBuffer, SharedRef, size_of, view_of
from parallelz.transport.shared_memory import (
    DATA_START,
    HEADER,
    MAGIC,
    Lease,
    Leases,
    directory_for,
    lock,
    open_directory,
    unlock,
)

logger = logging.getLogger(__name__)

SEGMENTS_COUNT_MAX = 512
IDLE_S = 10.0
"""After which a segment that is not used again is given back to the system."""

ALIGNMENT = 64
WRITE_BYTES = 64 * 1024 * 1024  # at once: other threads may want to go on
USED_MAX = 0.5  # of the file system, by all who use it


class _Segment:
    """A file of a pool. Unused, it is locked unless somebody still reads it."""

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.nbytes = 0
        self.idle_since_s = 0.0

    def write(self, generation: int, views: Iterable[memoryview]) -> list[int]:
        """Write buffers into it, which is locked; return where each begins."""
        os.pwrite(self.fd, HEADER.pack(MAGIC, generation), 0)
        position = DATA_START
        offsets = []
        for view in views:
            offsets.append(position)
            for start in range(0, view.nbytes, WRITE_BYTES):
                part = view[start : start + WRITE_BYTES]
                while part.nbytes:
                    count = os.pwrite(self.fd, part, position)
                    position += count
                    part = part[count:]
            position += -position % ALIGNMENT
        self.nbytes = max(self.nbytes, position)
        return offsets

    def remove(self) -> None:
        """Give it back to the system, once nobody reads it any more."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


class _Placed:
    """What was written into a segment; when nobody refers to it, the segment is free."""

    __slots__ = ("_released", "_segment", "generation")

    def __init__(self, segment: _Segment, generation: int, released: deque[_Segment]) -> None:
        self._segment = segment
        self._released = released
        self.generation = generation

    def __del__(self) -> None:
        self._released.append(self._segment)

    def view(self, ref: SharedRef) -> memoryview:
        """Return the bytes of a buffer in it."""
        return Lease(self._segment.path, self.generation).view(ref)


class Pool:
    """Shared memory of this process; may be used from several threads.

    Parameters
    ----------
    directory
        The cluster's.
    session_id
        Whose pool it is.
    bytes_max
        How much it may use. None: as long as half of all such memory is free.
    """

    def __init__(
        self, directory: Path, session_id: SessionId, bytes_max: int | None = None
    ) -> None:
        self._path = directory / session_id
        self._directory = directory
        self._session_id = session_id
        self._bytes_max = bytes_max
        self._lock = threading.Lock()  # guards the following
        self._written = threading.Condition(self._lock)
        self._writers_count = 0  # of threads that write into a segment just now
        self._fds: list[int] = []
        self._segments: dict[int, _Segment] = {}
        self._idle: list[_Segment] = []
        self._released: deque[_Segment] = deque()
        self._numbers = itertools.count()
        self._generations = itertools.count(1)
        self._is_closed = False
        self._has_warned = False

    def place(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """Return the same buffers, in shared memory if they are large enough and it has room.

        They are copied there: the originals may be changed afterwards.
        """
        total = sum(map(size_of, buffers))
        if total <= settings.PAYLOAD_BYTES_MAX:
            return buffers
        if any(isinstance(buffer, SharedBuffer) for buffer in buffers):
            return buffers
        views = [view_of(buffer).cast("B") for buffer in buffers]
        needed = DATA_START + total + ALIGNMENT * len(views)
        try:
            with self._lock:
                segment = self._take(needed)
                if segment is None:
                    return buffers
                generation = next(self._generations)
                self._writers_count += 1
            offsets = self._write(segment, generation, views)
        except OSError as error:
            self._warn(str(error))
            return buffers
        placed = _Placed(segment, generation, self._released)
        return [
            SharedBuffer(
                SharedRef(self._session_id, segment.number, generation, offset, view.nbytes),
                placed,
            )
            for offset, view in zip(offsets, views, strict=True)
        ]

    def _write(
        self, segment: _Segment, generation: int, views: Sequence[memoryview]
    ) -> list[int]:
        """Write without the lock, as that may take long; nobody closes the file meanwhile."""
        offsets: list[int] | None = None
        try:
            offsets = segment.write(generation, views)
            unlock(segment.fd)
        finally:
            with self._lock:
                if offsets is None:
                    self._drop(segment)
                self._writers_count -= 1
                self._written.notify_all()
        return offsets

    def _take(self, nbytes: int) -> _Segment | None:
        """Return a locked segment that holds so much; None: there is no room."""
        if self._is_closed:
            return None
        self._collect()
        fitting = [each for each in self._idle if nbytes <= each.nbytes <= 2 * nbytes]
        for segment in sorted(fitting, key=lambda each: each.nbytes):
            if lock(segment.fd):
                self._idle.remove(segment)
                if os.fstat(segment.fd).st_nlink:
                    return segment
                self._drop(segment)  # somebody has removed the file
        if not self._has_room(nbytes):
            return None
        if not self._fds:
            self._open()
        number = next(self._numbers)
        segment = self._segments[number] = _Segment(number, self._path / str(number))
        segment.nbytes = nbytes
        lock(segment.fd, wait=True)
        return segment

    def _open(self) -> None:
        self._path.mkdir(mode=0o700)
        for path, is_shared in ((self._directory, True), (self._path, False)):
            fd = open_directory(path)
            self._fds.append(fd)
            lock(fd, shared=is_shared, wait=True)

    def _has_room(self, nbytes: int) -> bool:
        if nbytes > self._left_bytes() or len(self._segments) >= SEGMENTS_COUNT_MAX:
            self._trim(math.inf)  # what is idle has another size
        left = self._left_bytes()
        if nbytes > left:
            self._warn(f"{nbytes} bytes are wanted, and {left} are left")
        elif len(self._segments) >= SEGMENTS_COUNT_MAX:
            self._warn(f"{SEGMENTS_COUNT_MAX} large calls or results are in use at once")
        else:
            return True
        return False

    def _left_bytes(self) -> int:
        status = os.statvfs(self._directory)
        total = status.f_frsize * status.f_blocks
        left = int(status.f_frsize * status.f_bavail - (1 - USED_MAX) * total)
        if self._bytes_max is not None:
            used = sum(each.nbytes for each in self._segments.values())
            left = min(left, self._bytes_max - used)
        return max(left, 0)

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "! shared memory is at its limit (%s): from here on some large data goes by"
                " sockets, which is slower (see %s)",
                reason,
                settings.SHARED_MEMORY_VARIABLE,
            )

    def _collect(self) -> None:
        while self._released:
            segment = self._released.popleft()
            segment.idle_since_s = time.monotonic()
            self._idle.append(segment)

    def tick(self, now_s: float) -> float:
        """Give back what has not been used for a while; return when to be called again."""
        if not (self._released or self._idle):
            return now_s + 3600.0
        with self._lock:
            self._collect()
            self._trim(now_s - IDLE_S)
            return now_s + (IDLE_S if self._idle else 3600.0)

    def _trim(self, before_s: float) -> None:
        """Remove what has been idle since before that time and is not read."""
        for segment in list(self._idle):
            if segment.idle_since_s <= before_s and lock(segment.fd):
                self._idle.remove(segment)
                self._drop(segment)

    def _drop(self, segment: _Segment) -> None:
        self._segments.pop(segment.number, None)
        segment.remove()

    def close(self) -> None:
        """Give everything back but what others have yet to read: the controller does that."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._written.wait_for(lambda: not self._writers_count)
            self._collect()
            self._trim(math.inf)
            with contextlib.suppress(OSError):  # not empty, or never made
                self._path.rmdir()
            self._let_go()

    def disown(self) -> None:
        """Let go of it in a forked process, whose parent goes on using it."""
        self._is_closed = True
        self._let_go()

    def _let_go(self) -> None:
        for fd in [*self._fds, *(segment.fd for segment in self._segments.values())]:
            os.close(fd)
        self._fds.clear()
        self._segments.clear()
        self._idle.clear()


class Sharing:
    """What a peer shares with others of its host: its own memory, and theirs. Maybe nothing.

    Parameters
    ----------
    info
        Of its cluster.
    session_id
        Who it is.

    Attributes
    ----------
    leases
        What it reads. None: it shares nothing, as there is no such memory, or the controller
        is on another host.
    """

    def __init__(self, info: ConnectionInfo, session_id: SessionId) -> None:
        bytes_max = settings.shared_memory_bytes_max()
        directory = None if bytes_max == 0 else directory_for(info)
        self.leases = None if directory is None else Leases(directory)
        self._pool = None if directory is None else Pool(directory, session_id, bytes_max)

    def place(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """Return these buffers, in shared memory if that can be; see `Pool.place`."""
        return buffers if self._pool is None else self._pool.place(buffers)

    def tick(self, now_s: float) -> float:
        """Do what is due by the clock; return when to be called again."""
        return now_s + 3600.0 if self._pool is None else self._pool.tick(now_s)

    def close(self) -> None:
        """Give back what is not needed any more."""
        if self._pool is not None:
            self._pool.close()

    def disown(self) -> None:
        """Let go of it in a forked process."""
        if self._pool is not None:
            self._pool.disown()
