"""Engines as a `concurrent.futures.Executor`, for programs that are written for one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from itertools import islice
from typing import Any, SupportsIndex, TypeVar

from parallelz.client.connection import Connection
from parallelz.client.definitions import UserFunction
from parallelz.client.imap import Chunk, call_for, chunks_of
from parallelz.client.ledger import Submission
from parallelz.client.outcomes import Failed, outcome_of
from parallelz.errors import ClientClosed, ClusterError
from parallelz.ids import TaskId
from parallelz.option_values import integer_of
from parallelz.protocol.payload import PLAIN, Call

T = TypeVar("T")

Arguments = Any

CANCEL_PATIENCE_S = 0.25
"""For an engine to say whether a task that was placed there has started."""


class TaskFuture(Future[T]):
    """The result of a task, as a `concurrent.futures.Future`. Made by `ViewExecutor.submit`.

    Attributes
    ----------
    msg_id
        Of its task: ``rc.get_result(future.msg_id)`` is the AsyncResult of the same task.

    Notes
    -----
    Callbacks run on a thread for callbacks, one after the other, and may wait for results.
    `running` is True from a call of `cancel` that came too late; before that nobody asks.
    """

    def __init__(self, executor: ViewExecutor, submission: Submission) -> None:
        super().__init__()
        self._executor = executor
        self._submission = submission
        self._is_taken = False  # somebody is about to set its result
        self.msg_id: TaskId = submission.task_id(0)

    def cancel(self) -> bool:
        """Give up the task if it has not started; return whether it will not run."""
        if not self.done():
            self._executor.give_up([self])
        return self.cancelled()

    def result(self, timeout: float | None = None) -> T:
        """Wait and return what the function returned, or raise what it raised.

        Raises
        ------
        TimeoutError
            It has not ended in time, and goes on.
        concurrent.futures.CancelledError
            It was cancelled or aborted.
        EngineError
            Its engine died.
        concurrent.futures.BrokenExecutor
            The client was closed, or the controller has ended, before the result came.
        """
        self._await(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what the function raised, None if it returned; see `result`."""
        self._await(timeout)
        return super().exception()

    def _await(self, timeout: float | None) -> None:
        # This thread may drive the connection by itself, which is faster than being woken.
        if not self.done() and not self._executor.wait_for([self], timeout):
            raise TimeoutError("the task has not ended in time")

    @property
    def has_ended(self) -> bool:
        """Whether its answer is there, or there is none to come."""
        return not self._submission.pending_count or self.done()

    def take_answer(self) -> None:
        """Set the result to what has come."""
        answer = self._submission.answers[0]
        assert answer is not None
        if not self._take():
            return
        if answer.ended.status == "aborted" and super().cancel():
            self.set_running_or_notify_cancel()
            return
        outcome: Any = outcome_of(self._executor.connection.ledger, answer, "")
        if not self.running():
            self.set_running_or_notify_cancel()
        if isinstance(outcome, Failed):
            self.set_exception(outcome.error)
        else:
            self.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Set what there is instead of a result that will not come."""
        if self._take():
            if not self.running():
                self.set_running_or_notify_cancel()
            self.set_exception(error)

    def note_running(self) -> None:
        """Take in that it could not be given up."""
        with self._executor.lock:
            if not (self._is_taken or self.running()):
                self.set_running_or_notify_cancel()

    def _take(self) -> bool:
        """Whether the caller is the one to set the result: only the first is."""
        with self._executor.lock:
            is_first, self._is_taken = not self._is_taken, True
        return is_first


class ViewExecutor(Executor):
    """Runs calls on the engines of a view. Made by ``view.executor`` and ``rc.executor()``.

    The engines belong to others: `shutdown` ends the executor, and they go on.

    Parameters
    ----------
    submit
        Submits one task.
    abort
        Gives up tasks that have not started.

    Attributes
    ----------
    lock
        Guards which thread sets the result of a future.
    is_shut_down
        Whether it takes no more calls.
    """

    def __init__(
        self,
        connection: Connection,
        submit: Callable[[UserFunction, Call], Submission],
        abort: Callable[[list[TaskId]], None],
    ) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.is_shut_down = False
        self._submit = submit
        self._abort = abort
        self._pending: dict[TaskFuture[Any], None] = {}
        connection.pump.end_watchers.add(self)

    def submit(
        self, fn: Callable[..., T], /, *args: Arguments, **kwargs: Arguments
    ) -> TaskFuture[T]:
        """Call ``fn(*args, **kwargs)`` on an engine; return its future, without waiting.

        Raises
        ------
        RuntimeError
            After `shutdown`.
        concurrent.futures.BrokenExecutor
            The client was closed.
        SerializationError
            If something in the call cannot be pickled.
        """
        return self._start(fn, (PLAIN, args, kwargs))

    def _start(self, fn: UserFunction, call: Call) -> TaskFuture[Any]:
        if self.is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        try:
            submission = self._submit(fn, call)
        except ClientClosed as error:
            raise BrokenExecutor(str(error)) from error
        future: TaskFuture[Any] = TaskFuture(self, submission)
        self._pending[future] = None
        submission.watch(partial(self._answered, future))
        if future.has_ended:
            self._answered(future, 0)
        return future

    def _answered(self, future: TaskFuture[Any], _: int) -> None:
        """Have the result set by the thread for callbacks: this one may drive."""
        self._pending.pop(future, None)
        self.connection.callbacks.call(future.take_answer)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Arguments],
        timeout: float | None = None,
        chunksize: SupportsIndex = 1,
        buffersize: SupportsIndex | None = None,
    ) -> Iterator[T]:
        """Return an iterator over the results of calls with items of the iterables, in order.

        Parameters
        ----------
        timeout
            Seconds from this call until the last result must have come.
        chunksize
            Items per task.
        buffersize
            How many tasks may be on their way or unread; then the input is read as results
            are. None: all is submitted at once.

        Raises
        ------
        TimeoutError
            While iterating, if a result has not come in time. As with any exception, and when
            the iterator is closed, tasks that have not started are given up.
        """
        size = None if buffersize is None else integer_of(buffersize)
        if buffersize is not None and (size is None or size < 1):
            raise ValueError(f"buffersize must be None or 1 or more, not {buffersize!r}")
        until_s = None if timeout is None else time.monotonic() + timeout
        futures = (
            (self._start(fn, call_for(chunk, is_bound=False, return_exceptions=False)), chunk)
            for chunk in chunks_of(zip(*iterables, strict=False), chunksize)
        )
        return self._results(futures, size, until_s)

    def _results(
        self,
        tasks: Iterator[tuple[TaskFuture[Any], Chunk]],
        buffersize: int | None,
        until_s: float | None,
    ) -> Iterator[Any]:
        pending = deque(islice(tasks, buffersize))

        def results() -> Iterator[Any]:
            try:
                while pending:
                    left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
                    value = pending[0][0].result(left_s)
                    _, chunk = pending.popleft()
                    pending.extend(islice(tasks, 1))
                    yield from [value] if len(chunk) == 1 else value
            finally:
                self.give_up([future for future, _ in pending])

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more calls.

        Parameters
        ----------
        wait
            Until all futures are done.
        cancel_futures
            Give up what has not started.
        """
        self.is_shut_down = True
        if cancel_futures:
            self.give_up(list(self._pending))
        if wait:
            self.wait_for(list(self._pending), None)

    def give_up(self, futures: list[TaskFuture[Any]]) -> None:
        """Cancel those of the futures whose tasks have not started."""
        waiting = [future for future in futures if not future.has_ended]
        if not waiting or self.connection.is_closed:
            return
        self._abort([future.msg_id for future in waiting])
        self.wait_for(waiting, CANCEL_PATIENCE_S)
        for future in waiting:
            if not future.has_ended:
                future.note_running()

    def wait_for(self, futures: list[TaskFuture[Any]], timeout_s: float | None) -> bool:
        """Wait until the results of all are there and set; return whether they are."""
        rest = deque(futures)

        def are_done() -> bool:
            while rest and rest[0].has_ended:
                rest.popleft()
            return not rest

        try:
            is_done = self.connection.wait(are_done, timeout_s)
        except (ClientClosed, ClusterError) as error:
            self.take_end(str(error))
            is_done = True
        for future in futures:
            if future.has_ended and not future.done():
                future.take_answer()
        return is_done

    def take_end(self, reason: str) -> None:
        """Let all futures fail whose results will not come."""
        pending, self._pending = self._pending, {}
        for future in pending:
            if not future.has_ended:
                future.fail(BrokenExecutor(reason))
