"""What a client waits for: submissions and their answers, requests and their replies, engines.

The ledger is written by whichever thread drives the connections, one message at a time, and
read by all. It keeps answers as they came; they are unpickled by the thread that wants the
result. A submission is forgotten here when its last answer has come: it lives on as long as
the result that the user holds.
"""

from __future__ import annotations

import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence

import msgspec

from parallelz.client.live import LiveTask
from parallelz.client.sending import SendWatch
from parallelz.ids import EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    EngineInfo,
    EngineJoined,
    EngineLeft,
    LiveOutput,
    Message,
    Reply,
    TaskEnded,
    TaskOptions,
    Welcome,
)
from parallelz.protocol.roles import ToClient

REMEMBERED_SLACK = 1024  # ended submissions that nobody holds are looked for so often


class Answer(msgspec.Struct, frozen=True, gc=False):
    """How one task ended, as it came."""

    ended: TaskEnded
    buffers: Sequence[Buffer]
    received_s: float  # Unix time
    engine_uuid: str | None = None  # who ran it; None: the engine of that id, as known here


class Submission:
    """One call: one or more tasks with consecutive numbers, and their answers.

    Attributes
    ----------
    answers
        One per task; None: not there yet.
    pending_count
        How many of them are None.
    inputs
        What holds the results that it gets as arguments, which the controller may ask for
        until it has ended.
    sending
        Watch over the buffers of its arguments that were not copied.
    live
        What tasks that run have shown, by index; None: nothing.
    watchers, live_watchers
        Called with its index after each answer, the latter also when a task has shown
        something; by the thread that drives: must be quick.
    """

    __slots__ = (
        "__weakref__",
        "answers",
        "engine_ids",
        "first_number",
        "inputs",
        "live",
        "live_watchers",
        "name",
        "options",
        "pending_count",
        "sending",
        "session_id",
        "submitted_s",
        "watchers",
    )

    def __init__(
        self,
        session_id: SessionId,
        first_number: int,
        count: int,
        submitted_s: float,
        engine_ids: Sequence[EngineId] | None = None,
        options: TaskOptions | None = None,
        name: str = "",
    ) -> None:
        self.session_id = session_id
        self.first_number = first_number
        self.answers: list[Answer | None] = [None] * count
        self.pending_count = count
        self.submitted_s = submitted_s
        self.engine_ids = engine_ids  # None: balanced
        self.options = options
        self.name = name  # of the function
        self.inputs: tuple[Submission, ...] = ()
        self.sending: list[SendWatch] | None = None
        self.watchers: list[Callable[[int], None]] | None = None
        self.live: dict[int, LiveTask] | None = None
        self.live_watchers: tuple[Callable[[int], None], ...] = ()

    def watch_sending(self, buffers: Sequence[Buffer], on_free: Callable[[], object]) -> None:
        """Watch over more buffers; see `SendWatch`."""
        watch = SendWatch(buffers, on_free) if buffers else None
        if watch:
            if self.sending is None:
                self.sending = []
            self.sending.append(watch)

    @property
    def is_sent(self) -> bool:
        """Whether the buffers among its arguments may be changed."""
        return all(watch.is_sent for watch in self.sending or ())

    def task_id(self, index: int) -> TaskId:
        """Return the id of the task at `index`."""
        return task_id_of(self.session_id, self.first_number + index)

    def task_ids(self) -> list[TaskId]:
        """Return the ids of all tasks, in order."""
        return [self.task_id(index) for index in range(len(self.answers))]

    def take(self, index: int, answer: Answer) -> None:
        """Take in an answer; a second one for the same task is left."""
        if self.answers[index] is not None:
            return
        self.answers[index] = answer
        self.pending_count -= 1
        if self.live is not None:
            self.live.pop(index, None)  # all of it has come again
        if self.inputs and not self.pending_count:
            self.inputs = ()
        for watcher in self.live_watchers:
            watcher(index)
        if self.watchers:
            for watcher in list(self.watchers):
                watcher(index)
            if not self.pending_count:
                self.watchers = None  # they may refer to us

    def show(self, index: int, message: LiveOutput) -> None:
        """Take in what a task that runs has shown."""
        if self.answers[index] is not None:
            return
        if self.live is None:
            self.live = {}
        self.live.setdefault(index, LiveTask()).take(message)
        for watcher in self.live_watchers:
            watcher(index)

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Have `watcher` called after each answer from now on, if there is one to come."""
        if not self.pending_count:
            return
        self.watchers = [*(self.watchers or ()), watcher]


class Ledger:
    """All that one client waits for and knows of its cluster."""

    def __init__(self, session_id: SessionId) -> None:
        self.session_id = session_id
        self.awaited: dict[int, Submission] = {}
        self.replies: dict[int, tuple[Reply, Sequence[Buffer]]] = {}
        self.wanted_replies: dict[int, Message] = {}  # what was asked, by request id
        self.engines: dict[EngineId, EngineInfo] = {}
        self.past_engines: dict[EngineId, EngineInfo] = {}
        self.causes: dict[EngineId, str] = {}  # why those left
        self.welcomed = {"bulk": "", "control": ""}  # by which controller
        self.refusal = ""
        self._prefix_length = len(session_id) + 1
        self._remembered: dict[int, weakref.ref[Submission]] = {}
        self._borrowed: weakref.WeakValueDictionary[TaskId, Submission] = (
            weakref.WeakValueDictionary()
        )
        self._sweep_count = REMEMBERED_SLACK

    # -- by threads that submit ------------------------------------------------------------

    def expect(self, submission: Submission) -> None:
        """Wait for the answers of `submission`. Not for two threads at once."""
        first = submission.first_number
        count = len(submission.answers)
        if count == 1:
            self.awaited[first] = submission
        else:
            self.awaited.update(dict.fromkeys(range(first, first + count), submission))
        self._remembered[first] = weakref.ref(submission)
        if len(self._remembered) > self._sweep_count:
            self._remembered = {
                number: ref for number, ref in self._remembered.items() if ref() is not None
            }
            self._sweep_count = 2 * len(self._remembered) + REMEMBERED_SLACK

    def borrow(self, submission: Submission) -> None:
        """Provide the result of this task, another client's, as long as somebody holds it."""
        self._borrowed[submission.task_id(0)] = submission

    def forget(self, submission: Submission) -> None:
        """Find a submission no more, all of which has ended; its results stay as they are."""
        self._remembered.pop(submission.first_number, None)

    def find(self, task_id: TaskId) -> tuple[Submission, int] | None:
        """Return a task's place, if it is one of ours that is awaited or whose result lives."""
        session_id, _, digits = task_id.rpartition("-")
        if session_id != self.session_id or not digits.isdecimal():
            return None
        number = int(digits)
        submission = self.awaited.get(number)
        if submission is None and (ref := self._remembered.get(number)) is not None:
            submission = ref()
        elif submission is None:
            firsts = list(self._remembered)
            place = bisect_right(firsts, number) - 1
            ref = self._remembered.get(firsts[place]) if place >= 0 else None
            submission = None if ref is None else ref()
        if submission is None or number - submission.first_number >= len(submission.answers):
            return None
        return submission, number - submission.first_number

    def find_input(self, task_id: TaskId) -> tuple[Submission, int] | None:
        """Return the place of a task whose result another task may need."""
        borrowed = self._borrowed.get(task_id)
        return self.find(task_id) if borrowed is None else (borrowed, 0)

    def outstanding(self) -> set[TaskId]:
        """Return the ids of all tasks that have not ended."""
        return {task_id_of(self.session_id, number) for number in list(self.awaited)}

    def live(self) -> list[Submission]:
        """Return the submissions whose results somebody holds, in order."""
        submissions = [ref() for ref in list(self._remembered.values())]
        return [submission for submission in submissions if submission is not None]

    # -- by the thread that drives ---------------------------------------------------------

    def handle(self, message: ToClient, buffers: Sequence[Buffer]) -> None:
        """Take in a reply or a change of the engines."""
        match message:
            case Reply():
                if self.wanted_replies.pop(message.request_id, None) is not None:
                    self.replies[message.request_id] = (message, buffers)
            case EngineJoined():
                self._join(message.engine)
            case EngineLeft():
                self._leave(message.engine_id, message.cause)
            case _:
                pass  # SayHello was dealt with by the link

    def welcome(self, welcome: Welcome, *, is_control: bool) -> None:
        """Take in that a link is open, and who is there."""
        self.welcomed["control" if is_control else "bulk"] = welcome.controller_id
        if is_control:
            present = {engine.engine_id for engine in welcome.engines}
            for engine_id in [e for e in self.engines if e not in present]:
                self._leave(engine_id, "it left while the controller was out of reach")
            for engine in welcome.engines:
                self._join(engine)

    def end(self, ended: TaskEnded, buffers: Sequence[Buffer]) -> None:
        """Take in how a task ended; what nobody waits for is left."""
        number = int(ended.task_id[self._prefix_length :])
        submission = self.awaited.pop(number, None)
        if submission is not None:
            answer = Answer(ended, buffers, time.time())
            submission.take(number - submission.first_number, answer)

    def show(self, message: LiveOutput) -> None:
        """Take in what a task has shown; if nobody waits for it, it is left."""
        number = int(message.task_id[self._prefix_length :])
        submission = self.awaited.get(number)
        if submission is not None:
            submission.show(number - submission.first_number, message)

    def _join(self, engine: EngineInfo) -> None:
        # Replaced, not changed: other threads may be reading.
        self.causes.pop(engine.engine_id, None)  # it was given up, and has come back
        joined = {**self.engines, engine.engine_id: engine}
        self.engines = dict(sorted(joined.items()))

    def _leave(self, engine_id: EngineId, cause: str) -> None:
        self.causes[engine_id] = cause
        remaining = dict(self.engines)
        left = remaining.pop(engine_id, None)
        self.engines = remaining
        if left is not None:
            self.past_engines[engine_id] = left
