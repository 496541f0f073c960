"""A link over a line that breaks at any moment still brings everything once, in order."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import numpy
from hypothesis import given

from parallelz.ids import Digest, TaskId
from parallelz.protocol.envelope import Envelope, Receiver, Sender, pack
from parallelz.protocol.messages import DropTasks, RunTask
from parallelz.protocol.roles import ToEngine

decode = msgspec.msgpack.Decoder(Envelope[ToEngine]).decode


def message(number: int) -> DropTasks:
    return DropTasks([TaskId(f"t-{number}")], [1])


def test_envelope_comes_back_as_it_was() -> None:
    assert decode(pack(3, 2, [message(1)])) == Envelope(3, 2, [message(1)])


def test_texts_and_numbers_of_numpy_leave_as_those_of_python() -> None:
    odd = DropTasks([TaskId(numpy.str_("t-1"))], [1])
    odd.runs[0] = numpy.int64(1)
    assert decode(pack(3, 2, [odd])) == Envelope(3, 2, [message(1)])


def test_a_text_that_cannot_be_encoded_holds_up_nobody() -> None:
    odd = RunTask(TaskId("t-\udc80"), 1, Digest(b"\xff"), b"\xff\x00", 0)
    arrived, after = decode(pack(3, 2, [odd, message(1)])).messages
    assert isinstance(arrived, RunTask)
    assert arrived.task_id == "t-\\udc80"
    assert (arrived.digest, arrived.data) == (odd.digest, odd.data)
    assert after == message(1)


def test_all_that_was_put_leaves_in_one_envelope_with_its_buffers() -> None:
    sender = Sender()
    sender.put(message(0), [b"x" * 10])
    sender.put(message(1), [b"y", b"z"])
    first, *buffers = sender.take(acknowledged=0)
    assert decode(first).messages == [message(0), message(1)]
    assert buffers == [b"x" * 10, b"y", b"z"]
    assert sender.waiting == []


def test_what_is_acknowledged_is_not_kept() -> None:
    sender = Sender()
    for number in range(3):
        sender.put(message(number))
        sender.take(0)
    sender.acknowledge(2)
    assert sender.kept_count == 1
    sender.acknowledge(3)
    assert (sender.kept_count, sender.kept_bytes) == (0, 0)


def test_new_process_on_the_other_side_gets_what_was_kept_from_number_one() -> None:
    sender = Sender()
    for number in range(3):
        sender.put(message(number))
        sender.take(0)
    sender.acknowledge(1)
    envelopes = [decode(frames[0]) for frames in sender.restart()]
    assert [e.number for e in envelopes] == [1, 2]
    assert [e.messages for e in envelopes] == [[message(1)], [message(2)]]


def test_received_is_not_yet_settled() -> None:
    receiver = Receiver()
    assert receiver.accept(1)
    assert receiver.tell() == 0
    receiver.settle()
    assert receiver.untold_count == 1
    assert receiver.tell() == 1


@given(
    st.lists(st.sampled_from(["put", "take", "break", "deliver", "acknowledge"]), max_size=80)
)
def test_everything_arrives_once_and_in_order(steps: list[str]) -> None:
    sender, receiver = Sender(), Receiver()
    count = 0
    line: list[list[object]] = []
    arrived: list[object] = []

    def deliver() -> None:
        envelope = decode(line.pop(0)[0])
        if receiver.accept(envelope.number):
            arrived.extend(envelope.messages)
            receiver.settle()

    for step in [*steps, "take", "break"]:
        match step:
            case "put":
                sender.put(message(count))
                count += 1
            case "take" if sender.waiting:
                line.append(sender.take(0))
            case "break":
                line[:] = sender.resend(receiver.received)
            case "deliver" if line:
                deliver()
            case "acknowledge":
                sender.acknowledge(receiver.tell())
    while line:
        deliver()
    assert arrived == [message(number) for number in range(count)]


def test_what_was_meant_for_another_process_is_not_taken_in():
    sender, receiver = Sender(), Receiver()
    sender.put(message(0))
    sender.take(0)
    meant_for_another = decode(sender.restart(start=70)[0][0])
    receiver.restart(start=500)
    assert not receiver.accept(meant_for_another.number)
    (again,) = sender.restart(start=500)
    assert receiver.accept(decode(again[0]).number)
    assert receiver.untold_count == 0
    receiver.settle()
    assert receiver.untold_count == 1
