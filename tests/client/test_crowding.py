"""When a client says that the controller takes no more of it."""

from __future__ import annotations

import math

from parallelz.client.crowding import NOTICE_S, Crowding


class Link:
    has_room = False
    kept_bytes = 5 * 2**30
    acknowledged_count = 7


def test_it_is_said_once_when_nothing_has_moved_for_long() -> None:
    link, notices = Link(), list[str]()
    crowding = Crowding(link, ["a", "b"], notices)
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
    assert Crowding(link, [], notices).tick(0.0) == math.inf
    link.has_room = True
    assert Crowding(link, ["a"], notices).tick(0.0) == math.inf
    assert not notices
