from __future__ import annotations

import pickle
from typing import Any

import pytest

from parallelz import errors
from parallelz.errors import (
    AlreadyDisplayedError,
    CompositeError,
    DependencyTimeout,
    ImpossibleDependency,
    NoEnginesRegistered,
    NotRecorded,
    ParallelzError,
    RemoteError,
    TaskAborted,
    TaskLost,
    TaskTimeout,
    UnmetDependency,
    collect_exceptions,
    exception_state,
    remote_error,
)


def remote(engine_id: int, error: Exception) -> RemoteError:
    return remote_error(
        exception_state(error),
        type(error).__name__,
        str(error),
        f"Traceback\n  in f\n{error}",
        {"engine_id": engine_id, "method": "apply"},
    )


SIX = CompositeError(
    "one or more exceptions raised in: f", [remote(i, ValueError("bad")) for i in range(6)]
)


@pytest.mark.parametrize(
    "error",
    [
        RemoteError("ValueError", "bad", "tb", {"engine_id": 1, "method": "apply"}),
        remote(1, OSError(2, "no", "f")),
        SIX,
        AlreadyDisplayedError(SIX),
        TaskAborted("s-1", "by request"),
        TaskLost("task s-1 got lost: its cluster ended"),
        NotRecorded("s-1 was too large"),
        UnmetDependency("busy", retry_after_s=3),
        NoEnginesRegistered(),
        DependencyTimeout("late"),
    ],
    ids=repr,
)
def test_errors_survive_pickling(error: ParallelzError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert vars(again).keys() == vars(error).keys()


def test_every_error_is_one_of_ours_and_in_the_list_of_them() -> None:
    for name, found in vars(errors).items():
        if isinstance(found, type) and issubclass(found, Exception) and name[0] != "_":
            assert issubclass(found, ParallelzError)
            assert f"`{name}`" in (errors.__doc__ or "")


def test_a_remote_error_reads_as_expected() -> None:
    error = remote(2, ZeroDivisionError("division by zero"))
    assert str(error) == "[2:apply] ZeroDivisionError: division by zero"
    assert repr(error) == "<RemoteError[2]:ZeroDivisionError(division by zero)>"
    lines = ["[2:apply]", "Traceback", "  in f", "division by zero"]
    assert error.render_traceback() == lines
    assert error._render_traceback_() == lines
    assert str(RemoteError("E", "v")) == "[Engine Exception] E: v"
    assert repr(RemoteError("E", "v")) == "<RemoteError:E(v)>"


def test_tracebacks_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    remote(2, ValueError("x")).print_traceback()
    assert capsys.readouterr().out == "[2:apply]\nTraceback\n  in f\nx\n"
    SIX.print_tracebacks(5)
    assert capsys.readouterr().out == "[5:apply]:\nTraceback\n  in f\nbad\n"


def test_a_composite_error_shows_the_first_few() -> None:
    assert str(SIX).splitlines() == [
        "one or more exceptions raised in: f",
        *(f"[{i}:apply]ValueError: bad" for i in range(4)),
        ".... 2 more exceptions ...",
    ]
    assert repr(SIX) == "CompositeError(6)"
    assert SIX.args == ("ValueError",) * 6
    lines = SIX.render_traceback()
    assert lines[:5] == ["[0:apply]:", "Traceback", "  in f", "bad", ""]
    assert lines[-1] == "... 2 more exceptions ..."


def test_how_many_are_shown_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompositeError, "tb_limit", 10)
    assert len(str(SIX).splitlines()) == 7
    assert "more" not in "".join(SIX.render_traceback())


def test_one_failure_of_a_composite_can_be_raised_as_its_own_class() -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        SIX.raise_exception(3)
    assert isinstance(caught.value, RemoteError)
    assert caught.value.engine_id == 3
    with pytest.raises(IndexError, match="an exception with index 9 does not exist"):
        SIX.raise_exception(9)


def test_composites_inside_a_composite_are_flattened() -> None:
    outer = CompositeError("all", [SIX, TaskAborted("s-1"), ("KeyError", "k", "", None)])
    assert [entry.ename for entry in outer.elist[5:]] == [
        "ValueError",
        "TaskAborted",
        "KeyError",
    ]
    with pytest.raises(TaskAborted):
        outer.raise_exception(6)


def test_exceptions_among_results_are_raised_together() -> None:
    assert collect_exceptions([1, 2], "f") == [1, 2]
    assert collect_exceptions({0: 1}, "f") == {0: 1}
    with pytest.raises(CompositeError, match="raised in: f") as caught:
        collect_exceptions({0: 1, 1: remote(1, KeyError("k"))}, "f")
    assert len(caught.value.elist) == 1


def test_what_was_shown_is_not_shown_again() -> None:
    shown = AlreadyDisplayedError(SIX)
    assert (str(shown), shown.n, shown.original_error) == ("6 errors", 6, SIX)
    assert shown._render_traceback_() == ["6 errors"]


def test_a_late_dependency_is_both_late_and_impossible() -> None:
    assert issubclass(DependencyTimeout, TaskTimeout)
    assert issubclass(DependencyTimeout, ImpossibleDependency)


def test_no_engines_says_what_to_do() -> None:
    assert "wait_for_engines" in str(NoEnginesRegistered())
    assert str(NoEnginesRegistered("none of 1, 2")) == "none of 1, 2"


def test_notes_of_the_original_do_not_hide_the_engines_traceback() -> None:
    error: Any = ValueError("x")
    error.add_note("a note")
    assert remote(1, error).__notes__ == ["Traceback on the engine:\nTraceback\n  in f\nx"]
