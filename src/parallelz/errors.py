"""Every exception that parallelz raises on purpose.

* `ParallelzError`
    * `RemoteError`: your function raised on an engine; also an instance of what it raised
        * `CompositeError`: several calls failed
        * `AlreadyDisplayedError`: errors that were shown while they arrived
    * `EngineError`: an engine died, and why
        * `TaskLost`: what became of the task cannot be known any more
    * `TaskAborted`: somebody gave the task up, before it started or while it ran
    * `TaskTimeout`: the task did not start in time
        * `DependencyTimeout`: because what it depends on had not ended
    * `UnmetDependency`: this engine cannot run the task, another one may
        * `ImpossibleDependency`: no engine ever can
            * `InvalidDependency`: what was asked for makes no sense
            * `DependencyTimeout`
    * `NoEnginesRegistered`: a call for engines, and there are none
    * `SerializationError`: an object cannot be sent, and which part of it
    * `UnknownFunction`: a function was named that was never defined here
    * `NotRecorded`: what is asked for was not kept in the database
    * `QueueFull`: more tasks are awaited than the client may submit
    * `ClientClosed`: a call on a client after its end
    * `ClusterError`: a cluster could not be started, found or stopped
        * `ConnectionFileError`: a connection file is missing or cannot be used

A wait that takes too long raises the built-in `TimeoutError`. All of them survive pickling.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, NoReturn, TypeVar

R = TypeVar("R")


class ParallelzError(Exception):
    """Base of every error that parallelz raises on purpose."""


class EngineError(ParallelzError):
    """An engine died; the text says which one and why."""


class TaskLost(EngineError):
    """What became of the task cannot be known any more; it may have run, and will not again.

    Its cluster ended before it did, or nobody has a record of it: it was submitted to a
    controller that died and whose database was lost, or is ``none``.
    """


class TaskAborted(ParallelzError):
    """The task was given up, before it started or, by `Client.cancel`, while it ran."""

    def __init__(self, msg_id: str, reason: str = "") -> None:
        super().__init__(msg_id, reason)
        self.msg_id = msg_id
        self.reason = reason

    def __str__(self) -> str:
        how = f": {self.reason}" if self.reason else " before it started"
        return f"task {self.msg_id} was aborted{how}"


class TaskTimeout(ParallelzError):
    """The task waited longer than it was allowed to."""


class UnmetDependency(ParallelzError):
    """Raised by a task: this engine cannot run it; it goes to another one.

    Parameters
    ----------
    *args
        The reason, for people.
    retry_after_s
        This engine may be able to after so long; None: never.
    """

    def __init__(self, *args: object, retry_after_s: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s


class ImpossibleDependency(UnmetDependency):
    """The task can never run: what it depends on cannot come true any more."""


class InvalidDependency(ImpossibleDependency):
    """The task can never run: what it is said to depend on makes no sense."""


class DependencyTimeout(TaskTimeout, ImpossibleDependency):
    """What the task depends on had not ended in time."""


class NoEnginesRegistered(ParallelzError):
    """The call needs engines, and none is connected."""

    def __str__(self) -> str:
        if self.args:
            return str(self.args[0])
        return (
            "This operation requires engines, and none is connected. Engines may still be "
            "starting: Client.wait_for_engines(n) waits for them."
        )


class SerializationError(ParallelzError):
    """An object cannot be sent; the text says which part of it and why."""


class UnknownFunction(ParallelzError):
    """A task names a function that was never defined here, or so long ago that it is gone."""


class NotRecorded(ParallelzError, LookupError):
    """What is asked for was not kept in the database, as when it was too large."""


class QueueFull(ParallelzError):
    """So many tasks are awaited that the client takes no more; see `Client.max_outstanding`."""


class ClientClosed(ParallelzError):
    """The client was closed; it does nothing any more."""


class ClusterError(ParallelzError):
    """A cluster could not be started, found or stopped."""


class ConnectionFileError(ClusterError):
    """A connection file is missing, or is not one that can be used."""


class RemoteError(ParallelzError):
    """Your function raised on an engine.

    What a client raises is an instance of the original exception's class too, with its `args`
    and attributes, so that ``except ValueError`` works. (`remote_error` makes those.)

    Attributes
    ----------
    ename
        Name of the class of the exception, such as ``"ValueError"``.
    evalue
        Its text.
    traceback
        The engine's traceback as text, with the user's own lines; may be empty.
    engine_info
        ``engine_id``, ``method``, and perhaps ``host`` and ``pid``; None if it ran nowhere.
    """

    _original: ClassVar[type[BaseException] | None] = None  # of what `remote_error` makes

    def __init__(
        self,
        ename: str,
        evalue: str,
        traceback: str = "",
        engine_info: Mapping[str, object] | None = None,
    ) -> None:
        # All fields go to `args`, so that the error survives pickling.
        super().__init__(ename, evalue, traceback, engine_info)
        self._set_fields(ename, evalue, traceback, engine_info)

    def __init_subclass__(cls, **kwargs: object) -> None:
        # Does not go on to the original class: it need not learn of what we derive from it.
        pass

    def _set_fields(
        self,
        ename: str,
        evalue: str,
        traceback: str,
        engine_info: Mapping[str, object] | None,
    ) -> None:
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = None if engine_info is None else dict(engine_info)
        # Python shows notes below the error, and leaves `str` alone.
        self.__notes__ = (
            [f"Traceback on the engine:\n{traceback.rstrip()}"] if traceback else []
        )

    @property
    def engine_id(self) -> int | None:
        """The engine it happened on; None if it ran nowhere."""
        engine_id = (self.engine_info or {}).get("engine_id")
        return engine_id if isinstance(engine_id, int) else None

    def __str__(self) -> str:
        return f"{_place(self.engine_info)} {self.ename}: {self.evalue}"

    def __repr__(self) -> str:
        engine = "" if self.engine_id is None else f"[{self.engine_id}]"
        return f"<RemoteError{engine}:{self.ename}({self.evalue})>"

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.ename, self.evalue, self.traceback, self.engine_info)
        if self._original is None:
            return (type(self), fields)
        return (remote_error, (exception_state(self, as_class=self._original), *fields))

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        # The original class may have a way of its own, which knows nothing of our fields.
        return self.__reduce__()

    def render_traceback(self) -> list[str]:
        """Return the engine's traceback as lines, below a line that says where."""
        return [_place(self.engine_info), *(self.traceback or str(self)).splitlines()]

    def _render_traceback_(self) -> list[str]:
        """For IPython: show this instead of the traceback of the client."""
        return self.render_traceback()

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the engine's traceback; `excid` is for `CompositeError` only."""
        sys.stdout.write("\n".join(self.render_traceback()) + "\n")


class CompositeError(RemoteError):
    """Several calls failed.

    Parameters
    ----------
    message
        What failed, such as ``"one or more exceptions raised in: f"``.
    elist
        One entry per failure: an exception, or ``(ename, evalue, traceback, engine_info)``.
        A `CompositeError` among them is replaced by its own entries.

    Attributes
    ----------
    elist
        ``(ename, evalue, traceback, engine_info)`` of each failure.
    tb_limit
        How many failures are shown.
    """

    tb_limit = 4

    def __init__(self, message: str, elist: Sequence[Failure | Exception]) -> None:
        self.failures: list[Exception] = []
        for entry in elist:
            if isinstance(entry, CompositeError):
                self.failures.extend(entry.failures)
            else:
                failure = entry if isinstance(entry, Exception) else RemoteError(*entry)
                self.failures.append(failure)
        self.message = message
        self.elist = [_failure_of(failure) for failure in self.failures]
        first = self.elist[0].traceback if self.elist else ""
        super().__init__("CompositeError", message, first)
        self.args = tuple(entry.ename for entry in self.elist)
        if first:
            self.__notes__ = [f"Traceback on the engine, of the first:\n{first.rstrip()}"]

    def __str__(self) -> str:
        lines = [
            f"{_place(entry.engine_info)}{entry.ename}: {entry.evalue}"
            for entry in self.elist[: self.tb_limit]
        ]
        more_count = len(self.elist) - len(lines)
        if more_count:
            lines.append(f".... {more_count} more exceptions ...")
        return "\n".join([self.message, *lines])

    def __repr__(self) -> str:
        return f"CompositeError({len(self.elist)})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.failures))

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the traceback of failure number `excid` as lines; None: of the first few."""
        if excid is not None:
            return _lines_of(self._entry(excid))
        lines: list[str] = []
        for entry in self.elist[: self.tb_limit]:
            lines += [*_lines_of(entry), ""]
        more_count = len(self.elist) - self.tb_limit
        if more_count > 0:
            lines.append(f"... {more_count} more exceptions ...")
        return lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the traceback of failure number `excid`; None: of the first few."""
        sys.stdout.write("\n".join(self.render_traceback(excid)) + "\n")

    print_tracebacks = print_traceback  # its name of 2011

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise failure number `excid`; IndexError if there is none."""
        self._entry(excid)
        failure = self.failures[excid]
        behind = failure.__context__
        try:
            # Without this error behind it, which shows the same traceback.
            raise failure.with_traceback(None) from failure.__cause__
        finally:
            failure.__context__ = behind

    def _entry(self, excid: int) -> Failure:
        try:
            return self.elist[excid]
        except IndexError:
            raise IndexError(f"an exception with index {excid} does not exist") from None


class AlreadyDisplayedError(RemoteError):
    """Stands for errors that were shown while they arrived, and is shown as their count."""

    def __init__(self, original_error: RemoteError) -> None:
        self.original_error = original_error
        self.n = len(original_error.elist) if isinstance(original_error, CompositeError) else 1
        super().__init__(
            original_error.ename, original_error.evalue, "", original_error.engine_info
        )

    def __str__(self) -> str:
        return f"{self.n} error{'' if self.n == 1 else 's'}"

    def __repr__(self) -> str:
        return f"AlreadyDisplayedError({self.original_error!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.original_error,))

    def render_traceback(self) -> list[str]:
        """Return one line: how many there were."""
        return [str(self)]


class Failure(NamedTuple):
    """One entry of `CompositeError.elist`."""

    ename: str
    evalue: str
    traceback: str
    engine_info: dict[str, object] | None


def collect_exceptions(results: Sequence[R] | Mapping[object, R], method: str) -> object:
    """Return `results` unchanged; if there are exceptions among them, raise those instead.

    Raises
    ------
    CompositeError
        Of all exceptions among the results of `method`.
    """
    values = list(results.values() if isinstance(results, Mapping) else results)
    failures = [value for value in values if isinstance(value, Exception)]
    if failures:
        raise CompositeError(f"one or more exceptions raised in: {method}", failures)
    return results


# -- an exception without calling its constructor -----------------------------------------

_RESERVED = ("__notes__", "ename", "evalue", "traceback", "engine_info")
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not in C


class ExceptionState(NamedTuple):
    """All that makes an exception but its traceback."""

    original: type  # of exceptions
    args: tuple[object, ...]
    attributes: dict[str, object]
    cause: Chained | None = None  # what it was raised from
    context: Chained | None = None  # what was being handled, if there is no cause


class Chained(NamedTuple):
    """An exception behind another one."""

    state: ExceptionState
    ename: str
    evalue: str


def exception_state(
    error: BaseException, as_class: type[BaseException] | None = None
) -> ExceptionState:
    """Return what `remote_error` can make an equal exception of, of class `as_class`."""
    original = type(error) if as_class is None else as_class
    attributes: dict[str, object] = {}
    for base in original.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                value = getattr(error, name, None)
                if value is not None:
                    attributes[name] = value
    attributes.update(vars(error))
    if not issubclass(original, RemoteError):
        for name in _RESERVED if as_class is not None else ("__notes__",):
            attributes.pop(name, None)
    return ExceptionState(original, error.args, attributes)


def remote_error(
    state: ExceptionState | None,
    ename: str,
    evalue: str,
    traceback: str = "",
    engine_info: Mapping[str, object] | None = None,
) -> RemoteError:
    """Return a `RemoteError` that is also what was raised on the engine.

    Parameters
    ----------
    state
        Of what was raised; its class's constructor is not called. If it is None, not an
        `Exception` (KeyboardInterrupt, SystemExit), an exception that means something to
        whoever iterates, or one that does not let itself be derived from, the outcome is a
        plain `RemoteError`.
    """
    if (
        state is not None
        and issubclass(state.original, Exception)
        and not issubclass(state.original, StopIteration | StopAsyncIteration)
    ):
        try:
            error = _remote_error_like(state, ename, evalue, traceback, engine_info)
        except Exception:  # noqa: BLE001 - metaclasses and descriptors of the user's class
            error = RemoteError(ename, evalue, traceback, engine_info)
    else:
        error = RemoteError(ename, evalue, traceback, engine_info)
    if state is not None:
        if state.cause is not None:
            error.__cause__ = remote_error(*state.cause, engine_info=engine_info)
        elif state.context is not None:
            error.__context__ = remote_error(*state.context, engine_info=engine_info)
    return error


def _remote_error_like(
    state: ExceptionState,
    ename: str,
    evalue: str,
    traceback: str,
    engine_info: Mapping[str, object] | None,
) -> RemoteError:
    derived = _derive(state.original)
    native = derived
    while native.__flags__ & _HEAP_TYPE:
        assert native.__base__ is not None
        native = native.__base__  # by layout: of several bases the one that has more
    needed = state.args if issubclass(native, BaseExceptionGroup) else ()
    error = native.__new__(derived, *needed)
    assert isinstance(error, RemoteError)
    error.args = state.args
    for name, value in state.attributes.items():
        try:
            setattr(error, name, value)
        except AttributeError:
            continue  # read-only: made from `args`
    error._set_fields(ename, evalue, traceback, engine_info)
    return error


@functools.lru_cache(maxsize=256)
def _derive(original: type) -> type:
    if issubclass(original, RemoteError):
        return original
    namespace = {
        "__module__": __name__,
        "__doc__": RemoteError.__doc__,
        "_original": original,
    }
    return types.new_class(
        "RemoteError", (RemoteError, original), exec_body=lambda body: body.update(namespace)
    )


def _place(engine_info: Mapping[str, object] | None) -> str:
    if not engine_info:
        return "[Engine Exception]"
    return f"[{engine_info.get('engine_id', '?')}:{engine_info.get('method', 'apply')}]"


def _failure_of(error: Exception) -> Failure:
    if isinstance(error, RemoteError):
        return Failure(error.ename, error.evalue, error.traceback, error.engine_info)
    return Failure(type(error).__name__, str(error), "", None)


def _lines_of(entry: Failure) -> list[str]:
    text = entry.traceback or f"{entry.ename}: {entry.evalue}"
    return [f"{_place(entry.engine_info)}:", *text.splitlines()]
