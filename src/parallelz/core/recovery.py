"""What had started where, when a controller takes the place of a dead one.

Theory of operation
-------------------
The history says which tasks have not ended and which engines there were, but not which engine
has started what: only they know. So all tasks are *held* until each of these engines has come
back and has said so, or is gone. What an engine has started is placed there. What an engine
that is gone has started is retried, or ends with its loss; if nobody can say what it had
started, that is so for all that it may have had. The rest goes on as if just submitted.

A client that comes back sends again what had not been acknowledged. The history may know
nothing of these tasks, though they have started or even ended. So what engines say of tasks
that nobody knows is kept, as *claims*, until the client has sent everything again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from parallelz.core.board import Board
from parallelz.core.ended import NOWHERE
from parallelz.core.events import AnnounceLoss, EngineLost, StopTask
from parallelz.core.task import PLACED, WAITING, Task
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo, EngineReturned, ErrorInfo

LOST = "it had been answered before the controller was restarted, nobody knows any more how"


class Claim(NamedTuple):
    """An engine says that it has started a task which is not known here."""

    session_id: SessionId
    run: int


class Loss(NamedTuple):
    """An engine is gone, and nobody knows what it had started."""

    engine: EngineInfo
    error: ErrorInfo

    def may_have_had(self, task: Task) -> bool:
        """Whether a task may have been placed there."""
        options = task.options
        if task.engine_ids is not None:
            return self.engine.engine_id in task.engine_ids
        if options is None:
            return True
        has = self.engine.resources
        return (
            (options.engine_ids is None or self.engine.engine_id in options.engine_ids)
            and set(options.labels) <= set(self.engine.labels)
            and all(has.get(name, 0.0) >= need for name, need in options.resources.items())
        )


class Awaited:
    """Numbers of tasks, as the pairs of first and last ones that a client gave."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = sorted(ranges)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._ranges, (number, float("inf"))) - 1
        return place >= 0 and number <= self._ranges[place][1]


class Recovery:
    """Holds tasks until it is known whether they have started.

    Parameters
    ----------
    board
        Where tasks are moved.
    admit
        Called with each task that may run, as if it had just been submitted.

    Attributes
    ----------
    is_needed
        Whether a task that comes may be one of the time before.
    """

    def __init__(self, board: Board, admit: Callable[[Task], None]) -> None:
        self.is_needed = False
        self._board = board
        self._roster = board.roster
        self._admit = admit
        self._is_loading = False
        self._is_patient = False  # clients may still say what they have no answer for
        self._absent: dict[SessionId, EngineInfo] = {}
        self._held: dict[TaskId, tuple[Task, bool]] = {}  # and whether it may have started
        self._claims: dict[SessionId, dict[TaskId, Claim | ErrorInfo]] = {}  # by client
        self._losses: list[Loss] = []
        self._returning: dict[SessionId, None] = {}  # clients that send again
        self._awaited: dict[SessionId, Awaited] = {}

    @property
    def is_holding(self) -> bool:
        """Whether every task waits until it is known what has started."""
        return self._is_loading or self._is_patient or bool(self._absent)

    def why(self, task_id: TaskId) -> str:
        """Return why a task is held; "": it is not."""
        if task_id not in self._held or not self.is_holding:
            return ""
        engine_ids = sorted(engine.engine_id for engine in self._absent.values())
        return (
            "the controller was restarted, and it is not known yet whether this has started:"
            f" engines {engine_ids} have not come back"
        )

    # -- tasks -----------------------------------------------------------------------------

    def takes(self, task: Task) -> bool:
        """Take a new task if it is not simply to be run; return whether."""
        claims = self._claims.get(task.session_id)
        claim = None if claims is None else claims.pop(task.id, None)
        if claim is not None:
            return self._settle(task, claim)
        is_old = self._is_loading or task.session_id in self._returning
        if self.is_holding:
            self._held[task.id] = (task, is_old)
            task.unresolved += 1
            return True
        return is_old and self._is_over_for(task)

    def _settle(self, task: Task, claim: Claim | ErrorInfo) -> bool:
        if isinstance(claim, ErrorInfo):
            return self._lose_started(task, claim)
        engine = self._roster.by_session.get(claim.session_id)
        if engine is not None:
            self._board.adopt(task, engine, claim.run)
            return True
        return self._lose_started(task, ErrorInfo("EngineError", "its engine is gone"))

    def _lose_started(
        self, task: Task, error: ErrorInfo, engine_id: EngineId = NOWHERE
    ) -> bool:
        """Count a start that came to nothing; return whether the task ends with it."""
        task.run_count += 1
        if task.retries_left:
            task.retries_left -= 1
            return False
        self._board.end(task, "engine-lost", engine_id=engine_id, error=error)
        return True

    def _is_over_for(self, task: Task) -> bool:
        """End a task of the time before that must not run (again); return whether."""
        awaited = self._awaited.get(task.session_id)
        if awaited is not None and task.number not in awaited:
            self._board.end(task, "lost", error=ErrorInfo("TaskLost", LOST))
            return True
        for loss in self._losses:
            if loss.may_have_had(task):
                return self._lose_started(task, loss.error, loss.engine.engine_id)
        return False

    def _release(self) -> None:
        """Let all that is held go on, in the order in which it came."""
        held, self._held = self._held, {}
        for task, is_old in held.values():
            if task.state is not WAITING:
                continue  # it was aborted, or is where it had started
            task.unresolved -= 1
            if not (is_old and self._is_over_for(task)):
                self._admit(task)
        for session_id in [s for s in self._awaited if s not in self._returning]:
            del self._awaited[session_id]
        self._see_if_needed()

    # -- engines ---------------------------------------------------------------------------

    def begin(self, engines: Sequence[EngineInfo]) -> None:
        """Hold all tasks from now on; these engines were there."""
        self._is_loading = self._is_patient = self.is_needed = True
        self._absent = {engine.session_id: engine for engine in engines}

    def loaded(self) -> None:
        """Take in that all tasks of the history have come."""
        self._is_loading = False

    def be_impatient(self) -> None:
        """Wait for clients no longer."""
        self._is_patient = False
        if not self.is_holding:
            self._release()

    def take_back(self, event: EngineReturned, source: SessionId) -> None:
        """Take in what an engine, which has joined, had started."""
        engine = self._roster.by_session.get(source)
        if engine is None:
            return
        is_stale = False  # what it may run now goes on elsewhere, or has ended
        for task_id, run in zip(event.started, event.runs, strict=False):
            held = self._held.get(task_id)
            is_stale = False
            if held is not None and held[0].state is WAITING:
                del self._held[task_id]  # it may wait again, but not for this
                held[0].unresolved = 0
                self._board.adopt(held[0], engine, run)
            elif (task := self._board.tasks.get(task_id)) is not None:
                is_stale = not self._has_come_from(task, run)
                if not is_stale:
                    self._board.adopt(task, engine, run)
            elif self._board.has_ended(task_id):
                is_stale = True
            else:
                self._claim(task_id, Claim(source, run))
        if event.started_count >= 0:
            engine.ended_count = max(event.started_count - engine.adopted_count, 0)
        if is_stale:
            stop = StopTask(engine.id, event.started[-1], event.runs[-1])
            self._board.actions.append(stop)
        self._arrived(source)

    def _has_come_from(self, task: Task, run: int) -> bool:
        """Take a task from an engine that was said to have it and had an earlier run of it."""
        if task.state is not PLACED or task.placed_count >= run:
            return False
        assert task.engine_id is not None
        other = self._roster.engines[task.engine_id]
        self._board.release(task, other)
        other.ended_count += 1
        return True

    def _claim(self, task_id: TaskId, claim: Claim | ErrorInfo) -> None:
        claims = self._claims.setdefault(SessionId(task_id.rpartition("-")[0]), {})
        known = claims.get(task_id)
        if isinstance(known, Claim) and isinstance(claim, Claim) and known.run > claim.run:
            return  # that engine has it no more: it ran there before
        claims[task_id] = claim
        self.is_needed = True

    def lose(self, event: EngineLost) -> None:
        """Take in that an engine is gone which was waited for, or of which nothing is known."""
        info = self._absent.get(event.session_id)
        text = f"its engine is gone: {event.cause}"
        engine_id = NOWHERE
        if info is not None:
            engine_id = info.engine_id
            text = (
                f"engine {info.engine_id} (pid {info.peer.pid} on {info.peer.host}) is gone:"
                f" {event.cause}"
            )
            self._roster.note_gone(info.engine_id, text)
            self._board.actions.append(AnnounceLoss(info.engine_id, event.cause))
            if event.started_count < 0:
                doubt = f"{text}; nobody can say whether it had started this task"
                self._losses.append(Loss(info, ErrorInfo("EngineError", doubt)))
        error = ErrorInfo("EngineError", text)
        for task_id in event.started:
            held = self._held.get(task_id)
            if held is not None and held[0].state is WAITING:
                self._lose_started(held[0], error, engine_id)
            elif task_id not in self._board.tasks and not self._board.has_ended(task_id):
                self._claim(task_id, error)
        self._arrived(event.session_id)

    def _arrived(self, session_id: SessionId) -> None:
        if self._absent.pop(session_id, None) is not None and not self.is_holding:
            self._release()

    # -- clients ---------------------------------------------------------------------------

    def client_returns(self, session_id: SessionId, awaited: Sequence[tuple[int, int]]) -> None:
        """Take in that a client sends again what may have come before."""
        self._returning[session_id] = None
        self.is_needed = True
        self._awaited[session_id] = Awaited(awaited)

    def claiming_clients(self) -> list[SessionId]:
        """Return whose tasks some engine has started that are not known here."""
        return list(self._claims)

    def client_has_returned(self, session_id: SessionId) -> None:
        """Take in that from now on all that it sends is new."""
        self._returning.pop(session_id, None)
        self._claims.pop(session_id, None)
        if not self.is_holding:
            self._awaited.pop(session_id, None)
        self._see_if_needed()

    def _see_if_needed(self) -> None:
        self.is_needed = bool(self.is_holding or self._returning or self._claims)
