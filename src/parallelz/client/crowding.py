"""What a user is told when the controller has as much of a client as it takes."""

from __future__ import annotations

import math
from collections.abc import Collection, MutableSequence
from typing import Protocol

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
    """Notices that what was submitted stays here, because nothing before it has ended for long.

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
        self, link: CrowdedLink, waiting: Collection[object], notices: MutableSequence[str]
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
                f"the controller has {self._link.kept_bytes / 2**20:,.0f} MiB of arguments of"
                " this client, which is as much as it takes (Limits.peer_bytes_max):"
                f" {len(self._waiting)} more calls are sent when tasks of before have ended"
            )
            return now_s  # whoever waits is to show it now
        return self._due_s
