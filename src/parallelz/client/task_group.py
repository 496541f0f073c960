"""Tasks of this client that somebody holds: whether they have ended, what is known, giving up.

What their results are is the business of `results`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from parallelz.client.connection import Connection
from parallelz.client.ledger import Answer, Submission
from parallelz.client.outcomes import Metadata, metadata_of
from parallelz.ids import TaskId
from parallelz.protocol.messages import AbortTasks, CancelTasks, Message

CANCEL_GRACE_S = 2.0
"""From the interrupt of a task that is cancelled to the end of its engine."""

Place = tuple[Submission, int]


class TaskGroup:
    """One or more tasks."""

    __slots__ = (
        "__weakref__",
        "_connection",
        "_is_single",
        "_name",
        "_picked",
        "_submission",
    )

    def __init__(
        self,
        connection: Connection,
        tasks: Submission | list[Place],
        name: str = "",
        *,
        is_single: bool,
    ) -> None:
        self._connection = connection
        self._is_single = is_single
        # All tasks of one submission, which is the usual case and must cost little; or some
        # of several.
        self._submission: Submission | None = None
        self._picked: list[Place] | None = None
        if isinstance(tasks, Submission):
            self._submission = tasks
            self._name = name or tasks.name
        else:
            self._picked = tasks
            self._name = name

    @property
    def _places(self) -> list[Place]:
        """Where the tasks are: submission and index of each."""
        if self._picked is None:
            submission = self._submission
            assert submission is not None
            self._picked = [(submission, index) for index in range(len(submission.answers))]
        return self._picked

    def _submissions(self) -> list[Submission]:
        """Return the calls that the tasks are of, each once."""
        if self._submission is not None:
            return [self._submission]
        return list(dict.fromkeys(submission for submission, _ in self._places))

    # -- have they ended? ------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether every task has ended, well or not."""
        if self._submission is not None:
            return not self._submission.pending_count
        return all(submission.answers[index] is not None for submission, index in self._places)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every task has ended; return whether it has.

        Parameters
        ----------
        timeout
            Seconds. None or negative: however long it takes. 0: only look.
        """
        if timeout is not None and timeout < 0:
            timeout = None
        if self._submission is not None:
            return self._wait_until(self.ready, timeout)
        # Goes on where the last look ended: with 100,000 tasks that matters.
        places = self._places
        first_pending = 0

        def is_done() -> bool:
            nonlocal first_pending
            while first_pending < len(places):
                submission, index = places[first_pending]
                if submission.answers[index] is None:
                    return False
                first_pending += 1
            return True

        return self._wait_until(is_done, timeout)

    def _wait_until(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for something about these tasks; return whether it has come true."""
        return self._connection.wait(is_done, timeout_s)

    def successful(self) -> bool:
        """Whether no task failed.

        Raises
        ------
        RuntimeError
            If not all have ended.
        """
        if not self.ready():
            raise RuntimeError("Cannot check successful() if not done.")
        answers = (submission.answers[index] for submission, index in self._places)
        return all(answer is not None and answer.ended.status == "ok" for answer in answers)

    # -- giving up -------------------------------------------------------------------------

    def abort(self) -> None:
        """Give up those of the tasks that have not started; see `Client.abort`.

        Raises
        ------
        RuntimeError
            If all have ended already.
        """
        if self.ready():
            raise RuntimeError("Can't abort, I am already done!")
        ids = self._pending_ids()
        self._tell(lambda number: AbortTasks(number, ids))

    def cancel(self, grace: float = CANCEL_GRACE_S) -> bool:
        """Give up the tasks, also those that run; see `Client.cancel`.

        Parameters
        ----------
        grace
            Seconds from the interrupt to the end of the engine of a task that goes on.

        Returns
        -------
        bool
            False if all tasks had ended. Otherwise they end soon, with `TaskAborted`.
        """
        if self.ready():
            return False
        ids = self._pending_ids()
        self._tell(lambda number: CancelTasks(number, ids, grace))
        self._connection.wait(lambda: False, 0)
        return not self.ready() or self.cancelled()

    def _pending_ids(self) -> list[TaskId]:
        return [
            submission.task_id(index)
            for submission, index in self._places
            if submission.answers[index] is None
        ]

    def _tell(self, request: Callable[[int], Message]) -> None:
        request_id = self._connection.ask(request)
        self._connection.wait(lambda: self._connection.has_reply(request_id))
        self._connection.take_reply(request_id)

    def cancelled(self) -> bool:
        """Whether every task has ended by being given up."""
        answers = [submission.answers[index] for submission, index in self._places]
        return all(
            answer is not None and answer.ended.status == "aborted" for answer in answers
        )

    # -- what is known of it ---------------------------------------------------------------

    @property
    def msg_ids(self) -> list[TaskId]:
        """The ids of the tasks."""
        if self._submission is not None:
            return self._submission.task_ids()
        return [submission.task_id(index) for submission, index in self._places]

    def _all_metadata(self) -> list[Metadata]:
        ledger = self._connection.ledger
        return [metadata_of(ledger, submission, index) for submission, index in self._places]

    @property
    def metadata(self) -> Metadata | list[Metadata]:
        """What is known of the task, or a list of that; at any time."""
        everything = self._all_metadata()
        return everything[0] if self._is_single else everything

    @property
    def progress(self) -> int:
        """How many results are there."""
        answers = (submission.answers[index] for submission, index in self._places)
        return sum(answer is not None for answer in answers)

    @property
    def elapsed(self) -> float:
        """Seconds since the submission, or until the last result was there."""
        if self.ready():
            return self.wall_time
        return time.time() - min(submission.submitted_s for submission, _ in self._places)

    @property
    def serial_time(self) -> float:
        """Seconds that the tasks ran, all together. TimeoutError if not all have ended."""
        spans = [
            answer.ended.completed_s - answer.ended.started_s for answer in self._answers()
        ]
        return sum(spans)

    @property
    def wall_time(self) -> float:
        """Seconds from submission to the last result. TimeoutError if not all have ended."""
        last_s = max((answer.received_s for answer in self._answers()), default=0.0)
        first_s = min((submission.submitted_s for submission, _ in self._places), default=0.0)
        return last_s - first_s

    def timedelta(
        self,
        start: datetime | Sequence[datetime],
        end: datetime | Sequence[datetime],
        start_key: Callable[[Sequence[datetime]], datetime] = min,
        end_key: Callable[[Sequence[datetime]], datetime] = max,
    ) -> float:
        """Return the seconds between two times of the metadata, of lists: min to max."""
        start = start if isinstance(start, datetime) else start_key(start)
        end = end if isinstance(end, datetime) else end_key(end)
        return (end - start) / timedelta(seconds=1)

    def _answers(self) -> list[Answer]:
        answers = [submission.answers[index] for submission, index in self._places]
        present = [answer for answer in answers if answer is not None]
        if len(present) < len(answers):
            raise TimeoutError("Result not ready.")
        return present
