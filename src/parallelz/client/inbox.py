"""What becomes of the messages that arrive at a client."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from parallelz.client.definitions import Definitions
from parallelz.client.ledger import Answer, Ledger
from parallelz.client.pump import Outgoing, Pump
from parallelz.ids import TaskId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    FetchValues,
    Goodbye,
    Notice,
    ProvideValue,
    Refused,
    TaskEnded,
    ToClient,
    Welcome,
)


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
            self.pump.waiting.append(Outgoing(ProvideValue(task_id, is_held=False)))
            return
        message = ProvideValue(task_id, data=answer.ended.data, frame_count=len(answer.buffers))
        self.pump.waiting.append(Outgoing(message, answer.buffers))

    def _take_welcome(self, welcome: Welcome, *, is_control: bool) -> None:
        is_other = self._ledger.welcome(welcome, is_control=is_control)
        if self.pump.obstacle == self._loss:
            self.pump.obstacle = ""
        if is_other and not is_control:
            with self._lock:
                self.pump.waiting.extendleft(reversed(self._definitions.anew()))

    def _lose(self, reason: str) -> None:
        self._loss = self.pump.obstacle = self.pump.obstacle or reason
