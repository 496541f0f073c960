"""Results that may still be on their way.

An `AsyncResult` stands for one or more tasks. It keeps the answers as they came and unpickles
them when they are looked at, in the thread that looks.
"""

from __future__ import annotations

import html
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal, Self, get_args, overload

from parallelz.client import arguments
from parallelz.client.connection import Connection
from parallelz.client.detached import DetachedResult, Shape
from parallelz.client.ledger import Submission
from parallelz.client.outcomes import METADATA_KEYS, Failed, is_told_by_its_text, outcome_of
from parallelz.client.progress import progress_bar
from parallelz.client.shown import ShownTasks
from parallelz.client.task_group import Place
from parallelz.errors import CompositeError
from parallelz.protocol.inputs import How

__tracebackhide__ = is_told_by_its_text

Value = Any
"""What a function of the user returned, or a list of that: only they know its type."""

Arrival = tuple[Callable[[], bool], Callable[[], Iterable[Value]]]
"""Whether something is there, and what it is then."""

ReturnWhen = Literal["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
"""What to wait for, as in `concurrent.futures`."""

_UNREAD = object()


class AsyncResult(ShownTasks):
    """The result of a call that may still run.

    Made by views, not by users. For a call on one engine its value is what the function
    returned, for one on a list of engines a list of that, in their order.
    """

    __slots__ = ("_values",)

    def __init__(
        self,
        connection: Connection,
        tasks: Submission | list[Place],
        name: str = "",
        *,
        is_single: bool,
    ) -> None:
        super().__init__(connection, tasks, name, is_single=is_single)
        self._values: dict[int, object] | None = None

    def __repr__(self) -> str:
        state = "pending"
        if self.ready():
            state = "finished" if self.successful() else "failed"
        return f"<{type(self).__name__}({self._name}): {state}>"

    # -- is it there? ----------------------------------------------------------------------

    def done(self) -> bool:
        """Whether every task has ended; the name of `concurrent.futures`."""
        return self.ready()

    @overload
    def wait(self, timeout: float | None = None, *, return_when: None = None) -> bool: ...

    @overload
    def wait(
        self, timeout: float | None = None, *, return_when: ReturnWhen
    ) -> tuple[set[AsyncResult], set[AsyncResult]]: ...

    def wait(
        self, timeout: float | None = None, *, return_when: ReturnWhen | None = None
    ) -> bool | tuple[set[AsyncResult], set[AsyncResult]]:
        """Wait until every task has ended, or until the first of something.

        Parameters
        ----------
        timeout
            Seconds. None or negative: however long it takes. 0: only look.
        return_when
            ``FIRST_COMPLETED``, ``FIRST_EXCEPTION`` (of a task that did not end well) or
            ``ALL_COMPLETED``, as of `concurrent.futures.wait`.

        Returns
        -------
        bool
            Whether every task has ended; if `return_when` is given, instead of that two sets
            of results for single tasks (see `split`): those that have ended, and the others.
        """
        if return_when is None:
            return super().wait(timeout)
        self._wait_for_first(return_when, timeout)
        done: set[AsyncResult] = set()
        pending: set[AsyncResult] = set()
        for result, (submission, index) in zip(self.split(), self._places, strict=True):
            (pending if submission.answers[index] is None else done).add(result)
        return done, pending

    def _wait_for_first(self, return_when: ReturnWhen, timeout: float | None) -> None:
        if return_when not in get_args(ReturnWhen):
            raise ValueError(
                f"return_when is one of {', '.join(get_args(ReturnWhen))}, not {return_when!r}"
            )
        if return_when == "ALL_COMPLETED":
            super().wait(timeout)
            return
        places = set(self._places)
        found: list[Place] = []  # the first of what is waited for, and perhaps more

        def look(submission: Submission, index: int) -> None:
            answer = submission.answers[index]
            if (submission, index) in places and answer is not None:
                is_first = return_when == "FIRST_COMPLETED" or answer.ended.status != "ok"
                if is_first:
                    found.append((submission, index))

        for submission in self._submissions():
            submission.watch(partial(look, submission))
        for place in self._places:
            look(*place)
        timeout_s = None if timeout is None or timeout < 0 else timeout
        self._wait_until(lambda: bool(found) or self.ready(), timeout_s)

    # -- what is it? -----------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        *,
        return_exceptions: bool = False,
        return_when: ReturnWhen | None = None,
    ) -> Value:
        """Wait and return the result.

        Parameters
        ----------
        timeout
            Seconds. None or negative: however long it takes. 0: only look.
        return_exceptions
            Put exceptions where results would be, instead of raising.
        return_when
            ``FIRST_EXCEPTION``: raise the error of the first task that fails at once, and not
            when all have ended.

        Raises
        ------
        TimeoutError
            The tasks have not ended in time. They go on, and `get` can be called again.
        RemoteError
            The function raised. It is also an instance of what was raised.
        CompositeError
            Some of several calls failed.
        TaskAborted, EngineError, TaskTimeout, ImpossibleDependency
            It never ran to an end.
        """
        if return_when is not None and not return_exceptions:
            self._raise_first(return_when, timeout)
        if not self.wait(0 if return_when else timeout):
            raise TimeoutError("Result not ready.")
        if self._is_single:
            value = self._value(0)
            if isinstance(value, Failed):
                if return_exceptions:
                    return value.error
                raise value.error.with_traceback(None)
            return value
        values = [self._value(index) for index in range(len(self._places))]
        failures = [value.error for value in values if type(value) is Failed]
        if failures and not return_exceptions:
            raise CompositeError(f"one or more exceptions raised in: {self._name}", failures)
        if failures:
            values = [v.error if isinstance(v, Failed) else v for v in values]
        return self._composed(values)

    def _raise_first(self, return_when: ReturnWhen, timeout: float | None) -> None:
        if return_when == "FIRST_COMPLETED":
            raise ValueError(
                "get returns all results; for the first that is there use"
                " wait(return_when=FIRST_COMPLETED)"
            )
        self._wait_for_first(return_when, timeout)
        for index, (submission, place) in enumerate(self._places):
            answer = submission.answers[place]
            if answer is not None and answer.ended.status != "ok":
                self._value_or_raise(index)

    def result(self, timeout: float | None = None) -> Value:
        """Wait and return the result, as `get` does."""
        return self.get(timeout)

    @property
    def r(self) -> Value:
        """The result: short for ``get()``."""
        return self.get()

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Wait and return what `get` would raise; None if it returns."""
        if not self.wait(timeout):
            raise TimeoutError("Result not ready.")
        try:
            self.get()
        except Exception as error:  # noqa: BLE001 - may be of any class of the user
            return error
        return None

    def get_dict(self, timeout: float | None = None) -> dict[int, Value]:
        """Wait and return the results by engine id.

        Raises
        ------
        ValueError
            If an engine ran more than one of the tasks.
        """
        result = self.get(timeout)
        values = [result] if self._is_single else result
        assert isinstance(values, list)
        by_engine: dict[int, object] = {}
        for value, metadata in zip(values, self._all_metadata(), strict=True):
            engine_id = metadata["engine_id"]
            assert isinstance(engine_id, int)
            if engine_id in by_engine:
                count = [m["engine_id"] for m in self._all_metadata()].count(engine_id)
                raise ValueError(f"Cannot build dict, {count} jobs ran on engine #{engine_id}")
            by_engine[engine_id] = value
        return by_engine

    @property
    def result_dict(self) -> dict[int, Value]:
        """The results by engine id; see `get_dict`."""
        return self.get_dict()

    def _composed(self, values: list[object]) -> object:
        """Return the result that these results of the tasks amount to."""
        return values

    def _value(self, index: int) -> object:
        """Return the value of a task that has ended, or `Failed`; the same at each call."""
        if self._values is None:
            self._values = {}
        value = self._values.get(index, _UNREAD)
        if value is _UNREAD:
            if self._submission is not None:
                answer = self._submission.answers[index]
            else:
                submission, place = self._places[index]
                answer = submission.answers[place]
            assert answer is not None
            value = outcome_of(self._connection.ledger, answer, self._name)
            value = self._values.setdefault(index, value)
        return value

    def _value_or_raise(self, index: int) -> object:
        submission, place = self._places[index]
        self._wait_until(lambda: submission.answers[place] is not None)
        value = self._value(index)
        if isinstance(value, Failed):
            raise value.error.with_traceback(None)
        return value

    # -- as a sequence ---------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Value]:
        """Yield results in order, as soon as each is there; raise what a task raised."""
        if self._is_single:
            raise TypeError("AsyncResults with a single result are not iterable.")
        return map(self._value_or_raise, range(len(self._places)))

    def __getitem__(self, key: int | slice | str) -> Value:
        """Return a result by index, or by name what is known of the task (or a list of it)."""
        if isinstance(key, str):
            if key not in METADATA_KEYS:
                raise KeyError(key)
            return self._known(key)
        if not self.ready():
            raise TimeoutError("Result not ready.")
        values = list(self._each_value())
        chosen = values[key]
        failures = [
            value.error
            for value in (chosen if isinstance(chosen, list) else [chosen])
            if isinstance(value, Failed)
        ]
        if failures and not isinstance(key, slice):
            raise failures[0]
        if failures:
            raise CompositeError(f"one or more exceptions raised in: {self._name}", failures)
        return chosen

    def _each_value(self) -> Iterator[object]:
        return map(self._value, range(len(self._places)))

    def __getattr__(self, name: str) -> Value:
        if name in METADATA_KEYS:
            return self[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *METADATA_KEYS})

    # -- when it is done -------------------------------------------------------------------

    def add_done_callback(self, function: Callable[[Self], object]) -> None:
        """Call ``function(self)`` when every task has ended, at once if they have.

        It is called on a thread for callbacks, one after the other, and may wait for results.
        """
        call = self._connection.callbacks.call
        self._when_done(lambda: call(partial(function, self)))

    def __await__(self) -> Generator[object, None, Value]:
        return self._awaited().__await__()

    async def _awaited(self) -> Value:
        from parallelz.client.awaiting import Alarm

        alarm = Alarm()
        self._when_done(alarm.ring)
        await alarm.wait_until(self.ready)
        return self.get()

    def __aiter__(self) -> AsyncIterator[Value]:
        """Yield what iterating does, without blocking the event loop."""
        if self._is_single:
            raise TypeError("AsyncResults with a single result are not iterable.")
        from parallelz.client.awaiting import stream  # asyncio is slow to import

        return stream(self._submissions(), self._arrivals())

    def _arrivals(self) -> Iterator[Arrival]:
        """Yield, in the order of iteration, whether something is there, and what it is."""
        for index, (submission, place) in enumerate(self._places):
            yield (
                lambda s=submission, p=place: s.answers[p] is not None,  # type: ignore[misc]
                lambda i=index: (self._value_or_raise(i),),  # type: ignore[misc]
            )

    def future(self) -> Future[Value]:
        """Return a `concurrent.futures.Future` of the result, for what needs a real one.

        Such as `concurrent.futures.wait`, `as_completed` and `asyncio.wrap_future`. It is
        running from the start: to give the tasks up, cancel this result.
        """
        future: Future[Value] = Future()
        future.set_running_or_notify_cancel()

        def settle(result: AsyncResult) -> None:
            error = result.exception()
            if error is None:
                future.set_result(result.get())
            else:
                future.set_exception(error)

        self.add_done_callback(settle)
        return future

    def _repr_html_(self) -> str:
        """For notebooks: what it is, and how far."""
        state = "pending"
        if self.ready():
            state = "finished" if self.successful() else "failed"
        return (
            f"<b>{html.escape(type(self).__name__)}</b> {html.escape(self._name)}: {state},"
            f" {self.progress} of {len(self)} done, {self.elapsed:.1f} s"
            f' <progress value="{self.progress}" max="{max(len(self), 1)}"></progress>'
        )

    def _when_done(self, function: Callable[[], object]) -> None:
        """Call `function` once, by the thread that drives, or here if it is done."""
        once = [function]

        def look(index: int) -> None:
            if self.ready():
                try:
                    first = once.pop()
                except IndexError:
                    return
                first()

        for submission in dict.fromkeys(submission for submission, _ in self._places):
            submission.watch(look)
        look(0)

    @property
    def sent(self) -> bool:
        """Whether buffers among the arguments may be changed again.

        At once, if they are small or were put into shared memory. Large ones that go by
        sockets are not copied: they are needed until the tasks have ended, as until then they
        may have to be sent again.
        """
        return all(submission.is_sent for submission in self._submissions())

    def wait_for_send(self, timeout: float | None = None) -> bool:
        """Wait until `sent`; return whether it is. None or negative: however long it takes."""
        timeout_s = None if timeout is None or timeout < 0 else timeout
        return self._wait_until(lambda: self.sent, timeout_s)

    def wait_interactive(self, interval: float = 0.1, timeout: float | None = None) -> bool:
        """Wait with a progress bar that changes each `interval` s; return as `wait` does."""
        until_s = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        with progress_bar(len(self), "task", self._name) as bar:
            while not self.wait(interval):
                bar.update(self.progress - bar.n)
                if until_s is not None and time.monotonic() >= until_s:
                    break
            bar.update(self.progress - bar.n)
        return self.ready()

    # -- in a pickle -----------------------------------------------------------------------

    def __reduce__(self) -> tuple[object, ...]:
        """For pickle: among the arguments of a call, what stands for the result there.

        Anywhere else, a `DetachedResult`, which another client can take up by `get_result`.
        """
        call = arguments.current()
        if call is None:
            return (DetachedResult, tuple(self._detached()))
        how = None if self.ready() else self._input_form()
        if how is None or not call.accepts(self._connection.ledger):
            return arguments.in_place(self.get)
        return call.refer_to([(s, s.task_id(i)) for s, i in self._places], how)

    def _detached(self) -> DetachedResult:
        shape: Shape = "single" if self._is_single else "list"
        return DetachedResult(tuple(self.msg_ids), self._name, shape)

    def _input_form(self) -> How | None:
        """Return how an engine makes the result from those of the tasks; None: it cannot."""
        return "single" if self._is_single else "list"

    # -- several ---------------------------------------------------------------------------

    @classmethod
    def join(cls, *results: AsyncResult) -> AsyncResult:
        """Return one result for all tasks of several."""
        if not results:
            raise ValueError("join needs at least one result")
        places = [place for result in results for place in result._places]
        # One that looks for its tasks in the database does so for those of the others.
        first = next((r for r in results if r._looks_for_tasks), results[0])
        return first._regrouped(places, is_single=False)

    def split(self) -> list[AsyncResult]:
        """Return a result for each task."""
        return [self._regrouped([place], is_single=True) for place in self._places]

    _looks_for_tasks = False  # whether what is missing must be asked for

    def _regrouped(self, places: list[Place], *, is_single: bool) -> AsyncResult:
        """Return a result for these tasks that comes the same way."""
        return AsyncResult(self._connection, places, self._name, is_single=is_single)
