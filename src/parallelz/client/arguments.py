"""Results among the arguments of a call: their values, or what stands for them.

While a call is pickled, `current` is that call, for this thread. A result that is met then and
is there already is pickled as its value. One that is on its way is named as an *input* of the
task, which the controller fetches when it is there (`protocol.inputs`), if the call accepts
that; else pickling waits for it.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from parallelz.client.ledger import Ledger, Submission
from parallelz.ids import TaskId
from parallelz.protocol import payload
from parallelz.protocol.inputs import How, TaskInput


class Call:
    """A call whose arguments are being pickled.

    Parameters
    ----------
    ledger
        Whose tasks may be named as inputs; None: nobody's, it waits for all results.

    Attributes
    ----------
    inputs
        The tasks whose results it gets, and the submissions that hold them; in order.
    """

    __slots__ = ("_ledger", "_numbers", "inputs", "submissions")

    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._numbers: dict[TaskId, int] = {}
        self.inputs: list[TaskId] = []
        self.submissions: dict[Submission, None] = {}

    def accepts(self, ledger: Ledger) -> bool:
        """Whether tasks of this ledger can be inputs of this call."""
        return self._ledger is ledger

    def refer_to(
        self, places: Sequence[tuple[Submission, TaskId]], how: How
    ) -> tuple[object, ...]:
        """Note the tasks as inputs; return what pickle is to make of them."""
        # Pickling may be repeated, and a result be met more than once: each is named once.
        numbers = [self._number_of(*place) for place in places]
        first = numbers[0] if numbers else 0
        if numbers == list(range(first, first + len(numbers))):
            return TaskInput(first, len(numbers), how).__reduce__()
        form: How = "single" if how == "list" else how
        parts = [TaskInput(number, 1, form) for number in numbers]
        if how == "list":
            return (list, (parts,))
        return (functools.reduce, (operator.iadd, parts, []))

    def _number_of(self, submission: Submission, task_id: TaskId) -> int:
        number = self._numbers.setdefault(task_id, len(self.inputs))
        if number == len(self.inputs):
            self.inputs.append(task_id)
            self.submissions[submission] = None
        return number


class _InputFailed(BaseException):
    """Passes what handles errors of pickling: a result among the arguments is an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Slot:
    """Of one thread: the call that it pickles, or what stands for one that met no result yet.

    That is where its results may come from, as for `Call`: usually no more is needed.
    """

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call: Call | Ledger | _Waiting | None = None


class _Local(threading.local):
    def __init__(self) -> None:
        self.slot = _Slot()  # looking this up is what costs, so it is done once for a call


class _Waiting:
    """No ledger: all results are waited for."""


_local = _Local()
_waiting = _Waiting()


def dump_call(call: payload.Call, ledger: Ledger) -> tuple[payload.Payload, Call | None]:
    """Pickle a call, and return what results it names as inputs; None: it has none.

    Raises
    ------
    SerializationError
        If something in it cannot be pickled.
    Exception
        What a result among the arguments raises.
    """
    if (simple := payload.dump_simple_call(call)) is not None:
        return simple, None
    slot = _local.slot
    before, slot.call = slot.call, ledger
    try:
        pickled = payload.dump(call)
        found = slot.call
    except _InputFailed as failed:
        raise failed.error from None
    finally:
        slot.call = before
    if found is ledger:
        return pickled, None
    assert isinstance(found, Call)
    return pickled, found if found.inputs else None


def dump_waiting(call: payload.Call) -> payload.Payload:
    """Pickle a call with the values of all results in it, for which it waits."""
    if (simple := payload.dump_simple_call(call)) is not None:
        return simple
    slot = _local.slot
    before, slot.call = slot.call, _waiting
    try:
        return payload.dump(call)
    except _InputFailed as failed:
        raise failed.error from None
    finally:
        slot.call = before


def current() -> Call | None:
    """Return the call that this thread pickles."""
    slot = _local.slot
    if slot.call is None or isinstance(slot.call, Call):
        return slot.call
    made = slot.call = Call(slot.call if isinstance(slot.call, Ledger) else None)
    return made


def in_place(get: Callable[[], object]) -> tuple[object, ...]:
    """Return how to pickle the value instead of the result that has it; may wait."""
    try:
        value = get()
    except Exception as error:  # noqa: BLE001 - may be of any class of the user
        _fail(error)
    return (operator.getitem, ((value,), 0))


def _fail(error: Exception) -> NoReturn:
    raise _InputFailed(error)
