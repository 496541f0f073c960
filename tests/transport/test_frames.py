"""Large frames arrive as they were sent."""

import weakref
from collections.abc import Iterator

import pytest
import zmq

from parallelz.protocol.shared import Pieces, WireFrame, view_of
from parallelz.transport.frames import (
    MESSAGE_BYTES_MAX,
    PIECE_BYTES_MAX,
    as_messages,
    receive_frames,
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


SIZES = [
    [0],
    [PIECE_BYTES_MAX - 1],
    [PIECE_BYTES_MAX],
    [PIECE_BYTES_MAX + 1],
    [3 * PIECE_BYTES_MAX],
    [5, 2 * PIECE_BYTES_MAX, 0, PIECE_BYTES_MAX, PIECE_BYTES_MAX - 1, 7],
]


def receive(socket: zmq.Socket[bytes]) -> list[WireFrame]:
    first, others = receive_frames(socket, socket.recv(copy=False))
    return [first, *others]


def contents(frames: list[WireFrame]) -> list[bytes]:
    return [bytes(view_of(frame)) for frame in frames]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_is_sent_arrives_in_the_same_frames(pair: Pair, sizes: list[int]) -> None:
    left, right = pair
    sent = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    send_frames(left, sent)
    send_frames(left, [b"next"])
    for expected in (sent, [b"next"]):
        assert contents(receive(right)) == expected


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_has_arrived_can_be_passed_on_more_than_once(
    pair: Pair, sizes: list[int], is_read: bool
) -> None:
    left, right = pair
    sent = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    send_frames(left, sent)
    frames = receive(right)
    if is_read:
        assert contents(frames) == sent
    for _ in range(2):
        send_frames(right, frames)
        assert contents(receive(left)) == sent
    assert contents(frames) == sent


def test_pieces_are_passed_on_as_the_messages_that_they_came_in(pair: Pair) -> None:
    left, right = pair
    send_frames(left, [b"first", b"x" * 2 * PIECE_BYTES_MAX])
    _, buffer = receive(right)
    assert isinstance(buffer, Pieces)
    messages = list(as_messages(buffer))
    assert [type(message) for message in messages] == [zmq.Frame] * 3
    assert [len(message) for message in messages] == [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 0]


def test_a_piece_is_let_go_when_it_is_joined(pair: Pair) -> None:
    left, right = pair
    send_frames(left, [b"first", b"x" * 2 * PIECE_BYTES_MAX])
    _, buffer = receive(right)
    assert isinstance(buffer, Pieces)
    ends: list[int] = []
    for place, message in enumerate(as_messages(buffer)):
        weakref.finalize(message, ends.append, place)
    del message
    assert ends == []
    block = buffer.view()
    assert sorted(ends) == [0, 1, 2]
    assert buffer.view() is block
    assert block.readonly


def test_a_buffer_of_any_shape_is_sent_as_its_bytes(pair: Pair) -> None:
    left, right = pair
    view = memoryview(bytearray(2 * PIECE_BYTES_MAX)).cast("d", (2, PIECE_BYTES_MAX // 8))
    send_frames(left, [b"first", view])
    assert contents(receive(right)) == [b"first", view.tobytes()]


def test_a_frame_whose_rest_is_missing_ends_with_its_message(pair: Pair) -> None:
    left, right = pair
    left.send_multipart([b"first", b"x" * PIECE_BYTES_MAX])
    frames = receive(right)
    assert contents(frames) == [b"first", b"x" * PIECE_BYTES_MAX]
    send_frames(right, [*frames, b"y"])  # and does not swallow what is sent after it
    assert contents(receive(left)) == [b"first", b"x" * PIECE_BYTES_MAX, b"y"]
