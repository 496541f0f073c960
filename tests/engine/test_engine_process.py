"""Real engines, and a controller that says what the test wants."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from helpers_engine import BOUND, TIMEOUT_S, FakeController, Gate, call, start_engines

from parallelz.ids import TaskId
from parallelz.protocol import payload
from parallelz.protocol.inputs import TaskInput
from parallelz.protocol.messages import (
    ClearNamespace,
    DropTasks,
    EngineDied,
    Goodbye,
    Input,
    InterruptTask,
    NamespaceCleared,
    StopEngine,
    TaskFinished,
    TasksDropped,
)

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("supervisor")]

EXECUTE = "parallelz.engine.verbs:execute"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[FakeController]:
    controller = FakeController(tmp_path)
    controller.write_file(tmp_path / "engine.json")
    yield controller
    controller.close()


@pytest.fixture
def supervisor(controller: FakeController, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with start_engines(tmp_path / "engine.json") as process:
        controller.line("engine", "bulk")
        controller.line("engine", "control")
        controller.line("supervisor", "control")
        yield process
        process.kill()
        process.communicate()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.let_go()


def test_task_runs(controller: FakeController) -> None:
    controller.tell("bulk", *call("a", "operator:add", 1, 2))
    assert controller.value("a") == 3


def test_result_does_not_wait_behind_a_long_task(
    controller: FakeController, gate: Gate
) -> None:
    controller.tell("bulk", *call("short", "builtins:abs", -1), *gate.task("long"))
    gate.wait_until_it_runs(controller)
    assert controller.value("short") == 1
    gate.let_go()
    assert controller.value("long") == " "


def test_what_waits_is_given_back_and_what_runs_is_kept(
    controller: FakeController, gate: Gate
) -> None:
    controller.tell(
        "bulk",
        *gate.task("runs"),
        *call("dropped", "builtins:abs", -1),
        *call("stays", "builtins:abs", -2),
    )
    gate.wait_until_it_runs(controller)
    asked = [TaskId("runs"), TaskId("dropped"), TaskId("not yet here")]
    controller.tell("control", DropTasks(asked, [1, 1, 1]))
    dropped = controller.heard(TasksDropped)
    assert (dropped.task_ids, dropped.kept) == (["dropped", "not yet here"], ["runs"])
    gate.let_go()
    assert controller.value("stays") == 2
    controller.tell("bulk", *call("not yet here", "builtins:abs", -3))
    controller.tell("bulk", *call("last", "builtins:abs", -4))
    assert controller.value("last") == 4
    told = [message for _, message, _ in controller.said]
    ended = [message.task_id for message in told if isinstance(message, TaskFinished)]
    assert ended == ["runs"], "what was given back has run"


def test_interrupt_ends_the_running_task_and_not_the_engine(
    controller: FakeController, gate: Gate
) -> None:
    controller.tell("control", InterruptTask(), DropTasks([], []))
    controller.heard(TasksDropped)  # so the interrupt came when nothing ran
    controller.tell("bulk", *gate.task("a"), *call("b", "builtins:abs", -1))
    gate.wait_until_it_runs(controller)
    controller.tell("control", InterruptTask())
    finished = controller.result("a")
    assert finished.error is not None
    assert finished.error.ename == "KeyboardInterrupt"
    assert controller.value("b") == 1


def test_interrupt_of_a_task_spares_any_other_that_runs(
    controller: FakeController, gate: Gate
) -> None:
    controller.tell("bulk", *call("a", "builtins:abs", -1), *gate.task("b"))
    gate.wait_until_it_runs(controller)
    controller.tell("control", InterruptTask(TaskId("a"), 1), DropTasks([], []))
    controller.heard(TasksDropped)  # so the interrupt was obeyed
    gate.let_go()
    assert controller.value("b") == " "


def test_interrupt_of_a_task_ends_it_if_it_runs(controller: FakeController, gate: Gate) -> None:
    controller.tell("bulk", *gate.task("a"), *call("b", "builtins:abs", -1))
    gate.wait_until_it_runs(controller)
    controller.tell("control", InterruptTask(TaskId("a"), 1), InterruptTask(TaskId("b"), 2))
    finished = controller.result("a")
    assert finished.error is not None
    assert finished.error.ename == "KeyboardInterrupt"
    assert controller.value("b") == 1


def test_interrupt_that_comes_before_its_task_has_started_ends_it_when_it_does(
    controller: FakeController,
) -> None:
    controller.tell("control", InterruptTask(TaskId("a"), 1), DropTasks([], []))
    controller.heard(TasksDropped)  # so the interrupt was obeyed
    controller.tell("bulk", *call("a", "builtins:abs", -1), *call("b", "builtins:abs", -1))
    finished = controller.result("a")
    assert finished.error is not None
    assert finished.error.ename == "KeyboardInterrupt"
    assert controller.value("b") == 1


def test_inputs_arrive_as_arguments(controller: FakeController) -> None:
    small, large = payload.dump(3), payload.dump(b"x" * 1_000_000)
    define, run = call(
        "a", "operator:mul", TaskInput(0, 1, "single"), TaskInput(1, 1, "single")
    )
    run = msgspec.structs.replace(
        run,
        frame_count=len(large.buffers),
        inputs=[Input(each.data, len(each.buffers)) for each in (large, small)],
    )
    controller.tell("bulk", define, run, buffers=large.buffers)
    assert controller.value("a") == b"x" * 3_000_000  # in several pieces


def test_clear_passes_the_queue_and_leaves_cells_working(
    controller: FakeController, gate: Gate
) -> None:
    controller.tell("bulk", *call("a", EXECUTE, "x = 1\nx", kind=BOUND), *gate.task("b"))
    gate.wait_until_it_runs(controller)
    controller.tell("bulk", *call("c", "parallelz.engine.verbs:pull", "x", kind=BOUND))
    controller.tell("control", ClearNamespace("key"), DropTasks([], []))
    controller.heard(TasksDropped)  # so the engine knows of it, too
    gate.let_go()
    assert controller.heard(NamespaceCleared).request_key == "key"
    finished = controller.result("c")
    assert finished.error is not None
    assert finished.error.ename == "NameError"
    controller.tell("bulk", *call("d", EXECUTE, "1 + 1", kind=BOUND))
    outputs = controller.result("d").outputs
    assert outputs is not None
    assert b"2" in outputs.execute_result


def test_output_that_no_message_can_hold_does_not_kill_the_engine(
    controller: FakeController,
) -> None:
    controller.tell("bulk", *call("a", "builtins:print", "\ud800"))
    outputs = controller.result("a").outputs
    assert outputs is not None
    assert outputs.stdout == "\\ud800\n"


def test_stop_hands_in_results_and_ends_also_a_running_task(
    controller: FakeController, gate: Gate, supervisor: subprocess.Popen[bytes]
) -> None:
    controller.tell("bulk", *call("a", "builtins:abs", -1), *gate.task("b"))
    gate.wait_until_it_runs(controller)
    controller.tell("control", StopEngine("enough"))
    assert controller.heard(Goodbye).reason == "enough"
    assert controller.value("a") == 1
    assert controller.heard(EngineDied).cause == "exit code 0"
    assert supervisor.wait(TIMEOUT_S) == 0


def test_supervisor_tells_why_an_engine_died(controller: FakeController) -> None:
    os.kill(controller.engine_pid(), signal.SIGKILL)
    died = controller.heard(EngineDied)
    assert died.session_id == controller.engine_session()
    assert died.cause.startswith("killed by signal 9 (SIGKILL)")


def test_engine_does_not_outlive_its_supervisor(
    controller: FakeController, gate: Gate, supervisor: subprocess.Popen[bytes]
) -> None:
    controller.tell("bulk", *gate.task("a"))
    gate.wait_until_it_runs(controller)
    engine = psutil.Process(controller.engine_pid())
    supervisor.kill()
    assert psutil.wait_procs([engine], TIMEOUT_S)[1] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_supervisor_ends_all(
    controller: FakeController,
    gate: Gate,
    supervisor: subprocess.Popen[bytes],
    number: signal.Signals,
) -> None:
    controller.tell("bulk", *gate.task("a"))
    gate.wait_until_it_runs(controller)
    engine = psutil.Process(controller.engine_pid())
    supervisor.send_signal(number)
    assert supervisor.wait(TIMEOUT_S) == 0
    assert not engine.is_running()


@pytest.mark.parametrize(
    ("code", "ename", "shown"),
    [
        ("def f():\n    return 1 / 0\nf()", "ZeroDivisionError", "return 1 / 0"),
        ("x = = 1", "SyntaxError", "x = = 1"),
        ("exit()", "SystemExit", ""),
        ("%no_such_magic", "UsageError", "no_such_magic"),
    ],
)
def test_error_of_a_cell_is_the_tasks_error_and_shows_the_cell(
    controller: FakeController, code: str, ename: str, shown: str
) -> None:
    controller.tell("bulk", *call("a", EXECUTE, code, kind=BOUND))
    finished = controller.result("a")
    assert finished.error is not None
    assert finished.error.ename == ename
    assert shown in finished.error.traceback
    frames = [line for line in finished.error.traceback.splitlines() if "File " in line]
    assert frames[0].startswith('  File "<ipython-input')
    assert finished.outputs is None


def test_cell_prints_displays_and_has_a_value(controller: FakeController) -> None:
    code = "from IPython.display import display\nprint('text')\ndisplay('shown')\n'value'"
    controller.tell("bulk", *call("a", EXECUTE, code, kind=BOUND))
    outputs = controller.result("a").outputs
    assert outputs is not None
    assert outputs.stdout == "text\n"
    assert b"shown" in outputs.displays
    assert b"value" in outputs.execute_result
