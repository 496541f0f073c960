"""What a client does besides running tasks: engines, waiting, and control past the queues."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import SupportsIndex, TypeVar

import msgspec

from parallelz.client.connection import Connection
from parallelz.client.outcomes import metadata_of, value_of
from parallelz.client.progress import progress_bar
from parallelz.client.results import AsyncResult
from parallelz.client.task_group import CANCEL_GRACE_S
from parallelz.errors import EngineError, NoEnginesRegistered
from parallelz.ids import EngineId, TaskId, task_id_of
from parallelz.option_values import integer_of
from parallelz.protocol.answers import QueueStatus
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.failures import rebuild
from parallelz.protocol.messages import (
    AbortTasks,
    AskQueues,
    CancelTasks,
    ClearEngines,
    DrainEngines,
    InterruptEngines,
    Message,
    Reply,
    ShutdownEngines,
)

SomeTargets = SupportsIndex | str | slice | Sequence[SupportsIndex]
Targets = SomeTargets | None
Jobs = SupportsIndex | str | AsyncResult | Iterable["SupportsIndex | str | AsyncResult"] | None

T = TypeVar("T")


def is_all(targets: Targets) -> bool:
    """Whether all engines are meant that are there at the time of a call."""
    return targets is None or (isinstance(targets, str) and targets.lower() == "all")


def is_one(jobs: object, task_ids: Sequence[TaskId]) -> bool:
    """Whether jobs, which stand for these tasks, are one task and no collection."""
    if isinstance(jobs, AsyncResult):
        return len(task_ids) == 1
    return isinstance(jobs, str) or integer_of(jobs) is not None


class Session:
    """A connected client without its views.

    Attributes
    ----------
    block
        Whether calls wait when neither they nor their view say.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.block = False
        self._history_start = 0  # number of the first task that is not forgotten

    # -- engines ---------------------------------------------------------------------------

    @property
    def ids(self) -> list[int]:
        """The ids of the engines that are there now, sorted."""
        self.connection.check_open()
        return [int(engine_id) for engine_id in self.connection.ledger.engines]

    def __len__(self) -> int:
        return len(self.ids)

    def resolve(self, targets: Targets) -> int | list[int]:
        """Return which engines are meant, as they are now: one id, or a list of them.

        Parameters
        ----------
        targets
            An id; negative: counted from the end of `ids`. A slice of `ids`. A sequence of
            such ids. None or ``"all"``: all.

        Raises
        ------
        IndexError
            If there is no such engine.
        NoEnginesRegistered
            If there is none at all.
        TypeError
            If it is anything else.
        """
        ids = self.ids
        if targets is None or isinstance(targets, str):
            if isinstance(targets, str) and targets.lower() != "all":
                raise TypeError(f"{targets!r} not valid str target, must be 'all'")
            targets = slice(None)
        if not ids:
            raise NoEnginesRegistered
        if isinstance(targets, slice):
            return ids[targets]
        if integer_of(targets) is None and isinstance(targets, Iterable):
            return [self._engine_id(target, ids) for target in targets]
        return self._engine_id(targets, ids)

    def _engine_id(self, target: object, ids: list[int]) -> int:
        number = integer_of(target)
        if number is None:
            raise TypeError(
                f"targets are engine ids, slices, lists of ids or 'all', not {target!r}"
            )
        if number < 0 and -number <= len(ids):
            return ids[number]
        if number not in ids:
            raise IndexError(f"No such engine: {number}")
        return number

    def engine_ids(self, targets: int | str | Sequence[int] | None) -> list[EngineId]:
        """Return the ids of engines that a call is for, all of which are there now.

        Raises
        ------
        NoEnginesRegistered
            If there is none at all.
        EngineError
            If one of them has left, and why.
        """
        engines = self.connection.ledger.engines
        if targets is None or isinstance(targets, str):
            chosen = list(engines)
        else:
            chosen = (
                [EngineId(targets)] if isinstance(targets, int) else [*map(EngineId, targets)]
            )
            for engine_id in chosen:
                if engine_id not in engines:
                    cause = self.connection.ledger.causes.get(engine_id, "it is not there")
                    raise EngineError(f"engine {engine_id} is gone: {cause}")
        if not chosen:
            raise NoEnginesRegistered
        return chosen

    def wait_for_engines(
        self,
        n: int = 1,
        timeout: float | None = None,
        *,
        interactive: bool = False,
    ) -> None:
        """Wait until there are `n` engines.

        Parameters
        ----------
        timeout
            Seconds. None or negative: however long it takes.
        interactive
            Show a progress bar.

        Raises
        ------
        TimeoutError
            There are fewer after `timeout`.
        """
        self.connection.check_open()
        ledger = self.connection.ledger
        until_s = None if timeout is None or timeout < 0 else timeout
        if interactive:
            self._watch_engines_come(n, until_s)
        elif not self.connection.wait(lambda: len(ledger.engines) >= n, until_s):
            raise TimeoutError(
                f"{n} engines not ready in {timeout:g} seconds."
                f" Currently ready: {len(ledger.engines)}"
            )

    def _watch_engines_come(self, n: int, timeout_s: float | None) -> None:
        with progress_bar(n, "engine") as bar:
            for count in range(1, n + 1):
                self.wait_for_engines(count, timeout_s)
                bar.update(1)

    # -- tasks -----------------------------------------------------------------------------

    @property
    def history(self) -> list[TaskId]:
        """The ids of all tasks that this client has submitted, in order."""
        return [self._submitted(number) for number in self._history_numbers()]

    def _history_numbers(self) -> range:
        return range(self._history_start, self.connection.submitted_count)

    def _submitted(self, number: int) -> TaskId:
        return task_id_of(self.connection.session_id, number)

    @property
    def outstanding(self) -> set[TaskId]:
        """The ids of the tasks that are awaited."""
        return self.connection.ledger.outstanding()

    @property
    def results(self) -> Mapping[str, object]:
        """The results of ended tasks whose AsyncResult is still held, by id."""
        return _ByTask(self.connection, is_metadata=False)

    @property
    def metadata(self) -> Mapping[str, object]:
        """What is known of tasks whose AsyncResult is still held, by id."""
        return _ByTask(self.connection, is_metadata=True)

    def task_ids(self, jobs: Jobs) -> list[TaskId]:
        """Return the ids of all that stands for tasks.

        Parameters
        ----------
        jobs
            An id, an index of `history`, an AsyncResult, or a collection of those. None: all
            that is outstanding.
        """
        if jobs is None:
            return sorted(self.outstanding)
        if isinstance(jobs, str):
            return [TaskId(jobs)]
        if isinstance(jobs, AsyncResult):
            return jobs.msg_ids
        index = integer_of(jobs)
        if index is not None:
            return [self._submitted(self._history_numbers()[index])]
        if isinstance(jobs, Iterable):
            return [task_id for job in jobs for task_id in self.task_ids(job)]
        raise TypeError(f"Invalid msg_id type {jobs!r}, expected str or AsyncResult")

    def wait(self, jobs: Jobs = None, timeout: float | None = None) -> bool:
        """Wait until tasks of this client have ended; return whether all have.

        Parameters
        ----------
        jobs
            Ids, indices of `history`, AsyncResults, collections of them. None: all that is
            outstanding now.
        timeout
            Seconds. None or negative: however long it takes.
        """
        ledger = self.connection.ledger
        if jobs is None:
            numbers = list(ledger.awaited)
        else:
            places = [ledger.find(task_id) for task_id in self.task_ids(jobs)]
            numbers = [
                submission.first_number + index
                for submission, index in (place for place in places if place is not None)
                if submission.answers[index] is None
            ]

        def is_done() -> bool:
            while numbers and numbers[-1] not in ledger.awaited:
                numbers.pop()
            return not numbers

        return self.connection.wait(
            is_done, None if timeout is None or timeout < 0 else timeout
        )

    def barrier(self, jobs: Jobs = None, timeout: float | None = None) -> bool:
        """Wait as `wait` does; its name of 2011."""
        return self.wait(jobs, timeout)

    def spin(self) -> None:
        """Take in what has arrived, without waiting. Seldom needed: it happens by itself."""
        self.connection.wait(lambda: False, 0)

    # -- control ---------------------------------------------------------------------------

    def abort(self, jobs: Jobs = None, targets: Targets = None, block: object = None) -> None:
        """Give up tasks that have not started: they end with `TaskAborted`.

        Parameters
        ----------
        jobs
            None: all that this client has submitted. An empty list: none.
        targets
            Only what is bound for these engines.
        block
            Without effect: the answer takes no longer than a look at the queues.
        """
        task_ids = None if jobs is None else self.task_ids(jobs)
        engine_ids = None if targets is None else self._control_targets(targets)
        if task_ids is None or task_ids:
            end = self.connection.submitted_count
            self.ask(lambda number: AbortTasks(number, task_ids, engine_ids, end))

    def cancel(self, jobs: Jobs = None, grace: float = CANCEL_GRACE_S) -> None:
        """Give up tasks, also those that run: they end with `TaskAborted`.

        What runs is interrupted, by KeyboardInterrupt. If it still runs after the grace, its
        engine is ended, and its supervisor starts another in its place; other tasks that were
        placed there run elsewhere. Returns when the tasks are known to be given up; wait for
        them to know that they have ended.

        Parameters
        ----------
        jobs
            None: all of this client that have not ended. An empty list: none.
        grace
            Seconds from the interrupt to the end of the engine.
        """
        task_ids = self.task_ids(jobs)
        if task_ids:
            self.ask(lambda number: CancelTasks(number, task_ids, grace))

    def drain(self, targets: Targets = "all") -> None:
        """Let engines end when they have nothing left to do; they get nothing new.

        Tasks that were placed there and have not started run elsewhere, except those of direct
        views, which are waited for. Returns at once.
        """
        engine_ids = self._control_targets(targets)
        self.ask(lambda number: DrainEngines(number, engine_ids))

    def clear(self, targets: Targets = None, block: object = None) -> None:
        """Delete all names of users from the namespaces of engines. Waits until it is done."""
        engine_ids = self._control_targets(targets)
        self.ask(lambda number: ClearEngines(number, engine_ids))

    def interrupt(self, targets: Targets = None) -> None:
        """Raise KeyboardInterrupt in what runs on engines now."""
        engine_ids = self._control_targets(targets)
        self.ask(lambda number: InterruptEngines(number, engine_ids))

    def send_signal(self, sig: int | str, targets: Targets = None) -> None:
        """Send a signal to engines; so far only SIGINT, which is `interrupt`.

        Raises
        ------
        ValueError
            If it is another signal.
        """
        number = getattr(signal, sig, None) if isinstance(sig, str) else sig
        if number != signal.SIGINT:
            raise ValueError(f"engines can be sent SIGINT only, not {sig!r}")
        self.interrupt(targets)

    def shutdown(
        self,
        targets: Targets = "all",
        restart: bool = False,  # noqa: FBT001, FBT002 - the order that users know
        hub: bool = False,  # noqa: FBT001, FBT002
        block: object = None,
    ) -> None:
        """End engines, whatever they are doing.

        Parameters
        ----------
        targets
            Which; with `hub` all.
        restart
            Whether their supervisor starts others in their place.
        hub
            End the controller as well, and close this client.
        """
        if hub or (isinstance(targets, str) and not self.ids):
            engine_ids = [EngineId(engine_id) for engine_id in self.ids]
        else:
            engine_ids = self._control_targets(targets)
        self.ask(lambda number: ShutdownEngines(number, engine_ids, hub, restart))
        if hub:
            self.close()

    def queue_status(
        self,
        targets: Targets = "all",
        verbose: bool = False,  # noqa: FBT001, FBT002 - the order that users know
    ) -> dict[object, object]:
        """Return how many tasks wait, have ended and run, by engine; for an id only its own.

        Parameters
        ----------
        verbose
            Lists of ids instead of counts.

        Returns
        -------
        dict
            ``{0: {"queue": 0, "completed": 4, "tasks": 0}, ..., "unassigned": 0}``: ``queue``
            was sent to the engine by name, ``tasks`` was placed there by the balance.
        """
        engine_ids = [] if not self.ids else self._control_targets(targets)
        reply, _ = self.ask(lambda number: AskQueues(number, engine_ids, verbose))
        status = msgspec.msgpack.decode(reply.data, type=QueueStatus)
        by_engine: dict[object, object] = {
            int(engine_id): msgspec.structs.asdict(queue)
            for engine_id, queue in sorted(status.engines.items())
        }
        if integer_of(targets) is not None:
            own = by_engine[int(engine_ids[0])]
            assert isinstance(own, dict)
            return own
        by_engine["unassigned"] = status.unassigned
        return by_engine

    def _control_targets(self, targets: Targets) -> list[EngineId]:
        resolved = self.resolve(targets)
        chosen = [resolved] if isinstance(resolved, int) else resolved
        return [EngineId(engine_id) for engine_id in chosen]

    def ask(self, request: Callable[[int], Message]) -> tuple[Reply, Sequence[Buffer]]:
        """Send the request that is made from its id; wait for the answer and its buffers.

        Raises
        ------
        RemoteError
            If it cannot be done, and why. Also an instance of what was raised there.
        """
        connection = self.connection
        request_id = connection.ask(request)
        connection.wait(partial(connection.has_reply, request_id))
        reply, buffers = connection.take_reply(request_id)
        if reply.error is not None:
            raise rebuild(reply.error)
        return reply, buffers

    def close(self) -> None:
        """Send what waits, and end. Tasks go on; to close twice does nothing."""
        self.connection.close()


class _ByTask(Mapping[str, object]):
    """Looks tasks up in the ledger."""

    def __init__(self, connection: Connection, *, is_metadata: bool) -> None:
        self._connection = connection
        self._is_metadata = is_metadata

    def __getitem__(self, task_id: str) -> object:
        ledger = self._connection.ledger
        place = ledger.find(TaskId(task_id))
        if place is None:
            raise KeyError(task_id)
        submission, index = place
        if self._is_metadata:
            return metadata_of(ledger, submission, index)
        answer = submission.answers[index]
        if answer is None:
            raise KeyError(task_id)
        return value_of(ledger, answer, "task")

    def __iter__(self) -> Iterator[str]:
        for submission in self._connection.ledger.live():
            for index, answer in enumerate(submission.answers):
                if self._is_metadata or answer is not None:
                    yield submission.task_id(index)

    def __len__(self) -> int:
        return sum(1 for _ in self)
