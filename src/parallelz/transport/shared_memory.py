"""Memory that the processes of one host share: where it is, and how it comes to its end.

Each cluster has a directory in a file system that lies in memory, each process that shares
something a *pool* in it, which is a directory of that process, and each pool *segments*, which
are files::

    /dev/shm/parallelz-<cluster>/<session>/<segment>

Nobody has to tell anybody that it has died. Locks (flock) belong to open files, and the kernel
drops them with the process:

* whoever has a pool holds an exclusive lock on its directory: it lives;
* whoever reads a segment holds a shared lock on it, as long as anything refers to its mapping;
* the owner uses a segment for something else when it gets the exclusive lock on it.

A segment counts what was written into it (its *generation*). Who reads says which one it means,
so that nobody ever takes other data for its own: at worst they are gone.

The controller removes pools without an owner, and at its end everything. What is left when all
processes were killed at once is removed when a controller starts.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import stat
import struct
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.shared import Buffer, Gone, SharedBuffer, SharedRef
from parallelz.transport.sockets import host_id

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

DATA_START = mmap.PAGESIZE
HEADER = struct.Struct("<8sQ")  # MAGIC, generation
MAGIC = b"parallz1"
MAPPINGS_COUNT_MAX = 512
"""Each takes a file descriptor. What comes beyond so many is copied."""

NEWBORN_S = 60.0
"""A directory is younger than that while its controller may be about to start."""


def make_directory(path: Path) -> bool:
    """Make the directory of a cluster; return whether there is shared memory for it."""
    if sys.platform == "win32":
        return False
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        logger.info("= no shared memory, large data goes by sockets: %s", error)
        return False
    return is_usable(path)


def is_usable(path: Path) -> bool:
    """Whether a directory is ours, and nobody else's."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return is_private and status.st_uid == os.geteuid() and os.access(path, os.W_OK)


def directory_for(info: ConnectionInfo) -> Path | None:
    """Return where this process shares memory with a cluster; None: it does not."""
    if not info.shared_memory or info.host_id != host_id():
        return None
    path = Path(info.shared_memory)
    return path if is_usable(path) else None


def lock(fd: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file or directory; return whether it is locked."""
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Undo `lock`."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def open_directory(path: Path) -> int:
    """Return a descriptor of a directory, to lock it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


# -- reading ------------------------------------------------------------------------------


class Lease:
    """Keeps a segment as it is, from when this is made until nothing refers to it any more.

    Parameters
    ----------
    path, generation
        Which segment, and what is meant to be in it.
    wait
        Whether to wait while somebody locks it for themselves, which is short.

    Raises
    ------
    OSError
        If there is no such segment, or no more files can be opened.
    LookupError
        If there is something else in it by now.
    """

    def __init__(self, path: Path, generation: int, *, wait: bool = True) -> None:
        self._mapping: mmap.mmap | None = None
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        is_locked = lock(self._fd, shared=True, wait=wait)
        if not is_locked or self._generation() != generation:
            raise LookupError(f"{path} was used for something else")

    def _generation(self) -> int:
        magic, generation = HEADER.unpack(os.pread(self._fd, HEADER.size, 0))
        return int(generation) if magic == MAGIC else -1

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def mapping(self) -> mmap.mmap:
        """Return the segment as memory, which keeps it as it is without this object, too."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        return self._mapping

    def view(self, ref: SharedRef) -> memoryview:
        """Return the bytes of a buffer in it, read-only."""
        return _part_of(self.mapping(), ref)

    def copy(self, ref: SharedRef) -> bytearray:
        """Return a copy of these bytes."""
        copied = bytearray(ref.nbytes)
        view, done = memoryview(copied), 0
        while done < ref.nbytes:
            done += os.preadv(self._fd, [view[done:]], ref.offset + done)
        return copied


def _part_of(mapping: mmap.mmap, ref: SharedRef) -> memoryview:
    return memoryview(mapping)[ref.offset : ref.offset + ref.nbytes]


class Leases:
    """What this process reads in the shared memory of a cluster.

    Parameters
    ----------
    directory
        The cluster's.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mappings: weakref.WeakValueDictionary[tuple[str, int, int], mmap.mmap] = (
            weakref.WeakValueDictionary()
        )
        self._leases: weakref.WeakValueDictionary[tuple[str, int, int], Lease] = (
            weakref.WeakValueDictionary()
        )

    def take(self, ref: SharedRef) -> Buffer:
        """Return the bytes of a buffer, read-only, without a copy if that can be.

        They stay as they are as long as anything refers to them. If they are gone, reading
        the buffer that is returned says so.
        """
        key = (ref.pool, ref.segment, ref.generation)
        mapping = self._mappings.get(key)
        if mapping is None:
            try:
                lease = self._open(ref)
                if len(self._mappings) >= MAPPINGS_COUNT_MAX:
                    return memoryview(lease.copy(ref)).toreadonly()
                mapping = self._mappings[key] = lease.mapping()
            except (OSError, LookupError) as error:
                return SharedBuffer(ref, Gone(str(error)))
        return _part_of(mapping, ref)

    def hold(self, ref: SharedRef) -> SharedBuffer:
        """Return a buffer to be passed on, which is there as long as that object lives."""
        key = (ref.pool, ref.segment, ref.generation)
        lease = self._leases.get(key)
        if lease is None:
            try:
                lease = self._leases[key] = self._open(ref, wait=False)
            except (OSError, LookupError) as error:
                return SharedBuffer(ref, Gone(str(error)))
        return SharedBuffer(ref, lease)

    def _open(self, ref: SharedRef, *, wait: bool = True) -> Lease:
        if not ref.pool.isalnum():
            raise LookupError(f"{ref.pool!r} is not the name of a pool")
        path = self._directory / ref.pool / str(ref.segment)
        return Lease(path, ref.generation, wait=wait)


# -- removing -----------------------------------------------------------------------------


class Sweeper:
    """The controller's part: keeps the directory of its cluster, and removes what is left.

    Parameters
    ----------
    directory
        The cluster's; it is made if need be.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._dead: set[str] = set()
        if make_directory(directory):
            self._fd = open_directory(directory)
            lock(self._fd, shared=True, wait=True)
            _remove_old(directory)

    def sweep(self) -> None:
        """Remove the segments of processes that are gone, unless somebody reads them.

        What is dead is touched at the second look only, as what its owner said last may still
        be on its way here.
        """
        dead: set[str] = set()
        for name in _names_in(self._directory):
            path = self._directory / name
            with _locked(path) as is_dead:
                if is_dead and name in self._dead:
                    _remove_unread(path)
                if is_dead:
                    dead.add(name)
        self._dead = dead

    def close(self) -> None:
        """Remove everything. Who reads something goes on reading it."""
        if self._fd >= 0:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._fd)
            self._fd = -1


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:  # it is gone, or no more files can be opened
        return []


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a directory for the block if nobody else has; yield whether it is locked."""
    try:
        fd = open_directory(path)
    except OSError:
        yield False
        return
    try:
        yield lock(fd)
    finally:
        os.close(fd)


def _remove_unread(pool: Path) -> None:
    for name in _names_in(pool):
        path = pool / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # as above
            continue
        try:
            if lock(fd):
                path.unlink()
        finally:
            os.close(fd)
    with contextlib.suppress(OSError):  # something in it is read
        pool.rmdir()


def _remove_old(directory: Path) -> None:
    """Remove the directories of clusters all of whose processes were killed."""
    prefix = directory.name.partition("-")[0]
    for path in directory.parent.glob(f"{prefix}-*"):
        if path == directory or not is_usable(path):
            continue
        with contextlib.suppress(FileNotFoundError), _locked(path) as is_dead:
            if is_dead and time.time() - path.stat().st_mtime > NEWBORN_S:
                shutil.rmtree(path, ignore_errors=True)
