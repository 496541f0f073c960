"""When a client says that the controller takes no more of it."""

from __future__ import annotations

import math
from collections import deque

from parallelz.client.crowding import NOTICE_S, Crowding
from parallelz.ids import Digest, EngineId, TaskId
from parallelz.protocol.envelope import Item
from parallelz.protocol.messages import DefineFunction, SubmitDirect, SubmitMap, SubmitTask

F = Digest(b"f")


class Link:
    has_room = False
    kept_bytes = 5 * 2**30
    acknowledged_count = 7


def task(number: int) -> Item:
    return (SubmitTask(TaskId(f"me-{number}"), F, 0.0), ())


def test_it_is_said_once_when_nothing_has_moved_for_long() -> None:
    link, notices = Link(), list[str]()
    crowding = Crowding(link, deque([task(0), task(1)]), notices)
    assert crowding.tick(100.0) == 100.0 + NOTICE_S
    link.acknowledged_count += 1
    assert crowding.tick(103.0) == 103.0 + NOTICE_S
    assert crowding.tick(107.9) == 103.0 + NOTICE_S
    assert not notices
    assert crowding.tick(108.0) == 108.0  # it is to be shown now
    assert crowding.tick(109.0) == math.inf
    (notice,) = notices
    assert "5,120 MiB" in notice
    assert "2 more calls" in notice
    link.acknowledged_count += 1
    assert crowding.tick(110.0) == 110.0 + NOTICE_S


def test_nothing_is_said_when_there_is_room_or_nothing_to_send() -> None:
    link, notices = Link(), list[str]()
    assert Crowding(link, deque(), notices).tick(0.0) == math.inf
    link.has_room = True
    assert Crowding(link, deque([task(0)]), notices).tick(0.0) == math.inf
    assert not notices


def test_of_each_task_that_stays_here_it_is_told_how_many_calls_are_sent_before() -> None:
    link = Link()
    waiting = deque(
        [
            (DefineFunction(F, "f", b""), ()),
            task(3),
            (SubmitDirect(4, [EngineId(0), EngineId(1)], F, 0.0), ()),
            (SubmitMap(6, F, 0.0, [b""] * 3), ()),
            task(9),
        ]
    )
    crowding = Crowding(link, waiting, [])
    told = crowding.why(range(2, 11))
    assert [(number, why.rpartition("; ")[2]) for number, why in told.items()] == [
        (3, "it is the next to be sent"),
        (4, "1 call is sent before it"),
        (5, "1 call is sent before it"),
        (6, "2 calls are sent before it"),
        (7, "3 calls are sent before it"),
        (8, "4 calls are sent before it"),
        (9, "5 calls are sent before it"),
    ]
    assert all("5,120 MiB" in why and "Limits.peer_bytes_max" in why for why in told.values())
    link.has_room = True
    assert crowding.why(range(10)) == {}
