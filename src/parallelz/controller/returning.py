"""Peers that come back to a controller which does not know them any more.

An engine says what it had started (`EngineReturned`). A client says what it waits for
(`ResumeTasks`) and sends again what had not been acknowledged; what had ended in the meantime
is looked up in the history, before anything that it sends is dealt with, so that nothing of it
runs a second time.

A result may come before the client has sent the task again that it belongs to: such *strays*
are kept until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from parallelz.controller.attendance import Attendance
from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Link, Session, Sessions
from parallelz.controller.tasks import Tasks, ids_of
from parallelz.core.ended import NOWHERE
from parallelz.core.events import ClientReturned, ClientReturns, EndsKnown, EngineLost
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId, TaskId, task_id_of
from parallelz.protocol.answers import content_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    EngineDied,
    EngineInfo,
    EngineReturned,
    ErrorInfo,
    Reply,
    ResumeTasks,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskFinished,
    TasksDropped,
)
from parallelz.store.ended_record import ended_from
from parallelz.store.restored import Ends, FindEnds

logger = logging.getLogger(__name__)

LOOKED_UP_COUNT = 1000  # ids in one question
ASK_AGAIN_S = 1.0
NOBODY_KNOWS = (
    "the controller was restarted, and neither the history nor an engine knows of this task;"
    " whether it has run cannot be told"
)
AWAITED_COUNT_MAX = 50_000_000

CatchUp = Callable[[Session, float], None]


class _Stray(NamedTuple):
    message: TaskFinished
    engine: SessionId
    buffers: Sequence[Buffer]


class _Loss(NamedTuple):
    """An engine died that had started tasks which are not known (yet)."""

    engine: EngineInfo
    cause: str
    clients: set[SessionId]  # which may send these tasks again


class _Resume:
    """The return of a client, until what it waits for and sends again was looked up."""

    def __init__(self, session: Session, message: ResumeTasks) -> None:
        self.session = session
        start = session.bulk.receiver.start
        self.last_number = start + message.envelope_count + 1  # on `bulk`; then comes new
        self.has_begun = False
        self.awaited = message.awaited
        self.asked: list[TaskId] = []
        self.unknown: list[TaskId] = []  # neither live nor ended, as far as the history knows
        self.ask_again_s = float("inf")
        self._to_ask: Iterator[TaskId] = iter(())

    def begin(self) -> None:
        """Take in that all that is sent again is in the backlog."""
        self.has_begun = True
        sent_again = {
            task_id: None
            for _, _, message, _ in self.session.backlog
            if isinstance(message, SubmitTask | SubmitMap | SubmitDirect)
            for task_id in ids_of(self.session.id, message)
        }
        self._to_ask = chain(self._awaited_ids(), sent_again)

    def _awaited_ids(self) -> Iterator[TaskId]:
        for first, last in self.awaited:
            for number in range(first, last + 1):
                yield task_id_of(self.session.id, number)

    def next_ids(self, is_live: Callable[[TaskId], bool]) -> list[TaskId]:
        """Return the ids to ask for next; []: there are no more."""
        if not self.asked:
            ids = (task_id for task_id in self._to_ask if not is_live(task_id))
            self.asked = list(dict.fromkeys(islice(ids, LOOKED_UP_COUNT)))
        return self.asked


class Returning:
    """Brings peers that come back and the core together.

    Parameters
    ----------
    scheduler, tasks, recording, attendance, sessions
        The parts of the controller that it works with.
    touch
        Called with each link that has something to send.
    catch_up
        Called when the backlog of a session can be dealt with, and with the time.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        tasks: Tasks,
        recording: Recording,
        attendance: Attendance,
        sessions: Sessions,
        touch: Callable[[Link], None],
        catch_up: CatchUp,
    ) -> None:
        self._scheduler = scheduler
        self._tasks = tasks
        self._recording = recording
        self._attendance = attendance
        self._sessions = sessions
        self._touch = touch
        self._catch_up = catch_up
        self._resumes: dict[SessionId, _Resume] = {}
        self._strays: dict[SessionId, dict[TaskId, list[_Stray]]] = {}  # by client
        self._unheard: dict[SessionId, list[TaskId]] = {}  # what dead engines had started
        self._losses: list[_Loss] = []
        self._kept_back: list[_Stray] = []
        self._until_s: float | None = None  # strays are kept

    @property
    def is_open(self) -> bool:
        """Whether there may be peers that come back, and results of unknown tasks."""
        return self._until_s is not None

    @property
    def open_count(self) -> int:
        """How much is not over: returns of clients, and strays."""
        strays_count = sum(map(len, self._strays.values()))
        return len(self._resumes) + strays_count + len(self._kept_back)

    # -- engines ---------------------------------------------------------------------------

    def engine_returned(self, session: Session, message: EngineReturned, now_s: float) -> None:
        """Take in what an engine had started, and then what it said before that."""
        session.is_introduced = True
        if not session.is_returning:
            return  # it says again what it told a controller before us
        self._until_s = now_s + self._attendance.limits.client_grace_s
        session.is_returning = False
        self._attendance.join(session, now_s)
        self._tasks.handle(message, session.id, now_s)
        self._catch_up(session, now_s)

    def keeps(
        self, link: Link, message: TaskFinished | TasksDropped, buffers: Sequence[Buffer]
    ) -> bool:
        """Keep a result whose task is not known, if it may become so; return whether.

        The engine keeps it as well, until the task has ended and that is recorded.
        """
        if isinstance(message, TasksDropped):
            return self._is_unasked(link.session.id)
        if self._is_known(message.task_id):
            return self._keeps_back(_Stray(message, link.session.id, buffers))
        task_id = message.task_id
        strays = self._strays.setdefault(SessionId(task_id.rpartition("-")[0]), {})
        strays.setdefault(task_id, []).append(_Stray(message, link.session.id, buffers))
        self._recording.hold_until_ended(link, [task_id])
        return True

    def _is_unasked(self, engine: SessionId) -> bool:
        """Whether an engine gives back what a controller before us had recalled.

        It may have got that anew.
        """
        known = self._scheduler.roster.by_session.get(engine)
        return known is None or not known.recall_count

    def _keeps_back(self, stray: _Stray) -> bool:
        """Keep a result by which a task would run again, if another engine may have it since.

        Until all engines of before have said what they had.
        """
        message = stray.message
        task = self._scheduler.tasks.get(message.task_id)
        if task is None or not self._scheduler.recovery.is_holding:
            return False
        is_last = task.is_direct or (message.status == "error" and not task.retries_left)
        if message.status == "ok" or is_last:
            return False
        self._kept_back.append(stray)
        return True

    def engine_died(self, link: Link, death: EngineDied, now_s: float) -> None:
        """Take in that an engine is dead, which may be one of before.

        Its loss is recorded when all that it had started is known. Until then its supervisor
        keeps what it said, and a next controller would expect the engine and hear it again.
        """
        session = self._sessions.by_id.get(death.session_id)
        if session is not None and session.role != "engine":
            return
        unknown = [t for t in death.started if self.is_open and not self._is_known(t)]
        clients: set[SessionId] = set()
        if unknown:
            self._recording.hold_until_ended(link, unknown)
        for task_id in unknown:
            client = SessionId(task_id.rpartition("-")[0])
            clients.add(client)
            self._unheard.setdefault(client, []).append(task_id)
        if session is not None:
            if session.engine is not None and unknown:
                self._losses.append(_Loss(session.engine, death.cause, clients))
            self._attendance.lose(session, death, now_s, record=not unknown)
        elif unknown:
            lost = EngineLost(death.session_id, death.cause, death.started_count, unknown)
            self._tasks.handle(lost, death.session_id, now_s)

    def _drop_strays(self, client: SessionId) -> None:
        """Take in that nothing more of the time before comes from a client."""
        for task_id in [*self._strays.pop(client, ()), *self._unheard.pop(client, ())]:
            self._recording.will_not_end(task_id)
        for loss in self._losses:
            loss.clients.discard(client)
        for loss in [loss for loss in self._losses if not loss.clients]:
            self._losses.remove(loss)
            self._recording.engine_changed(loss.engine, loss.cause)

    def _is_known(self, task_id: TaskId) -> bool:
        board = self._scheduler.board
        return task_id in board.tasks or board.has_ended(task_id)

    def submitted(
        self,
        client: SessionId,
        message: SubmitTask | SubmitMap | SubmitDirect,
        now_s: float,
    ) -> None:
        """Bring strays to tasks that have just come."""
        strays = self._strays.get(client)
        if not strays:
            return
        for task_id in ids_of(client, message):
            if task_id in strays and task_id not in self._scheduler.tasks:
                self._recording.will_not_end(task_id)  # it had ended before
            for stray in strays.pop(task_id, ()):
                if not self._keeps_back(stray):
                    self._tasks.handle(stray.message, stray.engine, now_s, stray.buffers)

    # -- clients ---------------------------------------------------------------------------

    def resume(self, session: Session, message: ResumeTasks, now_s: float) -> None:
        """Take in what a client waits for."""
        if not session.is_returning or session.id in self._resumes:
            return
        if sum(max(last - first, 0) for first, last in message.awaited) > AWAITED_COUNT_MAX:
            logger.warning("! %r waits for more than anybody can", session)
            message = ResumeTasks([], message.envelope_count)
        self._tasks.handle(ClientReturns(session.id, message.awaited), session.id, now_s)
        self._resumes[session.id] = _Resume(session, message)

    def received(self, link: Link, number: int, now_s: float) -> None:
        """Take in that an envelope of a peer that returns is in its backlog."""
        resume = self._resumes.get(link.session.id)
        if resume is None or resume.has_begun or link is not link.session.bulk:
            return
        if number >= resume.last_number:
            resume.begin()
            self._ask(resume, now_s)

    def _ask(self, resume: _Resume, now_s: float) -> None:
        resume.ask_again_s = float("inf")
        while ids := resume.next_ids(self._scheduler.tasks.__contains__):
            take = partial(self._take_ends, resume)
            if self._recording.inquire("ends", FindEnds(ids), take):
                return
            resume.unknown += ids
            resume.asked = []
        resume.session.is_returning = False
        self._catch_up(resume.session, now_s)

    def _take_ends(
        self, resume: _Resume, reply: Reply, buffers: Sequence[Buffer], now_s: float
    ) -> None:
        session = resume.session
        if self._resumes.get(session.id) is not resume:
            return  # it went away again
        if reply.error is not None:
            resume.ask_again_s = now_s + ASK_AGAIN_S
            return
        ends = msgspec.msgpack.decode(content_of(reply, buffers), type=Ends)
        answered: dict[TaskId, None] = {}
        for record in ends.ended:
            ended, frames = ended_from(record)
            answered[ended.task_id] = None
            session.bulk.put(ended, frames)
        self._touch(session.bulk)
        numbers = [int(task_id.rpartition("-")[2]) for task_id in answered]
        self._tasks.handle(EndsKnown(session.id, numbers), session.id, now_s)
        looked_up = resume.asked[: ends.looked_up_count]
        resume.unknown += [task_id for task_id in looked_up if task_id not in answered]
        resume.asked = resume.asked[ends.looked_up_count :]
        self._ask(resume, now_s)

    def handled(self, link: Link, number: int, now_s: float) -> None:
        """Take in that an envelope was dealt with; it may be the last that was sent again."""
        resume = self._resumes.get(link.session.id)
        if resume is not None and link is link.session.bulk and number >= resume.last_number:
            del self._resumes[link.session.id]
            self._end(resume, now_s)

    def _end(self, resume: _Resume, now_s: float) -> None:
        """Answer what nobody knows."""
        session = resume.session
        self._drop_strays(session.id)
        self._tasks.handle(ClientReturned(session.id), session.id, now_s)
        error = ErrorInfo("TaskLost", NOBODY_KNOWS)
        for task_id in resume.unknown:
            if not self._is_known(task_id):
                ended = TaskEnded(task_id, "lost", NOWHERE, error=error)
                session.bulk.put(ended)
                self._recording.ended(ended, (), None, session)
        self._touch(session.bulk)

    # -- time ------------------------------------------------------------------------------

    def begin(self, now_s: float) -> None:
        """Expect peers of before a restart."""
        self._until_s = now_s + self._attendance.limits.client_grace_s

    def next_deadline_s(self) -> float | None:
        """Return when `see_to_timers` has something to do."""
        deadlines = [resume.ask_again_s for resume in self._resumes.values()]
        if self._until_s is not None:
            deadlines.append(self._until_s)
        if self._kept_back and not self._scheduler.recovery.is_holding:
            deadlines.append(0.0)  # at once
        return min(deadlines, default=None)

    def see_to_timers(self, now_s: float) -> None:
        """Ask again what the database could not answer; forget clients that do not return."""
        for session_id, resume in list(self._resumes.items()):
            if self._sessions.by_id.get(session_id) is not resume.session:
                del self._resumes[session_id]
            elif now_s >= resume.ask_again_s:
                self._ask(resume, now_s)
        if self._kept_back and not self._scheduler.recovery.is_holding:
            kept_back, self._kept_back = self._kept_back, []
            for stray in kept_back:
                self._tasks.handle(stray.message, stray.engine, now_s, stray.buffers)
        if self._until_s is None or now_s < self._until_s:
            return
        self._until_s = None
        claiming = self._scheduler.recovery.claiming_clients()
        absent = {*self._strays, *self._unheard, *claiming}
        for session_id in absent - self._resumes.keys():
            self._drop_strays(session_id)
            self._tasks.handle(ClientReturned(session_id), session_id, now_s)
