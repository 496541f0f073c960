"""How large frames cross the network: in pieces, which only who reads the frame joins.

A piece that is as large as it may be is continued by the next, which is empty if nothing is
left. So no header is needed, and buffers are not copied where they are sent. Three things hang
on it. Signs of life pass between the pieces: one that had to wait until a whole array is
through would come too late on a slow network. What a stranger can make libzmq hold, before
it has shown any key, is one piece. And the controller passes on what it has received piece by
piece, as libzmq's own messages: they are not copied, however many peers get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zmq

from parallelz.protocol.shared import Frame, Pieces, WireFrame, size_of
from parallelz.transport.sockets import NO_WAIT

PIECE_BYTES_MAX = 1024 * 1024
ENCRYPTION_BYTES_MAX = 1024  # what CURVE adds to a piece is much less
MESSAGE_BYTES_MAX = PIECE_BYTES_MAX + ENCRYPTION_BYTES_MAX
"""The size of a frame at which libzmq closes a connection."""

_MORE = int(zmq.SNDMORE)


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[WireFrame], flags: int = 0) -> None:
    """Send one message, without copying large buffers."""
    last = len(frames) - 1
    for place, frame in enumerate(frames):
        part_flags = flags | _MORE if place < last else flags
        if isinstance(frame, bytes) and len(frame) < PIECE_BYTES_MAX:
            # What is sent without a copy costs a turn of the thread that lets go of it.
            socket.send(frame, part_flags)
        else:
            _send_large(socket, frame, part_flags)


def _send_large(socket: zmq.Socket[bytes], frame: WireFrame, flags: int) -> None:
    if size_of(frame) < PIECE_BYTES_MAX and not isinstance(frame, Pieces):
        socket.send(frame, flags, copy=False)
        return
    messages = list(as_messages(frame))
    for message in messages[:-1]:
        socket.send(message, flags | _MORE, copy=False)
    socket.send(messages[-1], flags, copy=False)


def receive_frames(
    socket: zmq.Socket[bytes], frame: zmq.Frame
) -> tuple[Frame, list[WireFrame]]:
    """Return the first frame, whole, and the others of the message that begins with this piece.

    What libzmq has begun to hand over it has received to the end, so this does not wait.
    """
    buffer: Frame = frame.buffer
    if not frame.more:
        return buffer, []
    frames: list[WireFrame] = []
    pieces: list[Frame] = []
    while True:
        is_continued = len(buffer) == PIECE_BYTES_MAX
        if pieces or is_continued:
            pieces.append(buffer)
            if not is_continued:
                frames.append(Pieces(pieces))
                pieces = []
        else:
            frames.append(buffer)
        if not socket.rcvmore:
            break
        buffer = socket.recv(NO_WAIT, copy=False).buffer
    if pieces:  # the rest is missing: let who decodes it say so, and go on without it
        frames.append(Pieces([*pieces, b""]))
    first, *others = frames
    return first.view() if isinstance(first, Pieces) else first, others


def as_messages(frame: WireFrame) -> Iterator[Frame | zmq.Frame]:
    """Yield a large frame in pieces; those that came from libzmq as its own messages."""
    if isinstance(frame, Pieces):
        for piece in frame.pieces:
            owner = piece.obj if isinstance(piece, memoryview) else None
            yield owner if isinstance(owner, zmq.Frame) else piece
        return
    view = memoryview(frame).cast("B")
    # To the end and not beyond: a last piece that is full is followed by an empty one.
    for start in range(0, view.nbytes + 1, PIECE_BYTES_MAX):
        yield view[start : start + PIECE_BYTES_MAX]
