"""The time before a restart, as the history tells it, taken in page by page."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from parallelz.controller.attendance import Attendance
from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Definition, Sessions
from parallelz.controller.tasks import Tasks
from parallelz.core.events import RecoveryBegan, RecoveryLoaded, RecoveryMayEnd
from parallelz.ids import Digest, SessionId
from parallelz.protocol.answers import content_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import Reply
from parallelz.store.restored import Restored, RestoreTasks

logger = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0
GIVE_UP_S = 60.0
PATIENCE_S = 2.0


class Restoring:
    """Asks the recorder what there was, and makes it live again.

    Until it is loaded nobody but the recorder is let in; then clients have `PATIENCE_S` to come
    back and say what they have answers for, before anything runs, and new engines as long to
    wait. If the database cannot be read for `GIVE_UP_S` the cluster goes on without; clients
    are told what is lost.

    Parameters
    ----------
    tasks, sessions, attendance, recording
        The parts of the controller that it works with.
    """

    def __init__(
        self, tasks: Tasks, sessions: Sessions, attendance: Attendance, recording: Recording
    ) -> None:
        self.is_over = True
        self._tasks = tasks
        self._sessions = sessions
        self._attendance = attendance
        self._recording = recording
        self._functions: dict[Digest, Definition] = {}
        self._after = 0
        self._count = 0
        self._has_begun = False
        self._is_holding = False  # nothing runs yet, as clients may come back
        self._knows_engines = False
        self._ask_again_s = float("inf")
        self._give_up_s = float("inf")
        self._patient_until_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Start to ask; call it once, before the first turn."""
        self.is_over = False
        self._attendance.is_closed = self._attendance.holds_newcomers = True
        self._give_up_s = now_s + GIVE_UP_S
        self._ask(now_s)

    def _ask(self, now_s: float) -> None:
        self._ask_again_s = float("inf")
        if not self._recording.inquire("restore", RestoreTasks(self._after), self._take):
            self._end(now_s)

    def _take(self, reply: Reply, buffers: Sequence[Buffer], now_s: float) -> None:
        if self.is_over:
            return
        if reply.error is not None:
            logger.error("! the time before cannot be read: %s", reply.error.evalue)
            self._ask_again_s = now_s + ASK_AGAIN_S
            return
        data = content_of(reply, buffers)
        page = msgspec.msgpack.decode(data, type=Restored)
        if not self._has_begun:
            self._begin_with(page, now_s)
        for function in page.functions:
            known = Definition(function.name, function.data, function.frames)
            self._functions[function.digest] = known
        for task in page.tasks:
            if task.client not in self._sessions.by_id:
                self._attendance.expect(self._sessions.expect_client(task.client), now_s)
            definition = self._functions.get(task.digest)
            if definition is not None and task.is_whole:
                self._tasks.restore(task, definition, now_s)
                self._count += 1
            # Of the others the client still has what is missing, and sends it again.
        self._after = page.next
        if page.next:
            self._ask(now_s)
        else:
            self._end(now_s)

    def _begin_with(self, page: Restored, now_s: float) -> None:
        self._has_begun = True
        # None: the first was not recorded yet, or nothing is. Then give all some time.
        self._knows_engines = bool(page.engines)
        self._sessions.skip_engine_ids(page.engine_count)
        self._tasks.handle(RecoveryBegan(page.engines), SessionId(""), now_s)
        for engine in page.engines:
            self._attendance.expect(self._sessions.expect_engine(engine), now_s)

    def _end(self, now_s: float) -> None:
        self.is_over = True
        self._functions.clear()
        logger.info("= restored %d tasks that have not ended", self._count)
        if not self._has_begun:
            self._begin_with(Restored([], [], 0), now_s)
        self._tasks.handle(RecoveryLoaded(), SessionId(""), now_s)
        self._is_holding = True
        self._patient_until_s = now_s + PATIENCE_S
        self._attendance.open(now_s)

    def next_deadline_s(self) -> float | None:
        """Return when `see_to_timers` has something to do."""
        if self.is_over:
            return self._patient_until_s
        return min(self._ask_again_s, self._give_up_s)

    def see_to_timers(self, now_s: float) -> None:
        """Ask again, or go on without; end the patience with clients."""
        if self._patient_until_s is not None:
            self._be_patient(now_s, self._patient_until_s)
        if self.is_over:
            return
        if now_s >= self._give_up_s:
            logger.error("! goes on without the time before: it cannot be read")
            self._end(now_s)
        elif now_s >= self._ask_again_s:
            self._ask(now_s)

    def _be_patient(self, now_s: float, until_s: float) -> None:
        clients = self._sessions.of_role("client")
        is_due = now_s >= until_s
        if self._is_holding and (
            is_due
            or (self._knows_engines and not any(session.is_returning for session in clients))
        ):
            self._is_holding = False
            self._tasks.handle(RecoveryMayEnd(), SessionId(""), now_s)
        if is_due:
            self._patient_until_s = None
            self._attendance.holds_newcomers = False
            self._attendance.open(now_s)
