"""What a task prints comes back with it, up to a limit; what nobody runs goes to the log."""

from __future__ import annotations

import io

import msgspec
import pytest

from parallelz.engine.output import STREAM_LENGTH_MAX, TaskOutput, TaskStream
from parallelz.ids import TaskId


@pytest.fixture
def output() -> TaskOutput:
    return TaskOutput()


TASK = TaskId("client-1")


def test_silent_task_has_no_outputs(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    assert output.end() is None


def test_streams_are_kept_apart_and_for_one_task_only(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    print("out", file=output.stdout)
    print("err", file=output.stderr)
    outputs = output.end()
    assert (outputs.stdout, outputs.stderr) == ("out\n", "err\n")
    output.begin(TASK, 1)
    assert output.end() is None


def test_text_between_tasks_goes_to_the_log() -> None:
    log = io.StringIO()
    stream = TaskStream(log)
    stream.write("to the log")
    assert log.getvalue() == "to the log"
    assert not stream.is_used


def test_flood_of_text_is_cut_in_the_middle_and_says_so(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    output.stdout.write("first\n")
    for _ in range(300):
        output.stdout.write("x" * 10_000 + "\n")
    output.stdout.write("last\n")
    text = output.end().stdout
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    assert " characters ..." in text
    assert len(text) < STREAM_LENGTH_MAX + 100_000


def test_displays_come_in_order(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    for number in range(3):
        output.add_display({"data": {"text/plain": str(number)}, "metadata": {}})
    displays = msgspec.msgpack.decode(output.end().displays)
    assert [d["data"]["text/plain"] for d in displays] == ["0", "1", "2"]


def test_only_text_can_be_written(output: TaskOutput) -> None:
    with pytest.raises(TypeError, match="must be str"):
        output.stdout.write(b"bytes")


def test_one_large_text_is_cut_as_many_small_ones_are(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    output.stdout.write("first" + "x" * (3 * STREAM_LENGTH_MAX) + "last")
    text = output.end().stdout
    assert text.startswith("first")
    assert text.endswith("last")
    cut_length = 2 * STREAM_LENGTH_MAX + len("firstlast")
    assert f"... {cut_length} characters ..." in text


def test_bytes_can_be_written_too(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    output.stdout.buffer.write("ü".encode())
    assert output.end().stdout == "ü"


def test_text_that_utf_8_cannot_hold_is_escaped(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    output.stdout.write("file \udcff")
    assert output.end().stdout == "file \\udcff"


def test_display_that_cannot_be_sent_is_replaced_by_a_word_on_it(output: TaskOutput) -> None:
    output.begin(TASK, 1)
    output.add_display({"data": {}, "metadata": {"large": 2**70}})
    (display,) = msgspec.msgpack.decode(output.end().displays)
    assert "cannot be sent" in display["data"]["text/plain"]
    output.begin(TASK, 1)
    assert output.end() is None
