"""What the controller does with large buffers, which come in pieces: it passes them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from parallelz.controller.controller import PIECES_MAX
from parallelz.protocol.envelope import WireFrame
from parallelz.protocol.shared import Pieces
from parallelz.testing.faults import Faults
from parallelz.testing.network import PIECE_BYTES_MAX
from parallelz.testing.simulation import Simulation
from parallelz.testing.work import SimWork
from parallelz.testing.workload import Workload

FRAME = b"x" * (PIECES_MAX * PIECE_BYTES_MAX + 1)  # more than goes with others in one turn


@pytest.fixture
def cluster() -> Iterator[Simulation]:
    simulation = Simulation(2, Faults(), Workload(tasks_count=0))
    simulation.advance(1.0)
    yield simulation
    simulation.close()


@pytest.fixture
def sent(cluster: Simulation, monkeypatch: pytest.MonkeyPatch) -> list[list[list[WireFrame]]]:
    """What the controller sends, by its turns."""
    turns: list[list[list[WireFrame]]] = [[]]
    router = cluster.network.router
    send, poll = router.send, router.poll

    def note_and_send(routing_id: bytes, frames: Sequence[WireFrame]) -> bool:
        turns[-1].append(list(frames))
        return send(routing_id, frames)

    def note_and_poll(timeout_s: float) -> None:
        turns.append([])
        poll(timeout_s)

    monkeypatch.setattr(router, "send", note_and_send)
    monkeypatch.setattr(router, "poll", note_and_poll)
    return turns


def large_in(envelopes: list[list[WireFrame]]) -> list[Pieces]:
    return [each for frames in envelopes for each in frames if isinstance(each, Pieces)]


def test_pieces_are_passed_on_to_all_as_they_came(
    cluster: Simulation, sent: list[list[list[WireFrame]]]
) -> None:
    client = cluster.clients[0]
    client.submit(SimWork(1, 0.0), frame=FRAME)
    cluster.advance(1.0)
    assert client.is_satisfied
    passed_on = [each for turn in sent for each in large_in(turn)]
    assert len(passed_on) == 2  # to the engine, and back
    for buffer in passed_on:
        assert all(piece.obj is FRAME for piece in buffer.pieces)  # not one byte was copied


def test_no_turn_sends_two_very_large_envelopes_and_small_ones_go_first(
    cluster: Simulation, sent: list[list[list[WireFrame]]]
) -> None:
    client, other = cluster.clients[:2]
    for _ in range(3):
        client.submit(SimWork(1, 0.0), frame=FRAME)
    other.submit(SimWork(1, 0.0))
    cluster.advance(1.0)
    assert client.is_satisfied
    assert other.is_satisfied
    counts = [len(large_in(turn)) for turn in sent]
    assert sum(counts) == 6
    assert max(counts) == 1
