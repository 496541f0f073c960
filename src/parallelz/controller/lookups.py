"""What the history is asked about tasks that the core does not know.

What nobody knows may be the task of another client whose submission is still on its way: its
user may have passed the id on faster than its connection did the task. As long as that client
is here it is waited for, at most `ON_ITS_WAY_S`, which is more than it takes to notice a broken
line and to make a new one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from parallelz.controller.recording import Recording
from parallelz.controller.sessions import Sessions
from parallelz.core.board import HOW
from parallelz.core.events import EndsFound, PastEnd
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId, TaskId
from parallelz.protocol.answers import content_of
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import Reply
from parallelz.store.rows import PENDING

KEYS = ["msg_id", "status", "engine_uuid"]
ON_ITS_WAY_S = 20.0
ASK_AGAIN_PERIOD_S = 1.0


class _Found(msgspec.Struct):
    """What the history says of a task."""

    msg_id: TaskId
    status: str
    engine_uuid: SessionId | None = None

    @property
    def end(self) -> PastEnd:
        how = HOW.get(self.status, self.status)
        return PastEnd(self.status == "ok", how, self.engine_uuid or SessionId(""))


class LookUps:
    """Finds out how tasks ended that the core knows no more.

    Parameters
    ----------
    scheduler
        Knows whether anybody still wants to know.
    sessions
        Know which clients are here.
    recording
        Is asked.
    on_found
        Called with what was found out later, and the time.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        sessions: Sessions,
        recording: Recording,
        on_found: Callable[[EndsFound, float], None],
    ) -> None:
        self._scheduler = scheduler
        self._sessions = sessions
        self._recording = recording
        self._on_found = on_found
        self._coming: dict[TaskId, float] = {}  # may be on their way, and until when
        self._ask_again_s = math.inf

    def ask(self, task_ids: list[TaskId], now_s: float) -> EndsFound | None:
        """Begin to find out how these ended; return what is known at once, if anything is."""

        def take(reply: Reply, buffers: Sequence[Buffer], now_s: float) -> None:
            ends: dict[TaskId, PastEnd] = {}
            trouble = ""
            if reply.error is not None:
                trouble = reply.error.evalue
            else:
                found = msgspec.msgpack.decode(content_of(reply, buffers), type=list[_Found])
                ends = {each.msg_id: each.end for each in found if each.status != PENDING}
            self._tell(self._settled(task_ids, ends, trouble, now_s), now_s)

        query = {"query": {"msg_id": {"$in": task_ids}}, "keys": KEYS}
        if self._recording.inquire("query", query, take):
            return None
        return self._settled(task_ids, {}, "this cluster keeps no history", now_s)

    def _tell(self, found: EndsFound | None, now_s: float) -> None:
        if found is not None:
            self._on_found(found, now_s)

    def _settled(
        self,
        task_ids: list[TaskId],
        ends: Mapping[TaskId, PastEnd],
        trouble: str,
        now_s: float,
    ) -> EndsFound | None:
        settled = [each for each in task_ids if each in ends or not self._may_come(each, now_s)]
        for task_id in settled:
            self._coming.pop(task_id, None)
        if self._coming and self._ask_again_s == math.inf:
            self._ask_again_s = now_s + ASK_AGAIN_PERIOD_S
        return EndsFound(settled, dict(ends), trouble) if settled else None

    def _may_come(self, task_id: TaskId, now_s: float) -> bool:
        """Whether the client that names its tasks so is here and may be about to submit it."""
        name, _, digits = task_id.rpartition("-")
        session = self._sessions.by_id.get(SessionId(name))
        if session is None or session.role != "client" or not digits.isdecimal():
            return False
        if self._scheduler.board.ended.is_passed(session.id, int(digits)):
            return False
        return now_s < self._coming.setdefault(task_id, now_s + ON_ITS_WAY_S)

    # -- time ------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        """Return when `see_to_timers` has something to do."""
        return self._ask_again_s if self._coming else None

    def see_to_timers(self, now_s: float) -> None:
        """Ask again for what may be on its way and has not come."""
        if now_s < self._ask_again_s:
            return
        self._ask_again_s = math.inf
        awaited = self._scheduler.board.waits.by_task
        live = self._scheduler.tasks
        self._coming = {
            task_id: until_s
            for task_id, until_s in self._coming.items()
            if task_id in awaited and task_id not in live
        }
        if self._coming:
            self._tell(self.ask(list(self._coming), now_s), now_s)
