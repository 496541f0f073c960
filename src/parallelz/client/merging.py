"""What is to be sent: tasks that were submitted one by one leave as one message.

To the controller, and to the recorder behind it, a task costs less as one of a map than by
itself. So what waits together, and differs in arguments and time only, is sent as a map.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from parallelz.protocol.envelope import Item
from parallelz.protocol.messages import (
    AskHistory,
    ProvideValue,
    SubmitMap,
    SubmitTask,
)

MERGED_COUNT_MAX = 100  # the controller lets engines begin after each message


def taken_out(
    waiting: deque[Item], is_full: Callable[[], bool] = lambda: False
) -> Iterator[Item]:
    """Take out all that waits now, in order, with tasks put together where that can be.

    After what may be large `is_full` is asked whether the rest is to wait on.

    To be iterated to the end: what was taken out and not yielded would be lost.
    """
    alike: list[SubmitTask] = []
    for _ in range(len(waiting)):
        outgoing = waiting.popleft()
        message, buffers = outgoing
        if not isinstance(message, SubmitTask) or buffers:
            yield from _merged(alike)
            alike = []
            yield outgoing
            if is_full():
                return
            continue
        if alike and not (
            message.digest == alike[0].digest
            and message.options is alike[0].options
            and len(alike) < MERGED_COUNT_MAX
        ):
            yield from _merged(alike)
            alike = []
        alike.append(message)
    yield from _merged(alike)


def passing_out(waiting: deque[Item]) -> list[Item]:
    """Take out what is not to wait until there is room: questions, and values asked for.

    Room comes when tasks end. One who asks how they are going cannot wait for that, and tasks
    that wait for a value would never end.
    """
    passing: list[Item] = []
    staying: list[Item] = []
    for _ in range(len(waiting)):
        outgoing = waiting.popleft()
        is_passing = isinstance(outgoing[0], AskHistory | ProvideValue)
        (passing if is_passing else staying).append(outgoing)
    waiting.extendleft(reversed(staying))  # before what others append meanwhile
    return passing


def _merged(tasks: Sequence[SubmitTask]) -> Iterator[Item]:
    """Yield tasks of one function and the same options, as one message if that can be."""
    if not tasks:
        return
    first = tasks[0]
    if len(tasks) > 1:
        number = _number_of(first)
        if _number_of(tasks[-1]) - number == len(tasks) - 1:  # they only ever grow
            items = [task.data for task in tasks]
            times_s = [task.submitted_s for task in tasks]
            yield (
                SubmitMap(
                    number, first.digest, first.submitted_s, items, first.options, times_s
                ),
                (),
            )
            return
    for task in tasks:
        yield task, ()


def _number_of(task: SubmitTask) -> int:
    return int(task.task_id.rpartition("-")[2])
