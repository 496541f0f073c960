"""The controller's side of the recorder: what it is told, and what waits until it has it.

Records collect for `RECORD_PERIOD_S` and leave in one envelope. Envelopes of clients and
engines are acknowledged when the records made of them are: until then their senders keep them,
so that the death of any one process loses nothing. The recorder starts with the first record,
not with the controller, to keep out of the way of the start; a dead one is started again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from parallelz.controller.sessions import Link, Session
from parallelz.core.board import HOW
from parallelz.core.events import EndsFound, PastEnd
from parallelz.ids import SessionId, TaskId
from parallelz.protocol.envelope import Buffer, Sender
from parallelz.protocol.messages import (
    AskHistory,
    EngineInfo,
    Goodbye,
    Message,
    Reply,
    StoreRecords,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
)
from parallelz.store import record
from parallelz.store.rows import PENDING

logger = logging.getLogger(__name__)

RECORD_PERIOD_S = 0.02
RECORDS_COUNT_MAX = 1000
KEPT_BYTES_MAX = 512 * 1024 * 1024
PROCESS_CHECK_PERIOD_S = 0.5
FINISH_TIMEOUT_S = 5.0
ASKERS_COUNT_MAX = 10_000


class RecorderProcess(Protocol):
    """What is needed of a recorder's `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code; None: it lives."""

    def kill(self) -> None:
        """End it by force."""

    def wait(self) -> int:
        """Return the exit code once there is one."""


LOOKUP_KEYS = ["msg_id", "status", "engine_uuid"]


class _Found(msgspec.Struct):
    """What the history says of a task."""

    msg_id: TaskId
    status: str
    engine_uuid: SessionId | None = None

    @property
    def end(self) -> PastEnd:
        how = HOW.get(self.status, self.status)
        return PastEnd(self.status == "ok", how, self.engine_uuid or SessionId(""))


class Recording:
    """Tells the recorder everything, and knows what it has.

    Parameters
    ----------
    start
        Starts a recorder process. None: nothing is remembered.
    clock, wall_clock
        What tells the time: seconds from any origin, and Unix time.
    """

    def __init__(
        self,
        start: Callable[[], RecorderProcess] | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.link: Link | None = None
        self._start = start
        self._clock = clock
        self._wall_clock = wall_clock
        self._process: RecorderProcess | None = None
        self._check_s = 0.0
        self._is_finishing = False
        self._sender = Sender()
        self._acked_before = 0  # envelopes, by recorders that are gone
        self._acked = 0
        self._records: list[msgspec.Raw] = []
        self._flush_by_s: float | None = None
        self._holding: deque[tuple[int, Link, int]] = deque()
        self._askers: dict[int, tuple[Session, int]] = {}
        self._lookups: dict[int, list[TaskId]] = {}
        self._next_question = 1
        self._lost_count = 0
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
            self._add(record.submitted(session_id, message, name, buffers, self._wall_clock()))

    def ended(self, message: TaskEnded, engine_uuid: str, buffers: Sequence[Buffer]) -> None:
        """Remember an end."""
        if self._start is not None:
            self._add(record.ended(message, engine_uuid, buffers, self._wall_clock()))

    def engine_changed(self, engine: EngineInfo, cause: str) -> None:
        """Remember that an engine came (`cause` is ""), or went and why."""
        if self._start is not None:
            self._add(record.engine_changed(engine, cause, self._wall_clock()))

    def _add(self, item: msgspec.Raw) -> None:
        if self._sender.kept_bytes > KEPT_BYTES_MAX:
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
            self._put(StoreRecords(records))

    def _put(self, message: Message) -> None:
        self._sender.put(message)
        if self._process is None:
            self._launch()
        if self.link is not None:
            self._touch(self.link)

    def _launch(self) -> None:
        if self._start is not None:
            self._process = self._start()
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

    def acknowledged(self, number: int) -> None:
        """Take in that the recorder has everything up to this envelope of ours."""
        self._acked = max(self._acked, number)
        self._settle()

    def when_safe(self, link: Link, number: int) -> None:
        """Settle an envelope of a peer once what was made of it is recorded."""
        made = self._acked_before + self._sender.number
        target = made + bool(self._sender.waiting) + bool(self._records)
        if self._start is None or target <= self._acked_before + self._acked:
            link.receiver.settle(number)
        else:
            self._holding.append((target, link, number))

    def is_holding(self, link: Link) -> bool:
        """Whether any envelope of this link waits for the recorder."""
        return any(held is link for _, held, _ in self._holding)

    @property
    def holding_count(self) -> int:
        """How many envelopes of peers wait for the recorder."""
        return len(self._holding)

    def _settle(self) -> None:
        acked = self._acked_before + self._acked
        is_idle = not (self._sender.kept_count or self._sender.waiting or self._records)
        while self._holding and (is_idle or self._holding[0][0] <= acked):
            _, link, number = self._holding.popleft()
            link.receiver.settle(number)

    # -- questions -------------------------------------------------------------------------

    def ask(self, session: Session, message: AskHistory) -> bool:
        """Pass a question on, after all that was recorded; False: there is no recorder."""
        if self._start is None:
            return False
        question = self._next_question
        self._next_question += 1
        if len(self._askers) >= ASKERS_COUNT_MAX:
            del self._askers[next(iter(self._askers))]
        self._askers[question] = (session, message.request_id)
        self._flush()
        self._put(msgspec.structs.replace(message, request_id=question))
        return True

    def look_up(self, task_ids: list[TaskId]) -> bool:
        """Ask how tasks ended; False: there is no recorder. The answer: `looked_up`."""
        if self._start is None:
            return False
        question = self._next_question
        self._next_question += 1
        self._lookups[question] = task_ids
        query = {"query": {"msg_id": {"$in": task_ids}}, "keys": LOOKUP_KEYS}
        self._flush()
        self._put(AskHistory(question, "query", msgspec.msgpack.encode(query)))
        return True

    def looked_up(self, reply: Reply, buffers: Sequence[Buffer]) -> EndsFound | None:
        """Return what the history says of tasks, if this is the answer to `look_up`."""
        task_ids = self._lookups.pop(reply.request_id, None)
        if task_ids is None:
            return None
        if reply.error is not None:
            return EndsFound(task_ids, {}, reply.error.evalue)
        data = buffers[0] if buffers else reply.data
        found = msgspec.msgpack.decode(data, type=list[_Found])
        ends = {each.msg_id: each.end for each in found if each.status != PENDING}
        return EndsFound(task_ids, ends)

    def asker(self, question: int) -> tuple[Session, int] | None:
        """Return who asked this, and under which request id; once."""
        return self._askers.pop(question, None)

    @property
    def question_count(self) -> int:
        """How many questions have no answer yet."""
        return len(self._askers) + len(self._lookups)

    def dump(self) -> dict[str, object]:
        """Return its state, for a bug report."""
        return {
            "is_kept": self._start is not None,
            "pid": None if self._process is None else self._process.pid,
            "unacknowledged_envelopes": self._sender.kept_count,
            "unacknowledged_bytes": self._sender.kept_bytes,
            "held_envelopes": len(self._holding),
            "lost_records": self._lost_count,
        }

    # -- time ------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        """Return when `see_to_timers` has something to do."""
        return self._flush_by_s

    def see_to_timers(self, now_s: float) -> None:
        """Send what has collected long enough; start a dead recorder again."""
        if self._flush_by_s is not None and now_s >= self._flush_by_s:
            self._flush()
        if self._process is None or self._is_finishing or now_s < self._check_s:
            return
        self._check_s = now_s + PROCESS_CHECK_PERIOD_S
        code = self._process.poll()
        if code is not None:
            logger.error("! the recorder ended with code %d; starting it again", code)
            self._launch()

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
