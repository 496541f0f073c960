"""What becomes of the messages that arrive at a client."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence

from parallelz.client.definitions import Definitions
from parallelz.client.ledger import Answer, Ledger
from parallelz.client.pump import Pump
from parallelz.ids import TaskId
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.messages import (
    AskHistory,
    FetchValues,
    Goodbye,
    LiveOutput,
    Message,
    Notice,
    ProvideValue,
    Refused,
    ResumeTasks,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    Welcome,
)
from parallelz.protocol.roles import ToClient


class Inbox:
    """Takes in what arrives, by whichever thread drives."""

    def __init__(self, ledger: Ledger, definitions: Definitions, lock: threading.Lock) -> None:
        self.pump: Pump
        self._loss = ""
        self._ledger = ledger
        self._definitions = definitions
        self._lock = lock

    def handle(
        self,
        message: ToClient,
        buffers: Sequence[Buffer],
        is_control: bool,  # noqa: FBT001
    ) -> None:
        """Take in one message."""
        match message:
            case TaskEnded():
                self._ledger.end(message, buffers)
            case LiveOutput():
                self._ledger.show(message)
            case Welcome():
                self._take_welcome(message, is_control=is_control)
            case Notice():
                self.pump.notices.append(message.text)
            case Goodbye():
                self._lose(f"the controller has ended: {message.reason or 'it was stopped'}")
            case Refused():
                self._ledger.refusal = message.reason
                self._lose(f"the controller refused this client: {message.reason}")
            case FetchValues():
                for task_id in message.task_ids:
                    self._provide(task_id)
            case _:
                self._ledger.handle(message, buffers)

    def _provide(self, task_id: TaskId) -> None:
        """Send the result of a task, which another one needs, as soon as it is there."""
        place = self._ledger.find_input(task_id)
        if place is None:
            self._put_value(task_id, None)
            return
        submission, index = place
        answer = submission.answers[index]
        if answer is not None:
            self._put_value(task_id, answer)
            return

        def look(ended: int) -> None:
            if ended == index:
                self._put_value(task_id, submission.answers[index])

        submission.watch(look)

    def _put_value(self, task_id: TaskId, answer: Answer | None) -> None:
        if answer is None or answer.ended.status != "ok":
            self.pump.put_passing((ProvideValue(task_id, is_held=False), ()))
            return
        message = ProvideValue(task_id, data=answer.ended.data, frame_count=len(answer.buffers))
        self.pump.put_passing((message, answer.buffers))

    def _take_welcome(self, welcome: Welcome, *, is_control: bool) -> None:
        self._ledger.welcome(welcome, is_control=is_control)
        if self.pump.obstacle == self._loss:
            self.pump.obstacle = ""

    # -- what a controller is told that knows nothing of us --------------------------------

    def introduce_bulk(self, envelope_count: int) -> list[Item]:
        """Return functions, and what is awaited of what was sent already."""
        with self._lock:
            definitions = self._definitions.anew()
            first_unsent = _first_number(self.pump.waiting)
            awaited = ranges(n for n in self._ledger.awaited if n < first_unsent)
            # Their answers may have been lost with the controller that had taken them in.
            for question in self._questions(is_of_past=True):
                self.pump.put_passing((question, ()))
        resume: Item = (ResumeTasks(awaited, envelope_count), ())
        return [*definitions, resume]

    def introduce_control(self, _: int) -> list[Item]:
        """Return the requests that have no answer."""
        with self._lock:
            return [(request, ()) for request in self._questions(is_of_past=False)]

    def _questions(self, *, is_of_past: bool) -> list[Message]:
        wanted = list(self._ledger.wanted_replies.values())
        return [message for message in wanted if isinstance(message, AskHistory) == is_of_past]

    def _lose(self, reason: str) -> None:
        self._loss = self.pump.obstacle or reason
        self.pump.hinder(self._loss)


def _first_number(waiting: Iterable[Item]) -> float:
    """Return the number of the first task that has not been sent."""
    for message, _ in waiting:
        match message:
            case SubmitTask():
                return int(message.task_id.rpartition("-")[2])
            case SubmitMap() | SubmitDirect():
                return message.first_number
            case _:
                pass
    return math.inf


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges, each with its first and its last one.

    >>> ranges([7, 1, 2, 3])
    [(1, 3), (7, 7)]
    """
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
