from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from parallelz.client.merging import MERGED_COUNT_MAX, passing_out, taken_out
from parallelz.ids import Digest, TaskId
from parallelz.protocol.envelope import Item
from parallelz.protocol.messages import (
    AskHistory,
    DefineFunction,
    Message,
    ProvideValue,
    SubmitMap,
    SubmitTask,
    TaskOptions,
)

F, G = Digest(b"f"), Digest(b"g")
OPTIONS = TaskOptions(label="fit")


def task(
    number: int, digest: Digest = F, options: TaskOptions | None = None, data: bytes = b"x"
) -> Item:
    return (SubmitTask(TaskId(f"c-{number}"), digest, number / 4, data, 0, options), ())


def sent(*waiting: Item) -> list[Message]:
    return [message for message, _ in taken_out(deque(waiting))]


def test_tasks_that_wait_together_leave_as_a_map_and_keep_their_times() -> None:
    assert sent(task(7, data=b"a"), task(8, data=b"b")) == [
        SubmitMap(7, F, 1.75, [b"a", b"b"], None, [1.75, 2.0])
    ]


def test_one_task_alone_stays_what_it_is() -> None:
    waiting = deque([task(7)])
    assert list(taken_out(waiting)) == [task(7)]
    assert not waiting


def test_what_differs_in_more_than_arguments_is_not_put_together() -> None:
    define = (DefineFunction(G, "g", b"", 0), ())
    framed = (SubmitTask(TaskId("c-5"), F, 0.0, b"", 1), [b"frame"])
    kinds = [
        type(message)
        for message in sent(
            *(task(0), task(1), define, task(2, G)),
            *(task(3, G, OPTIONS), task(4, G, OPTIONS), framed, task(6), task(8)),
        )
    ]
    maps = [
        SubmitMap,
        DefineFunction,
        SubmitTask,
        SubmitMap,
        SubmitTask,
        SubmitTask,
        SubmitTask,
    ]
    assert kinds == maps


def test_no_map_is_so_long_that_engines_wait_for_it() -> None:
    lengths = [len(message.items) for message in sent(*map(task, range(250)))]
    assert lengths == [MERGED_COUNT_MAX, MERGED_COUNT_MAX, 50]


@given(st.lists(st.tuples(st.sampled_from([F, G]), st.sampled_from([None, OPTIONS]))))
def test_every_task_leaves_once_in_order(
    kinds: list[tuple[Digest, TaskOptions | None]],
) -> None:
    said = []
    for message in sent(*(task(number, *kind) for number, kind in enumerate(kinds))):
        if isinstance(message, SubmitTask):
            said.append((message.task_id, message.digest, message.options))
        else:
            assert isinstance(message, SubmitMap)
            numbers = range(message.first_number, message.first_number + len(message.items))
            said += [(TaskId(f"c-{n}"), message.digest, message.options) for n in numbers]
    assert said == [(f"c-{number}", *kind) for number, kind in enumerate(kinds)]


def test_what_waits_on_when_it_is_full_leaves_later_in_order() -> None:
    large = [(task(number)[0], [b"x" * 9]) for number in (2, 5)]
    everything = [task(0), task(1), large[0], task(3), task(4), large[1], task(6)]
    waiting = deque(everything)
    rounds = []
    while waiting:
        rounds.append([message for message, _ in taken_out(waiting, lambda: True)])
    assert rounds == [
        [*sent(task(0), task(1)), large[0][0]],
        [*sent(task(3), task(4)), large[1][0]],
        [task(6)[0]],
    ]


def test_questions_and_values_pass_what_waits_for_room() -> None:
    question = (AskHistory(1, "history", b""), ())
    value = (ProvideValue(TaskId("c-1"), data=b"x"), [b"large"])
    define = (DefineFunction(G, "g", b""), ())
    waiting = deque([task(2), question, define, value, task(3, G)])
    assert passing_out(waiting) == [question, value]
    assert [*waiting] == [task(2), define, task(3, G)]
