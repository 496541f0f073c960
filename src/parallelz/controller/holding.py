"""Envelopes of peers that are not acknowledged yet, and what for.

Whoever has sent one keeps it until then, and sends it again to the next controller. So an
envelope is held

* until what was made of it is recorded,
* until a task has ended that has large arguments: its client keeps them, and sends no more when
  these are as much as the controller wants of it,
* until a task has ended whose result came before the task itself, after a restart,
* until a client has a result that is too large for the database: its engine keeps it, likewise.

Acknowledging is by number, so what comes behind one that is held is held as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from parallelz.controller.sessions import Link
from parallelz.ids import TaskId

RecordItem = msgspec.Raw | tuple[Callable[..., msgspec.Raw], tuple[object, ...]]
"""A record, or how to make it: those of small tasks are made when they leave, and not while
somebody waits for the task."""


class Hold:
    """One envelope of a peer, until everything is done that it is held for."""

    __slots__ = ("link", "number", "reasons_count")

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.number = number
        self.reasons_count = 0


class _Undelivered(NamedTuple):
    """The record of an end, which waits until the client has the result."""

    after_count: int  # of envelopes to the client, with the one that has it
    record: RecordItem | None  # None: there is no history
    hold: Hold


class Holding:
    """All envelopes that are held, by link in their order."""

    def __init__(self) -> None:
        self._links: dict[int, tuple[Link, deque[Hold]]] = {}
        self._recorded: deque[tuple[int, Hold]] = deque()  # by how many envelopes are recorded
        self._until_ended: dict[TaskId, list[Hold]] = {}
        self._undelivered: dict[int, tuple[Link, deque[_Undelivered]]] = {}
        self._next: Hold | None = None  # of the envelope that is being dealt with

    @property
    def count(self) -> int:
        """How many envelopes are held."""
        return sum(len(holds) for _, holds in self._links.values())

    @property
    def awaits_records(self) -> bool:
        """Whether any is held until something is recorded."""
        return bool(self._recorded)

    @property
    def awaits_ends(self) -> bool:
        """Whether any is held until a task has ended."""
        return bool(self._until_ended)

    @property
    def awaits_delivery(self) -> bool:
        """Whether any record waits until a client has its result."""
        return bool(self._undelivered)

    def is_holding(self, link: Link) -> bool:
        """Whether any envelope of this link is held."""
        return id(link) in self._links

    # -- reasons ---------------------------------------------------------------------------

    def until_ended(self, link: Link, task_ids: list[TaskId]) -> None:
        """Hold the envelope of this link that is being dealt with until these have ended."""
        hold = self._current(link)
        hold.reasons_count += len(task_ids)
        for task_id in task_ids:
            self._until_ended.setdefault(task_id, []).append(hold)

    def until_delivered(self, engine: Link, client: Link, record: RecordItem | None) -> None:
        """Hold an envelope of an engine until the client has what was just put for it.

        Then, or when the client is gone, the record of the end is to be written.
        """
        hold = self._current(engine)
        hold.reasons_count += 1
        after_count = client.sender.taken_count + 1
        _, waiting = self._undelivered.setdefault(id(client), (client, deque()))
        waiting.append(_Undelivered(after_count, record, hold))

    def _current(self, link: Link) -> Hold:
        if self._next is None or self._next.link.session is not link.session:
            self._next = Hold(link, 0)
        return self._next

    def until_recorded(self, link: Link, number: int, target: int | None) -> None:
        """Take in that an envelope was dealt with.

        Parameters
        ----------
        target
            How many envelopes to the recorder must have been acknowledged. None: it is safe.
        """
        hold, self._next = self._next, None
        if hold is not None:
            if hold.link.session is link.session:
                hold.link = link  # an engine may send a result by either
            else:
                hold = None
        held = self._links.get(id(link))
        if hold is None and target is None and held is None:
            link.receiver.settle(number)
            return
        if hold is None:
            hold = Hold(link, number)
        hold.number = number
        if target is not None:
            hold.reasons_count += 1
            self._recorded.append((target, hold))
        if held is None:
            held = self._links[id(link)] = (link, deque())
        held[1].append(hold)
        self._advance(link)

    # -- what has happened -----------------------------------------------------------------

    def recorded(self, count: float) -> None:
        """Take in how many envelopes the recorder has acknowledged; infinity: all there are."""
        while self._recorded and self._recorded[0][0] <= count:
            _, hold = self._recorded.popleft()
            self.relieve(hold)

    def ended(self, task_id: TaskId, target: int | None) -> None:
        """Take in that a task has ended; as soon as `target` is reached that is recorded.

        None: it never will end.
        """
        for hold in self._until_ended.pop(task_id, ()):
            if target is None:
                self.relieve(hold)
            else:
                self._recorded.append((target, hold))

    def delivered(
        self, client: Link, *, all_of_them: bool = False
    ) -> list[tuple[RecordItem | None, Hold]]:
        """Return what can be recorded now, as the client has it (or never will).

        Of each it must be told with `until_written` when that is done.
        """
        _, waiting = self._undelivered.get(id(client), (client, deque()))
        has_count = client.sender.acknowledged_count
        done: list[tuple[RecordItem | None, Hold]] = []
        while waiting and (all_of_them or waiting[0].after_count <= has_count):
            _, item, hold = waiting.popleft()
            done.append((item, hold))
        if not waiting:
            self._undelivered.pop(id(client), None)
        return done

    def until_written(self, hold: Hold, target: int) -> None:
        """Hold on until the record is written, which was all that was missing."""
        self._recorded.append((target, hold))

    def relieve(self, hold: Hold) -> None:
        """Take in that one of the reasons is gone."""
        hold.reasons_count -= 1
        if not hold.reasons_count:
            self._advance(hold.link)

    def _advance(self, link: Link) -> None:
        held = self._links.get(id(link))
        if held is None:
            return  # the envelope is still being dealt with
        _, holds = held
        number = 0
        while holds and not holds[0].reasons_count:
            number = holds.popleft().number
        if number:
            link.receiver.settle(number)
        if not holds:
            del self._links[id(link)]

    def let_go(self) -> None:
        """Acknowledge everything, for whatever it is held."""
        self._next = None
        for link, holds in self._links.values():
            for hold in holds:
                hold.reasons_count = 0
                link.receiver.settle(hold.number)
        self._links.clear()
        self._recorded.clear()
        self._until_ended.clear()
