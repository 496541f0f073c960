"""How large frames cross the network: in pieces, joined again at the other end.

A piece that is as large as it may be is continued by the next, which is empty if nothing is
left. So no header is needed, and buffers are not copied where they are sent. Two things hang
on it. Signs of life pass between the pieces: one that had to wait until a whole array is
through would come too late on a slow network. And what a stranger can make libzmq hold, before
it has shown any key, is one piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from parallelz.protocol.envelope import Frame
from parallelz.protocol.shared import size_of

PIECE_BYTES_MAX = 1024 * 1024
ENCRYPTION_BYTES_MAX = 1024  # what CURVE adds to a piece is much less
MESSAGE_BYTES_MAX = PIECE_BYTES_MAX + ENCRYPTION_BYTES_MAX
"""The size of a frame at which libzmq closes a connection."""


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Frame], flags: int = 0) -> None:
    """Send one message, without copying large buffers."""
    if any(size_of(frame) >= PIECE_BYTES_MAX for frame in frames):
        frames = [piece for frame in frames for piece in _pieces(frame)]
    socket.send_multipart(frames, flags, copy=False)


def receive_buffers(socket: zmq.Socket[bytes], frame: zmq.Frame) -> list[Frame]:
    """Return the frames of the message whose first piece was just received."""
    buffer = frame.buffer
    if not frame.more:
        return [buffer]
    buffers: list[Frame] = []
    pieces: list[Frame] = []
    while True:
        is_continued = len(buffer) == PIECE_BYTES_MAX
        if pieces or is_continued:
            pieces.append(buffer)
            if not is_continued:
                buffers.append(bytearray().join(pieces))
                pieces = []
        else:
            buffers.append(buffer)
        if not socket.rcvmore:
            break
        buffer = socket.recv(zmq.NOBLOCK, copy=False).buffer
    if pieces:  # the rest is missing: let who decodes it say so
        buffers.append(bytearray().join(pieces))
    return buffers


def _pieces(frame: Frame) -> list[Frame]:
    view = memoryview(frame).cast("B")
    if view.nbytes < PIECE_BYTES_MAX:
        return [frame]
    # To the end and not beyond: a last piece that is full is followed by an empty one.
    starts = range(0, view.nbytes + 1, PIECE_BYTES_MAX)
    return [view[start : start + PIECE_BYTES_MAX] for start in starts]
