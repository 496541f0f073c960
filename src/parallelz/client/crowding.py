"""What a user is told, and may ask, when the controller has as much of a client as it takes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, MutableSequence
from typing import NamedTuple, Protocol

from parallelz.protocol.envelope import Item
from parallelz.protocol.messages import SubmitDirect, SubmitMap, SubmitTask

NOTICE_S = 5.0


class CrowdedLink(Protocol):
    """What is needed of a link; see `transport.link.LinkEnd`."""

    @property
    def has_room(self) -> bool:
        """Whether the controller wants more."""

    @property
    def kept_bytes(self) -> int:
        """Size of what was sent and is not acknowledged."""

    @property
    def acknowledged_count(self) -> int:
        """How many envelopes the controller has taken over."""


class Crowding:
    """Notices that what was submitted stays here, as nothing before it has ended for long.

    Parameters
    ----------
    link
        By which it would leave.
    waiting
        What is to leave.
    notices
        Where a text for the user is put, once until something moves.
    """

    def __init__(
        self, link: CrowdedLink, waiting: deque[Item], notices: MutableSequence[str]
    ) -> None:
        self._link = link
        self._waiting = waiting
        self._notices = notices
        self._count = -1  # of acknowledged envelopes, when it was last seen to move
        self._due_s = math.inf

    def tick(self, now_s: float) -> float:
        """Look how it is; return when to be called again."""
        if not self._waiting or self._link.has_room:
            self._count, self._due_s = -1, math.inf
        elif self._link.acknowledged_count != self._count:
            self._count, self._due_s = self._link.acknowledged_count, now_s + NOTICE_S
        elif now_s >= self._due_s:
            self._due_s = math.inf
            self._notices.append(
                f"{self._cause()}: {len(self._waiting)} more calls are sent when tasks of"
                " before have ended"
            )
            return now_s  # whoever waits is to show it now
        return self._due_s

    def why(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return why tasks of this client are not sent, by number; without those that are.

        May be called by any thread.
        """
        if self._link.has_room:
            return {}
        waiting = self._waiting.copy()  # at once: other threads add to it and take from it
        spans = sorted(_spans(waiting))
        firsts = [span.first for span in spans]
        told: dict[int, str] = {}
        for number in numbers:
            place = bisect_right(firsts, number) - 1
            if place < 0 or number >= spans[place].end:
                continue
            before = spans[place].count_before
            if spans[place].is_map:
                before += number - spans[place].first
            order = _order(before)
            told[number] = (
                f"{self._cause()}, and takes more when tasks of before have ended; {order}"
            )
        return told

    def _cause(self) -> str:
        return (
            f"the controller has {self._link.kept_bytes / 2**20:,.0f} MiB of arguments of this"
            " client, which is as much as it takes (Limits.peer_bytes_max)"
        )


class _Span(NamedTuple):
    """Tasks that one message submits, by their numbers."""

    first: int
    end: int
    count_before: int  # calls that are sent earlier
    is_map: bool  # each task is a call; else all of them are one


def _spans(waiting: Iterable[Item]) -> Iterator[_Span]:
    count = 0
    for message, _ in waiting:
        match message:
            case SubmitTask():
                number = int(message.task_id.rpartition("-")[2])
                yield _Span(number, number + 1, count, is_map=False)
                count += 1
            case SubmitMap():
                first = message.first_number
                yield _Span(first, first + len(message.items), count, is_map=True)
                count += len(message.items)
            case SubmitDirect():
                first = message.first_number
                yield _Span(first, first + len(message.engine_ids), count, is_map=False)
                count += 1
            case _:
                pass


def _order(before: int) -> str:
    if not before:
        return "it is the next to be sent"
    return f"{before:,} call{'s are' if before > 1 else ' is'} sent before it"
