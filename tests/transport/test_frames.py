"""Large frames arrive as they were sent."""

from collections.abc import Iterator

import pytest
import zmq

from parallelz.transport.frames import (
    MESSAGE_BYTES_MAX,
    PIECE_BYTES_MAX,
    receive_buffers,
    send_frames,
)
from parallelz.transport.sockets import context, term_context

Pair = tuple[zmq.Socket[bytes], zmq.Socket[bytes]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with context().socket(zmq.PAIR) as left, context().socket(zmq.PAIR) as right:
        left.linger = right.linger = 0
        right.maxmsgsize = MESSAGE_BYTES_MAX
        right.rcvtimeo = 10_000
        port = right.bind_to_random_port("tcp://127.0.0.1")
        left.connect(f"tcp://127.0.0.1:{port}")
        yield left, right
    term_context()


@pytest.mark.parametrize(
    "sizes",
    [
        [0],
        [PIECE_BYTES_MAX - 1],
        [PIECE_BYTES_MAX],
        [PIECE_BYTES_MAX + 1],
        [3 * PIECE_BYTES_MAX],
        [5, 2 * PIECE_BYTES_MAX, 0, PIECE_BYTES_MAX, PIECE_BYTES_MAX - 1, 7],
    ],
    ids=str,
)
def test_what_is_sent_arrives_in_the_same_frames(pair: Pair, sizes: list[int]) -> None:
    left, right = pair
    sent = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    send_frames(left, sent)
    send_frames(left, [b"next"])
    for expected in (sent, [b"next"]):
        frames = receive_buffers(right, right.recv(copy=False))
        assert [bytes(frame) for frame in frames] == expected


def test_a_buffer_of_any_shape_is_sent_as_its_bytes(pair: Pair) -> None:
    left, right = pair
    view = memoryview(bytearray(2 * PIECE_BYTES_MAX)).cast("d", (2, PIECE_BYTES_MAX // 8))
    send_frames(left, [b"first", view])
    first, buffer = receive_buffers(right, right.recv(copy=False))
    assert bytes(first) == b"first"
    assert bytes(buffer) == view.tobytes()


def test_a_frame_whose_rest_is_missing_ends_with_its_message(pair: Pair) -> None:
    left, right = pair
    left.send(b"x" * PIECE_BYTES_MAX)
    (frame,) = receive_buffers(right, right.recv(copy=False))
    assert bytes(frame) == b"x" * PIECE_BYTES_MAX
