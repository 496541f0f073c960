"""Buffers that lie in memory which processes of one host share: what is said of them.

In lists of buffers a `SharedBuffer` stands in place of the bytes. On the wire a `SharedRef`
does, in the envelope and not in a frame. Where the memory is and who may still use it is the
business of `transport.shared_memory`.
"""

from __future__ import annotations

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
Buffer = Frame | SharedBuffer


def size_of(buffer: Buffer) -> int:
    """Return the size of a buffer in bytes."""
    return len(buffer) if isinstance(buffer, bytes | bytearray) else buffer.nbytes


def view_of(buffer: Buffer) -> memoryview:
    """Return the bytes of a buffer, read-only; raises as `Keeper.view`."""
    if isinstance(buffer, SharedBuffer):
        return buffer.view()
    return memoryview(buffer).toreadonly()
