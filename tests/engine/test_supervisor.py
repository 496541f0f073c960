"""A supervisor ends its engines when told to, replaces them, and watches over their memory."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from helpers_engine import TIMEOUT_S, FakeController, Gate, call, start_engines

from parallelz.engine.children import Child
from parallelz.engine.supervisor import RESTARTS_MAX
from parallelz.ids import SessionId, TaskId
from parallelz.protocol.messages import EndEngine, EngineDied, StopEngine, Supervises

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[FakeController]:
    controller = FakeController(tmp_path)
    controller.write_file(tmp_path / "engine.json")
    yield controller
    controller.close()


@pytest.fixture
def start(controller: FakeController, tmp_path: Path) -> Iterator[Start]:
    """Return what starts a supervisor and waits for its first engine."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            process = stack.enter_context(start_engines(tmp_path / "engine.json", *arguments))
            stack.callback(process.communicate)
            stack.callback(process.kill)
            controller.line("engine", "control")
            controller.line("engine", "bulk")
            return process

        yield start


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.let_go()


def replacement(controller: FakeController, *earlier: str) -> SessionId:
    """Wait until the supervisor tells of an engine that is none of these."""
    while True:
        for session_id in controller.heard(Supervises).session_ids:
            if session_id not in earlier:
                return session_id


@pytest.mark.process
def test_supervisor_tells_which_engines_are_its_children(
    controller: FakeController, start: Start
) -> None:
    start("-n", "2")
    session_ids = controller.heard(Supervises).session_ids
    assert len(session_ids) == 2
    for session_id in session_ids:
        controller.line("engine", "bulk", session_id)


@pytest.mark.process
def test_supervisor_tells_its_children_to_each_controller(
    controller: FakeController, start: Start
) -> None:
    start()
    session_ids = controller.heard(Supervises).session_ids
    controller.ask_supervisor_again()
    assert controller.heard(Supervises).session_ids == session_ids


@pytest.mark.process
def test_supervisor_tells_of_its_last_death_also_if_it_had_not_joined_yet(
    controller: FakeController, start: Start
) -> None:
    controller.is_to_wait = lambda hello: hello.role == "supervisor"
    supervisor = start()
    hello = controller.line("engine", "bulk").hello
    engine = psutil.Process(hello.peer.pid)
    engine.kill()
    engine.wait(TIMEOUT_S)
    controller.greet_who_waits()
    assert "SIGKILL" in controller.heard(EngineDied).cause
    assert controller.pump(supervisor.poll) == signal.SIGKILL


@pytest.mark.process
@pytest.mark.slow
def test_engine_that_is_ended_is_replaced_by_one_that_is_like_it(
    controller: FakeController, start: Start, gate: Gate, tmp_path: Path
) -> None:
    start("--labels=a,b", "--resources=gpu=1,mem=1.5", "--log-dir", str(tmp_path))
    old = controller.engine_session()
    controller.tell("bulk", *gate.task("t"))
    gate.wait_until_it_runs(controller)
    controller.tell_supervisor(EndEngine(old, "task t was cancelled", restart=True))
    assert controller.heard(EngineDied) == EngineDied(
        old, "task t was cancelled", started_count=1, started=[TaskId("t")]
    )
    new = replacement(controller, old)
    for session_id in (old, new):
        for link in ("bulk", "control"):
            hello = controller.line("engine", link, session_id).hello
            assert hello.labels == ["a", "b"]
            assert hello.resources == {"gpu": 1.0, "mem": 1.5}
    controller.tell("bulk", *call("u", "os:getcwd"), session_id=new)
    assert controller.value("u") == os.getcwd()
    pid = controller.line("engine", "bulk", new).hello.peer.pid
    assert (tmp_path / f"ipenginez-{pid}.log").exists()


@pytest.mark.process
@pytest.mark.slow
def test_replacement_ends_with_its_supervisor(
    controller: FakeController, start: Start, gate: Gate
) -> None:
    supervisor = start()
    old = controller.engine_session()
    controller.tell_supervisor(EndEngine(old, "enough", restart=True))
    new = replacement(controller, old)
    controller.tell("bulk", *gate.task("t"), session_id=new)
    gate.wait_until_it_runs(controller)
    supervisor.kill()  # the fixture of all tests sees to it that no process is left
    supervisor.wait(TIMEOUT_S)


@pytest.mark.process
def test_engine_that_ends_within_its_grace_is_not_killed(
    controller: FakeController, start: Start, gate: Gate
) -> None:
    supervisor = start()
    controller.tell("bulk", *gate.task("t"))
    gate.wait_until_it_runs(controller)
    session_id = controller.engine_session()
    controller.tell_supervisor(EndEngine(session_id, "it is drained", grace_s=TIMEOUT_S))
    assert controller.heard(EngineDied) == EngineDied(
        session_id, "it is drained", started_count=1, started=[TaskId("t")]
    )
    assert controller.pump(supervisor.poll) == 0


@pytest.mark.process
def test_engine_that_does_not_end_is_killed_after_its_grace(
    controller: FakeController, start: Start
) -> None:
    supervisor = start()
    session_id = controller.engine_session()
    engine = psutil.Process(controller.engine_pid())
    engine.suspend()
    controller.pump(lambda: engine.status() == psutil.STATUS_STOPPED or None)
    controller.tell_supervisor(EndEngine(session_id, "it froze", grace_s=0.05))
    cause = "it froze; killed, as it did not end when asked to"
    assert controller.heard(EngineDied) == EngineDied(session_id, cause, started_count=0)
    assert controller.pump(supervisor.poll) == 0


@pytest.mark.process
@pytest.mark.slow
def test_engine_that_died_just_before_it_was_to_be_replaced_is_replaced_once(
    controller: FakeController, start: Start
) -> None:
    start("-n", "2")
    first, second = controller.heard(Supervises).session_ids
    os.kill(controller.line("engine", "bulk", first).hello.peer.pid, signal.SIGKILL)
    assert controller.heard(EngineDied).session_id == first
    controller.tell_supervisor(EndEngine(first, "too late", restart=True))
    third = replacement(controller, first, second)
    controller.tell_supervisor(EndEngine(first, "too late", restart=True))
    controller.tell_supervisor(EndEngine(second, "on time"))
    assert controller.heard(EngineDied).session_id == second
    controller.ask_supervisor_again()
    assert controller.heard(Supervises).session_ids == [third]


@pytest.mark.process
@pytest.mark.slow
def test_engines_that_keep_dying_are_replaced_a_few_times_only(
    controller: FakeController, start: Start
) -> None:
    supervisor = start("--restart")
    session_ids = controller.heard(Supervises).session_ids
    for _ in range(RESTARTS_MAX):
        line = controller.line("engine", "bulk", session_ids[-1])
        os.kill(line.hello.peer.pid, signal.SIGKILL)
        session_ids.append(replacement(controller, *session_ids))
    line = controller.line("engine", "bulk", session_ids[-1])
    os.kill(line.hello.peer.pid, signal.SIGKILL)
    assert controller.pump(supervisor.poll) == signal.SIGKILL
    assert supervisor.stderr is not None
    assert b"engines died 6 times within 60 s: no more" in supervisor.stderr.read()


@pytest.mark.process
def test_engine_that_ended_on_purpose_is_not_replaced(
    controller: FakeController, start: Start
) -> None:
    supervisor = start("--restart")
    controller.tell("control", StopEngine("enough"))
    assert controller.heard(EngineDied).cause == "exit code 0"
    assert controller.pump(supervisor.poll) == 0


@pytest.mark.process
@pytest.mark.slow
def test_engine_that_uses_too_much_memory_is_killed_and_replaced(
    controller: FakeController, start: Start
) -> None:
    start("--memory-limit=200MB")
    old = controller.engine_session()
    greedy = "import time; x = b'x' * 300_000_000; time.sleep(600)"
    controller.tell("bulk", *call("t", "builtins:exec", greedy))
    died = controller.heard(EngineDied)
    assert died.session_id == old
    assert died.cause.startswith("used ")
    assert died.cause.endswith(" MB of memory, more than its limit of 200 MB (--memory-limit)")
    new = replacement(controller, old)
    controller.tell("bulk", *call("u", "builtins:abs", -1), session_id=new)
    assert controller.value("u") == 1


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0, "cancelled"),
        (-signal.SIGTERM, "cancelled"),
        (-signal.SIGKILL, "cancelled; killed, as it did not end when asked to"),
        (7, "cancelled; exit code 7"),
        (-signal.SIGSEGV, "cancelled; killed by signal 11 (SIGSEGV)"),
    ],
)
def test_cause_is_the_reason_and_what_it_died_of_if_that_adds_something(
    code: int, cause: str
) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        child = Child(SessionId("s"), process.pid, process)
        child.end("cancelled", now_s=0.0, grace_s=1.0)
        child.kill_if_due(2.0)
        child.wait()
    assert child.cause(code) == cause
