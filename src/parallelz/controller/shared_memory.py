"""The controller's part in what the processes of its host share.

It passes on where buffers lie, and opens none: only for peers of other hosts it reads them. As
long as it has not passed a buffer on, it keeps it there, whatever becomes of its owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from parallelz.ids import SessionId
from parallelz.protocol.envelope import Buffer, Envelope, WireFrame, with_shared
from parallelz.protocol.messages import Message
from parallelz.protocol.shared import Gone, SharedBuffer, SharedRef
from parallelz.transport.shared_memory import Leases, Sweeper

SWEEP_PERIOD_S = 1.0


class SharedMemory:
    """Holds what was received, and removes what is left behind.

    Parameters
    ----------
    directory
        The cluster's. None: it has no shared memory.
    """

    def __init__(self, directory: Path | None) -> None:
        self._sweeper = None if directory is None else Sweeper(directory)
        self._leases = None if directory is None else Leases(directory)
        self._sweep_s = 0.0

    def buffers_of(
        self, envelope: Envelope[Message], frames: Sequence[WireFrame], source: SessionId
    ) -> Sequence[Buffer]:
        """Return all buffers of an envelope of this peer.

        Raises
        ------
        msgspec.ValidationError
            If it names what is not its own, or impossible places.
        """
        if not envelope.shared:
            return frames
        if any(ref.pool != source for _, ref in envelope.shared):
            raise msgspec.ValidationError("it names shared memory that is not its own")
        return with_shared(frames, envelope.shared, self._hold)

    def _hold(self, ref: SharedRef) -> Buffer:
        if self._leases is None:
            return SharedBuffer(ref, Gone("the controller shares no memory"))
        return self._leases.hold(ref)

    def see_to_timers(self, now_s: float) -> None:
        """Remove what processes that are gone have left."""
        if self._sweeper is not None and now_s >= self._sweep_s:
            self._sweep_s = now_s + SWEEP_PERIOD_S
            self._sweeper.sweep()

    def close(self) -> None:
        """Remove everything; who reads something goes on reading it."""
        if self._sweeper is not None:
            self._sweeper.close()
