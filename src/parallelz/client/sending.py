"""Whether the memory that a call has named may be changed again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from parallelz.protocol.shared import Buffer


class SendWatch:
    """Knows when nobody needs the buffers of a call any more.

    They are read where they lie, and kept to be sent again, until the controller has relieved
    us of them. All of that refers to these very objects, so that their end says it exactly.

    Parameters
    ----------
    buffers
        Not referred to from here.
    on_free
        Called whenever one of them is free, by any thread.
    """

    __slots__ = ("_refs",)

    def __init__(self, buffers: Iterable[Buffer], on_free: Callable[[], object]) -> None:
        self._refs = [
            weakref.ref(buffer, lambda _: on_free())
            for buffer in buffers
            if isinstance(buffer, memoryview)  # all else is a copy of ours
        ]

    def __bool__(self) -> bool:
        """Whether there is anything to watch."""
        return bool(self._refs)

    @property
    def is_sent(self) -> bool:
        """Whether all are free."""
        return all(ref() is None for ref in self._refs)
