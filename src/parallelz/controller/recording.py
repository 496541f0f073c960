"""The controller's side of the recorder: what it is told, and what waits until it has it.

Records collect for `RECORD_PERIOD_S` and leave in one envelope. Envelopes of clients and
engines are acknowledged when the records made of them are: until then their senders keep them,
so that the death of any one process loses nothing. The recorder starts with the first record,
not with the controller, to keep out of the way of the start; a dead one is started again.

If nothing gets recorded for `unrecorded_s`, whatever the reason, envelopes are acknowledged all
the same, or clients and engines would run full: computing goes on, and only the history is at
risk.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from parallelz.controller.holding import Holding, RecordItem
from parallelz.controller.sessions import Link, Session
from parallelz.controller_limits import USUAL_LIMITS, ControllerLimits
from parallelz.ids import Digest, SessionId, TaskId
from parallelz.protocol.envelope import Buffer, Sender
from parallelz.protocol.messages import (
    AskHistory,
    EngineInfo,
    Goodbye,
    Message,
    Question,
    Reply,
    StoreRecords,
    StoreTrouble,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
)
from parallelz.store import record

logger = logging.getLogger(__name__)

RECORD_PERIOD_S = 0.02
RECORDS_COUNT_MAX = 1000
PROCESS_CHECK_PERIOD_S = 0.5
FINISH_TIMEOUT_S = 5.0
ASKERS_COUNT_MAX = 10_000
DEFINED_COUNT_MAX = 10_000
BACKLOG_BYTES_MAX = 256 * 1024 * 1024  # of one client: more stays with the engines


class RecorderProcess(Protocol):
    """What is needed of a recorder's `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code; None: it lives."""

    def kill(self) -> None:
        """End it by force."""

    def wait(self) -> int:
        """Return the exit code once there is one."""


OnAnswer = Callable[[Reply, Sequence[Buffer], float], None]
"""Called with the answer to a question of the controller's own, and the time."""


class Recording:
    """Tells the recorder everything, and knows what it has.

    Parameters
    ----------
    start
        Starts a recorder process. None: nothing is remembered.
    limits
        How much waits for it, and how long.
    clock, wall_clock
        What tells the time: seconds from any origin, and Unix time.

    Attributes
    ----------
    link
        The recorder's, while there is one.
    notices
        What all clients should be told.
    """

    def __init__(
        self,
        start: Callable[[], RecorderProcess] | None,
        *,
        limits: ControllerLimits = USUAL_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self.link: Link | None = None
        self._start = start
        self._clock = clock
        self._wall_clock = wall_clock
        self._process: RecorderProcess | None = None
        self.notices: deque[str] = deque()
        self._check_s = 0.0
        self._is_launch_due = False  # as the last one was in vain
        self._is_finishing = False
        self._sender = Sender()
        self._acked_before = 0  # envelopes, by recorders that are gone
        self._acked = 0
        self._records: list[RecordItem] = []
        self._flush_by_s: float | None = None
        self._holding = Holding()
        self._askers: dict[int, tuple[Session, int]] = {}
        self._own: dict[int, OnAnswer] = {}
        self._next_question = 1
        self._lost_count = 0
        self._waiting_bytes = 0  # of records that are in no envelope yet
        self._defined: OrderedDict[Digest, None] = OrderedDict()
        self._trouble = ""  # of the database, as the recorder says
        self._progress_s = 0.0  # when something was recorded, or nothing had to be
        self._is_holding_back = True
        self._touch: Callable[[Link], None] = lambda link: None

    def connect(self, touch: Callable[[Link], None]) -> None:
        """Call `touch` with the recorder's link whenever that has something to send."""
        self._touch = touch

    # -- what is told ----------------------------------------------------------------------

    def submitted(
        self,
        session_id: SessionId,
        message: SubmitTask | SubmitMap | SubmitDirect,
        name: str,
        buffers: Sequence[Buffer],
    ) -> None:
        """Remember a submission."""
        if self._start is not None:
            args = (session_id, message, name, buffers, self._wall_clock())
            self._add(record.submitted(*args) if buffers else (record.submitted, args))

    def ended(
        self,
        message: TaskEnded,
        buffers: Sequence[Buffer],
        engine: Session | None,
        client: Session | None,
    ) -> None:
        """Remember an end; the answer was put for the client, if that is there."""
        item: RecordItem | None = None
        if self._start is not None:
            engine_uuid = "" if engine is None else engine.id
            args = (message, engine_uuid, buffers, self._wall_clock())
            item = record.ended(*args) if buffers else (record.ended, args)
        if engine is not None and client is not None and _stays(message, buffers, client):
            self._holding.until_delivered(engine.bulk, client.bulk, item)
        elif item is not None:
            self._add(item)
        if item is not None:
            self._begin_to_await()
        if self._holding.awaits_ends:
            self._holding.ended(message.task_id, None if item is None else self._target)

    def _begin_to_await(self) -> None:
        """Take in that something must be recorded from now on, if nothing had to be before."""
        if not self._holding.awaits_records:
            self._progress_s = self._clock()

    def engine_changed(self, engine: EngineInfo, cause: str) -> None:
        """Remember that an engine came (`cause` is ""), or went and why."""
        if self._start is not None:
            self._add(record.engine_changed(engine, cause, self._wall_clock()))

    def function_defined(
        self, digest: Digest, name: str, data: bytes, buffers: Sequence[Buffer]
    ) -> None:
        """Remember what a function is; of the latest ones only once."""
        if self._start is None or digest in self._defined:
            return
        self._defined[digest] = None
        if len(self._defined) > DEFINED_COUNT_MAX:
            self._defined.popitem(last=False)
        self._add(record.function_defined(digest, name, data, buffers))

    def _add(self, item: RecordItem) -> None:
        if self._sender.kept_bytes + self._waiting_bytes > self._limits.unrecorded_bytes_max:
            if not self._lost_count:
                logger.error("! the recorder does not keep up: from here on history is lost")
            self._lost_count += 1
            return
        self._records.append(item)
        if self._flush_by_s is None:
            self._flush_by_s = self._clock() + RECORD_PERIOD_S
        if len(self._records) >= RECORDS_COUNT_MAX:
            self._flush()

    def _flush(self) -> None:
        self._flush_by_s = None
        if self._records:
            records, self._records = self._records, []
            self._put(
                StoreRecords(
                    [
                        item if isinstance(item, msgspec.Raw) else item[0](*item[1])
                        for item in records
                    ]
                )
            )

    def _put(self, message: Message) -> None:
        if not self._sender.waiting:
            self._waiting_bytes = 0
        if isinstance(message, StoreRecords):
            self._waiting_bytes += sum(map(len, message.records))
        self._sender.put(message)
        if self._process is None and not self._is_launch_due:
            self._launch()
        if self.link is not None:
            self._touch(self.link)

    def _launch(self) -> None:
        if self._start is None:
            return
        try:
            self._process = self._start()
        except OSError as error:  # such as too many open files: that passes
            if not self._is_launch_due:
                logger.error(
                    "! the recorder cannot be started, which is tried again: %s", error
                )
            self._is_launch_due = True
            self._check_s = self._clock() + PROCESS_CHECK_PERIOD_S
            return
        self._is_launch_due = False
        logger.info("= started the recorder (pid %d)", self._process.pid)

    # -- what it has -----------------------------------------------------------------------

    def attach(self, link: Link) -> Link:
        """Go on with this recorder where the last one stopped."""
        link.sender = self._sender
        if self.link is not None and self.link.session is not link.session:
            self._acked_before += self._acked
            self._acked = 0
        self.link = link
        return link

    def take_acknowledgement(self, link: Link, number: int) -> None:
        """Take in that a peer has everything up to this envelope of ours."""
        if link is self.link:
            if number > self._acked:
                self._acked = number
                self._progress_s = self._clock()
            self._settle()
        elif self._holding.awaits_delivery and link.session.role == "client":
            self.delivered(link)

    @property
    def _target(self) -> int:
        """How many envelopes the recorder must have acknowledged to have all of now."""
        made = self._acked_before + self._sender.number
        return made + bool(self._sender.waiting) + bool(self._records)

    def when_safe(self, link: Link, number: int) -> None:
        """Settle an envelope of a peer once what was made of it is recorded."""
        target = self._target
        is_safe = self._start is None or target <= self._acked_before + self._acked
        if not self._is_holding_back:
            self._holding.let_go()
            link.receiver.settle(number)
            return
        if not is_safe:
            self._begin_to_await()
        self._holding.until_recorded(link, number, None if is_safe else target)

    def hold_until_ended(self, link: Link, task_ids: list[TaskId]) -> None:
        """Have a peer keep the envelope that is being dealt with until these have ended."""
        self._holding.until_ended(link, task_ids)

    def will_not_end(self, task_id: TaskId) -> None:
        """Take in that a task which was to end does not exist."""
        self._holding.ended(task_id, None)

    def delivered(self, client: Link, *, all_of_them: bool = False) -> None:
        """Record the ends whose results the client has now, or will never have."""
        for item, hold in self._holding.delivered(client, all_of_them=all_of_them):
            if item is None:
                self._holding.relieve(hold)
                continue
            self._add(item)
            self._begin_to_await()
            self._holding.until_written(hold, self._target)

    def is_holding(self, link: Link) -> bool:
        """Whether any envelope of this link is held."""
        return self._holding.is_holding(link)

    @property
    def holding_count(self) -> int:
        """How many envelopes of peers are held."""
        return self._holding.count

    def _settle(self) -> None:
        is_idle = not (self._sender.kept_count or self._sender.waiting or self._records)
        acked = self._acked_before + self._acked
        # What waited while a recorder started may have come to fewer envelopes than expected.
        self._holding.recorded(math.inf if is_idle else acked)
        if is_idle and not self._is_holding_back:
            self._is_holding_back = True
            self._notify("everything is recorded again")

    def _let_go(self) -> None:
        """Acknowledge what is not recorded: nothing has been for too long."""
        self._is_holding_back = False
        self._holding.let_go()
        why = self._trouble or "the recorder does not answer"
        after_s = self._limits.unrecorded_s
        self._notify(
            f"for {after_s:g} s nothing could be recorded: {why}. Tasks go on;"
            " what is not recorded would be lost with the controller"
        )

    def _notify(self, text: str) -> None:
        logger.warning("! %s", text)
        self.notices.append(f"history: {text}")

    def take_trouble(self, message: StoreTrouble) -> None:
        """Take in that the database fails, or works again."""
        if message.text:
            self._trouble = message.text
            self._notify(f"nothing is recorded, and everything is kept to be: {message.text}")
        elif self._trouble:
            self._trouble = ""
            lost = message.lost_count
            more = f"; {lost} records were lost" if lost else ", and nothing was lost"
            self._notify(f"the database works again{more}")

    # -- questions -------------------------------------------------------------------------

    def ask(self, session: Session, message: AskHistory) -> bool:
        """Pass a question on, after all that was recorded; False: there is no recorder."""
        if self._start is None:
            return False
        self.delivered(session.bulk, all_of_them=True)  # it reads what it has
        question = self._new_question()
        if len(self._askers) >= ASKERS_COUNT_MAX:
            del self._askers[next(iter(self._askers))]
        self._askers[question] = (session, message.request_id)
        self._put(msgspec.structs.replace(message, request_id=question))
        return True

    def inquire(self, question: Question, what: object, on_answer: OnAnswer) -> bool:
        """Ask something for ourselves, after all that was recorded; False: see `ask`."""
        if self._start is None:
            return False
        number = self._new_question()
        self._own[number] = on_answer
        self._put(AskHistory(number, question, msgspec.msgpack.encode(what)))
        return True

    def _new_question(self) -> int:
        self._flush()
        self._next_question += 1
        return self._next_question

    def answered(self, reply: Reply, buffers: Sequence[Buffer], now_s: float) -> bool:
        """Take in an answer if it is to a question of our own; return whether."""
        on_answer = self._own.pop(reply.request_id, None)
        if on_answer is None:
            return False
        on_answer(reply, buffers, now_s)
        return True

    def asker(self, question: int) -> tuple[Session, int] | None:
        """Return who asked this, and under which request id; once."""
        return self._askers.pop(question, None)

    @property
    def question_count(self) -> int:
        """How many questions have no answer yet."""
        return len(self._askers) + len(self._own)

    @property
    def trouble(self) -> str:
        """Why the database takes nothing, in its words; "": it does, or there is none."""
        return self._trouble

    def dump(self) -> dict[str, object]:
        """Return its state, for a bug report."""
        return {
            "is_kept": self._start is not None,
            "pid": None if self._process is None else self._process.pid,
            "unacknowledged_envelopes": self._sender.kept_count,
            "unacknowledged_bytes": self._sender.kept_bytes,
            "held_envelopes": self._holding.count,
            "lost_records": self._lost_count,
            "trouble": self._trouble,
        }

    # -- time ------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        """Return when `see_to_timers` has something to do."""
        deadlines = [] if self._flush_by_s is None else [self._flush_by_s]
        if self._holding.awaits_records:
            deadlines.append(self._progress_s + self._limits.unrecorded_s)
        return min(deadlines, default=None)

    def see_to_timers(self, now_s: float) -> None:
        """Send what has collected long enough; start a dead recorder again."""
        if self._flush_by_s is not None and now_s >= self._flush_by_s:
            self._flush()
        if (
            self._holding.awaits_records
            and now_s >= self._progress_s + self._limits.unrecorded_s
        ):
            self._let_go()
        if self._is_finishing or now_s < self._check_s:
            return
        self._check_s = now_s + PROCESS_CHECK_PERIOD_S
        if self._is_launch_due:
            self._launch()
            return
        code = None if self._process is None else self._process.poll()
        if code is not None:
            logger.error("! the recorder ended with code %d; starting it again", code)
            self._launch()

    def is_ours(self, pid: int) -> bool:
        """Whether this process is the recorder that was started last."""
        return self._process is not None and self._process.pid == pid

    def give_up(self) -> None:
        """End a recorder that gives no sign of life; another one is started soon."""
        if self._process is None or self._is_finishing:
            return
        if self._process.poll() is None:
            logger.error("! the recorder (pid %d) gives no sign of life", self._process.pid)
            self._process.kill()

    def finish(self, turn: Callable[[], None]) -> None:
        """Wait, turning the loop, until the recorder has everything, and end it."""
        if self._process is None:
            return
        self._is_finishing = True
        self._flush()
        self._put(Goodbye("the controller ends"))
        give_up_s = self._clock() + FINISH_TIMEOUT_S
        while self._process.poll() is None and self._clock() < give_up_s:
            turn()
        if self._process.poll() is None:
            logger.error("! the recorder did not end in %g s: killed", FINISH_TIMEOUT_S)
            self._process.kill()
            self._process.wait()
        if self._lost_count:
            logger.error("! %d records were lost", self._lost_count)


def _stays(message: TaskEnded, buffers: Sequence[Buffer], client: Session) -> bool:
    """Whether a result stays with its engine until the client has it.

    Either it is too large for the database, or the client is slow, and all that it has not
    taken in would pile up here.
    """
    if buffers and not record.keeps_result(message, buffers):
        return True
    is_behind = client.bulk.sender.kept_bytes > BACKLOG_BYTES_MAX
    return is_behind and bool(message.data or buffers)
