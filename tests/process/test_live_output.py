"""What tasks show arrives while they run.

Each test has the task wait for a file that it makes only when it has seen the output.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallelz import (
    AsyncResult,
    Client,
    DirectView,
    LoadBalancedView,
    SerializationError,
    publish_data,
)

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def say_and_wait(path: str, *words: str) -> str:
    import sys

    for word in words:
        print(word)
        print(word.upper(), file=sys.stderr)
    while not os.path.exists(path):
        threading.Event().wait(0.01)
    print("end")
    return path


say_and_wait.__module__ = "__main__"  # goes by value


def wait_until(rc: Client, is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < give_up_s
        rc.connection.wait(is_so, 1.0)


def test_what_a_task_prints_is_there_before_its_end(
    rc: Client, lv: LoadBalancedView, tmp_path: Path
) -> None:
    result = lv.apply_async(say_and_wait, str(tmp_path / "go"), "some", "words")
    wait_until(rc, lambda: result.stdout.count("\n") == 2 and result.stderr.count("\n") == 2)
    assert not result.ready()
    assert (result.stdout, result.stderr) == ("some\nwords\n", "SOME\nWORDS\n")
    assert result.engine_id in rc.ids
    (tmp_path / "go").touch()
    result.get(TIMEOUT_S)
    assert result.stdout == "some\nwords\nend\n"


def test_engines_tell_theirs_apart(rc: Client, dv: DirectView, tmp_path: Path) -> None:
    result = dv.apply_async(say_and_wait, str(tmp_path / "go"), "word")
    wait_until(rc, lambda: result.stdout == ["word\n", "word\n"])
    (tmp_path / "go").touch()
    result.get(TIMEOUT_S)
    assert result.stdout == ["word\nend\n"] * 2


def test_streams_are_shown_as_they_come_and_once(
    rc: Client, lv: LoadBalancedView, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = lv.apply_async(say_and_wait, str(tmp_path / "go"), "some", "words")
    shown = ""
    errors = ""

    def is_shown() -> bool:
        nonlocal shown, errors
        out, err = capsys.readouterr()
        shown, errors = shown + out, errors + err
        return shown == "some\nwords\n" and errors == "SOME\nWORDS\n"

    with result.stream_output():
        give_up_s = time.monotonic() + TIMEOUT_S
        while not is_shown():
            assert time.monotonic() < give_up_s
            rc.connection.wait(lambda: False, 0.01)
        (tmp_path / "go").touch()
        result.get(TIMEOUT_S)
    assert shown + capsys.readouterr().out == "some\nwords\nend\n"


def test_streams_of_several_have_headings(
    dv: DirectView, capsys: pytest.CaptureFixture[str]
) -> None:
    result = dv.apply_async(lambda: print("word", end=""))
    with result.stream_output():
        result.get(TIMEOUT_S)
    shown = capsys.readouterr().out
    assert sorted(shown.splitlines()) == ["[stdout:0] ", "[stdout:1] ", "word", "word"]


def test_what_ended_before_is_shown_too(
    lv: LoadBalancedView, capsys: pytest.CaptureFixture[str]
) -> None:
    result = lv.apply_async(print, "early")
    result.get(TIMEOUT_S)
    for _ in range(2):
        with result.stream_output():
            pass
        assert capsys.readouterr().out == "early\n"


def test_displays_are_there_before_the_end(rc: Client, tmp_path: Path) -> None:
    rc[0].push({"path": str(tmp_path / "go"), "wait": say_and_wait}, block=True)
    result = rc[0].execute("from IPython.display import display\ndisplay(7)\nwait(path)")
    wait_until(rc, lambda: bool(result.outputs))
    assert result.outputs[0]["data"]["text/plain"] == "7"
    assert not result.ready()
    (tmp_path / "go").touch()
    result.get(TIMEOUT_S)
    assert len(result.outputs) == 1


def test_data_is_published_while_a_task_runs(
    rc: Client, lv: LoadBalancedView, tmp_path: Path
) -> None:
    def work(path: str) -> None:
        publish_data({"step": 1, "loss": [0.5]})
        publish_data({"step": 2})
        while not os.path.exists(path):
            threading.Event().wait(0.01)
        publish_data({"step": 3})

    result = lv.apply_async(work, str(tmp_path / "go"))
    wait_until(rc, lambda: result.data.get("step") == 2)
    assert result.data == {"step": 2, "loss": [0.5]}
    (tmp_path / "go").touch()
    result.get(TIMEOUT_S)
    assert result.data == {"step": 3, "loss": [0.5]}
    assert result.metadata["data"] == result.data


def test_data_of_arrays_is_published_too(lv: LoadBalancedView) -> None:
    def work() -> None:
        import numpy

        publish_data({"array": numpy.arange(10_000)})

    result = lv.apply_async(work)
    result.get(TIMEOUT_S)
    assert result.data["array"].sum() == sum(range(10_000))


def test_too_much_data_is_refused(lv: LoadBalancedView) -> None:
    def work() -> None:
        for _ in range(3):
            publish_data({"large": bytes(500_000)})

    with pytest.raises(ValueError, match="1024 kB in all"):
        lv.apply_async(work).get(TIMEOUT_S)


def test_data_that_cannot_be_made_here_is_no_trouble_for_the_rest(
    lv: LoadBalancedView,
) -> None:
    def publish() -> None:
        import sys
        import types

        module = types.ModuleType("only_there")
        exec("class Thing: pass", module.__dict__)
        sys.modules["only_there"] = module
        publish_data({"thing": module.Thing()})
        print("published")

    ar = lv.apply_async(publish)
    ar.get(TIMEOUT_S)
    assert ar.stdout == "published\n"
    with pytest.raises(SerializationError, match=r"cannot be made here: .*'only_there'"):
        ar.data  # noqa: B018 - it raises


def test_data_is_published_by_tasks_only() -> None:
    with pytest.raises(RuntimeError, match="none runs here"):
        publish_data({"a": 1})


def test_a_million_lines_are_cut_and_it_is_said(lv: LoadBalancedView) -> None:
    def work() -> None:
        for number in range(1_000_000):
            print(f"line {number}")

    result = lv.apply_async(work)
    with result.stream_output():
        result.get(TIMEOUT_S)
    text = result.stdout
    assert len(text) < 1_100_000
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("\nline 999999\n")
    left_out = int(text.partition("\n... ")[2].partition(" ")[0])
    assert len(text) - len(f"\n... {left_out} characters ...\n") + left_out == sum(
        len(f"line {number}\n") for number in range(1_000_000)
    )


def test_others_see_the_output_when_it_has_ended(
    rc: Client, lv: LoadBalancedView, cluster_profile_dir: Path
) -> None:
    result = lv.apply_async(print, "to all")
    result.get(TIMEOUT_S)
    rc.hub_history()
    with Client(profile_dir=cluster_profile_dir) as other:
        taken: AsyncResult = other.get_result(result.msg_ids[0])
        assert taken.wait_for_output(TIMEOUT_S)
        assert taken.stdout == "to all\n"


def test_a_retry_begins_its_output_anew(
    rc: Client, lv: LoadBalancedView, tmp_path: Path
) -> None:
    def work(directory: str) -> Any:
        first = os.path.join(directory, "first")
        if not os.path.exists(first):
            print("first run")
            while not os.path.exists(first):
                threading.Event().wait(0.01)
            raise ValueError("again")
        print("second run")
        while not os.path.exists(os.path.join(directory, "go")):
            threading.Event().wait(0.01)

    with lv.temp_flags(retries=1):
        result = lv.apply_async(work, str(tmp_path))
    wait_until(rc, lambda: result.stdout == "first run\n")
    (tmp_path / "first").touch()
    wait_until(rc, lambda: result.stdout == "second run\n")
    (tmp_path / "go").touch()
    result.get(TIMEOUT_S)
    assert result.stdout == "second run\n"
