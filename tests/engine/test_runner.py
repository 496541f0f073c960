"""One task at a time, without a process: what the engine makes of it."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterator

import pytest

from parallelz.engine import verbs
from parallelz.engine.namespace import Main
from parallelz.engine.runner import Runner
from parallelz.engine.workqueue import Job
from parallelz.errors import (
    DependencyTimeout,
    ImpossibleDependency,
    InvalidDependency,
    UnmetDependency,
    exception_state,
    remote_error,
)
from parallelz.ids import TaskId
from parallelz.protocol import payload
from parallelz.protocol.functions import (
    DefinitionCache,
    FunctionTable,
    Reference,
    named_definition,
)
from parallelz.protocol.inputs import TaskInput
from parallelz.protocol.messages import TaskFinished
from parallelz.protocol.payload import BOUND, CHUNK, PLAIN


class Stage:
    """A namespace and the functions in it."""

    def __init__(self) -> None:
        self.main = Main()
        verbs.serve(self.main)
        self.table = FunctionTable(self.main.names)
        self.runner = Runner(self.main)
        self.cache = DefinitionCache()
        self.inputs: list[payload.Payload] = []

    def run(self, function: object, kind: int, *args: object, **kwargs: object) -> TaskFinished:
        if isinstance(function, str):
            definition = named_definition("parallelz.engine.verbs", function)
        else:
            definition = self.cache.definition_of(function)
        self.table.define(definition.digest, definition.name, *definition.payload)
        call = payload.dump((kind, args, kwargs))
        job = Job(TaskId("t-0"), 1, self.table.find(definition.digest), *call, self.inputs)
        finished, buffers = self.runner.run(job)
        self.buffers = buffers
        return finished

    def value(self, function: object, kind: int, *args: object, **kwargs: object) -> object:
        finished = self.run(function, kind, *args, **kwargs)
        assert finished.status == "ok", finished.error
        return payload.load(finished.data, self.buffers)


@pytest.fixture
def stage() -> Iterator[Stage]:
    before = sys.modules["__main__"]
    yield Stage()
    sys.modules["__main__"] = before


def test_plain_call(stage: Stage) -> None:
    assert stage.value(operator.add, PLAIN, 1, 2) == 3


def test_chunk_gives_a_list(stage: Stage) -> None:
    assert stage.value(operator.add, CHUNK, [1, 2], [10, 20]) == [11, 22]


def test_bound_call_works_in_the_namespace(stage: Stage) -> None:
    stage.value("push", BOUND, {"b": 2})

    def double(ns: object) -> object:
        ns.b *= 2  # type: ignore[attr-defined]
        return ns["b"]  # type: ignore[index]

    assert stage.value(double, BOUND) == 4
    assert stage.main.names["b"] == 4


def test_push_and_pull_take_dotted_and_indexed_names(stage: Stage) -> None:
    stage.value("push", BOUND, {"x": [1, 2, 3]})
    stage.value("push", BOUND, {"x[1]": 20})
    assert stage.value("pull", BOUND, "x[1]") == 20
    assert stage.value("pull", BOUND, ["x", "x[0]"]) == [[1, 20, 3], 1]


def test_missing_name_is_a_name_error(stage: Stage) -> None:
    finished = stage.run("pull", BOUND, "nothing")
    assert (finished.status, finished.error.ename) == ("error", "NameError")


def test_reference_stands_for_what_is_there(stage: Stage) -> None:
    stage.value("push", BOUND, {"y": 5})
    assert stage.value(operator.neg, PLAIN, Reference("y")) == -5


def test_references_in_a_chunk_are_resolved(stage: Stage) -> None:
    stage.main.names["y"] = 5
    assert stage.value(operator.add, CHUNK, [Reference("y"), 2], range(2)) == [5, 3]
    many = [1] * 20_000  # in a frame of its own, in which nobody looks for references
    assert stage.value(operator.neg, CHUNK, [*many, Reference("y")])[-1] == -5


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "ValueError"),
        (SystemExit(3), "SystemExit"),
        (KeyboardInterrupt(), "K"),
    ],
)
def test_whatever_is_raised_is_the_tasks_error(
    stage: Stage, error: BaseException, name: str
) -> None:
    def fail() -> None:
        raise error

    finished = stage.run(fail, PLAIN)
    assert finished.status == "error"
    assert finished.error.ename.startswith(name)
    assert not stage.runner.running


def test_result_of_another_task_is_an_argument(stage: Stage) -> None:
    stage.inputs = [payload.dump(3), payload.dump([1, 2])]
    three, chunk = TaskInput(0, 1, "single"), TaskInput(1, 1, "chunks")
    assert stage.value(operator.mul, PLAIN, three, [4]) == [4, 4, 4]
    assert stage.value(operator.mul, CHUNK, chunk, [10, 10]) == [10, 20]


def test_input_that_cannot_be_unpickled_is_the_tasks_error(stage: Stage) -> None:
    stage.inputs = [payload.Payload(b"\x80\x05garbage", ())]
    finished = stage.run(operator.neg, PLAIN, TaskInput(0, 1, "single"))
    assert (finished.status, finished.error.ename) == ("error", "SerializationError")
    assert "input 1 of 1" in finished.error.evalue


class NoLicence(UnmetDependency):
    """One of a user's own, which forgets what the base class needs."""

    def __init__(self) -> None:
        pass


class NeverPossible(ImpossibleDependency):
    pass


@pytest.mark.parametrize(
    ("error", "retry_after_s"),
    [
        (UnmetDependency("no GPU here"), 0.0),
        (UnmetDependency("busy", retry_after_s=2), 2.0),
        (UnmetDependency("busy", retry_after_s=-1.0), 0.0),
        (UnmetDependency("busy", retry_after_s=math.nan), 0.0),
        (NoLicence(), 0.0),
    ],
)
@pytest.mark.parametrize("kind", [PLAIN, CHUNK])
def test_unmet_dependency_refuses_this_engine(
    stage: Stage, kind: int, error: Exception, retry_after_s: float
) -> None:
    def refuse(x: object) -> None:
        raise error

    finished = (
        stage.run(refuse, kind, [1], return_exceptions=True)
        if kind
        else stage.run(refuse, kind, 1)
    )
    assert (finished.status, finished.retry_after_s) == ("unmet", retry_after_s)
    assert finished.error.ename == type(error).__name__


@pytest.mark.parametrize(
    "error",
    [
        ImpossibleDependency("no"),
        InvalidDependency("no"),
        DependencyTimeout("no"),
        NeverPossible("no"),
        remote_error(exception_state(UnmetDependency("elsewhere")), "UnmetDependency", "", ""),
    ],
)
def test_what_no_engine_can_meet_is_an_ordinary_error(stage: Stage, error: Exception) -> None:
    def fail() -> None:
        raise error

    assert stage.run(fail, PLAIN).status == "error"


def test_clear_leaves_only_the_names_of_the_start(stage: Stage) -> None:
    at_start = set(stage.main.names)
    stage.value("push", BOUND, {"z": 1})
    stage.main.clear()
    assert set(stage.main.names) == at_start


def test_function_that_was_never_sent_is_an_error_of_its_task(stage: Stage) -> None:
    finished, _ = stage.runner.run(Job(TaskId("t-1"), 1, None, b"", ()))
    assert finished.error.ename == "UnknownFunction"


def test_error_text_that_utf_8_cannot_hold_is_escaped(stage: Stage) -> None:
    def fail() -> None:
        raise ValueError("\ud800")

    finished = stage.run(fail, PLAIN)
    assert finished.error.evalue == "\\ud800"
    assert "ValueError: \\ud800" in finished.error.traceback


def test_result_that_cannot_be_pickled_is_an_error_naming_the_part(stage: Stage) -> None:
    def lock() -> object:
        import threading

        return {"lock": threading.Lock()}

    finished = stage.run(lock, PLAIN)
    assert finished.error.ename == "SerializationError"
    assert "['lock']" in finished.error.evalue


def test_endless_recursion_is_the_tasks_error(stage: Stage) -> None:
    def deeper() -> object:
        return deeper()

    assert stage.run(deeper, PLAIN).error.ename == "RecursionError"


def test_arguments_that_cannot_be_unpickled_are_the_tasks_error(stage: Stage) -> None:
    stage.run(operator.add, PLAIN, 1, 2)
    definition = stage.cache.definition_of(operator.add)
    job = Job(TaskId("t-2"), 1, stage.table.find(definition.digest), b"\x80\x05garbage", ())
    finished, _ = stage.runner.run(job)
    assert finished.status == "error"


def test_file_that_is_run_shows_its_lines_in_a_traceback(stage: Stage) -> None:
    finished = stage.run("execute", BOUND, "a = 0\n1 / a\n", "/elsewhere/only-on-the-client.py")
    assert 'only-on-the-client.py", line 2' in finished.error.traceback
    assert "1 / a" in finished.error.traceback
