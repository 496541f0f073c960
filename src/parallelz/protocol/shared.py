"""Buffers that are not simply bytes in one block: shared between processes, or in pieces.

For what lies in memory which processes of one host share, a `SharedBuffer` stands in lists of
buffers in place of the bytes. On the wire a `SharedRef` does, in the envelope and not in a
frame. Where the memory is and who may still use it is the business of
`transport.shared_memory`.

What came by a socket in pieces stays as it came, as `Pieces`, until somebody reads it.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from typing import Protocol

import msgspec

from parallelz.errors import SerializationError


class SharedRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a buffer lies."""

    pool: str  # the session whose memory it is
    segment: int
    generation: int  # of what is in the segment, which is used again and again
    offset: int
    nbytes: int


class Keeper(Protocol):
    """Keeps the memory of a buffer from being used for something else, while it lives."""

    def view(self, ref: SharedRef) -> memoryview:
        """Return the bytes, read-only.

        Raises
        ------
        SerializationError
            If they are not there any more.
        """


class SharedBuffer:
    """A buffer in shared memory, kept there as long as this object lives."""

    __slots__ = ("_keeper", "ref")

    def __init__(self, ref: SharedRef, keeper: Keeper) -> None:
        self.ref = ref
        self._keeper = keeper

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.ref.nbytes

    def view(self) -> memoryview:
        """Return the bytes, read-only; raises as `Keeper.view`."""
        return self._keeper.view(self.ref)


class Gone:
    """In place of a keeper: the memory cannot be had, and why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def view(self, ref: SharedRef) -> memoryview:
        """Raise SerializationError."""
        raise SerializationError(
            f"{ref.nbytes} bytes in shared memory cannot be had: {self._reason}."
            " PARALLELZ_SHARED_MEMORY_BYTES_MAX=0 in the environment of all processes sends"
            " everything by sockets"
        )


Frame = bytes | bytearray | memoryview


class Pieces:
    """A large buffer as it came: who only passes it on does so piece by piece, without a copy.

    Who reads it has it joined, once. That takes time and is done where it is read: not in a
    thread that has others waiting for what comes next.

    Parameters
    ----------
    pieces
        In order; they are let go one by one as they are joined.

    Attributes
    ----------
    nbytes
        Size of all of them.
    """

    __slots__ = ("_block", "_pieces", "nbytes")

    def __init__(self, pieces: Iterable[Frame]) -> None:
        self._pieces = list(pieces)
        self._block: memoryview | None = None
        self.nbytes = sum(map(size_of, self._pieces))

    @property
    def pieces(self) -> list[Frame]:
        """The same pieces, or views of what they were joined to."""
        return self._pieces

    def view(self) -> memoryview:
        """Return the bytes, read-only. If threads ask at once each may join them for itself."""
        if self._block is None:
            self._block = self._joined()
        return self._block

    def _joined(self) -> memoryview:
        block = _new_block(self.nbytes)
        pieces = self._pieces
        end = self.nbytes
        # From the end: what is freed in this order the C library gives back to the system.
        for place in range(len(pieces) - 1, -1, -1):
            piece = pieces[place]
            start = end - size_of(piece)
            block[start:end] = piece
            pieces[place] = block[start:end]
            end = start
        return block.toreadonly()


def _new_block(nbytes: int) -> memoryview:
    """Return memory that the system fills with zeros where it is first touched.

    A bytearray would be filled at once, while no other thread can run.
    """
    if not nbytes:
        return memoryview(b"")
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, nbytes))
    return memoryview(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


WireFrame = Frame | Pieces
"""What is sent as one frame."""

Buffer = WireFrame | SharedBuffer


def size_of(buffer: Buffer) -> int:
    """Return the size of a buffer in bytes."""
    return len(buffer) if isinstance(buffer, (bytes, bytearray)) else buffer.nbytes


def view_of(buffer: Buffer) -> memoryview:
    """Return the bytes of a buffer, read-only; raises as `Keeper.view`."""
    if isinstance(buffer, SharedBuffer | Pieces):
        return buffer.view()
    return memoryview(buffer).toreadonly()
