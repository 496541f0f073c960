"""Each example, on small input: it ends well, and its numbers and its picture are right."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest
from helpers_examples import (
    TIMEOUT_S,
    assert_is_picture,
    command,
    rows_of,
    run_example,
    texts,
)

from parallelz import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.process]

# As published, of the first 1,000 digits after the point.
PI_DIGIT_COUNTS = ["93", "116", "103", "102", "93", "97", "94", "95", "101", "106"]


def test_dag_of_waits_holds_the_order(tmp_path: Path) -> None:
    options = ("--engines", 2, "--output", tmp_path, "--nodes", 12, "--edges", 20)
    said = run_example("dag_of_waits", *options, "--wait", 0.02)
    rows = rows_of(said, "submitted")
    assert [row[-4] for row in rows] == ["12", "12"]
    assert "20 dependencies, all of them in order; 2 engines." in said
    assert_is_picture(tmp_path / "dag_of_waits.png")


def test_pi_digits_are_right(tmp_path: Path) -> None:
    said = run_example("pi_digits", "--engines", 2, "--output", tmp_path, "--digits", 1000)
    assert texts(rows_of(said, "digit"), 1) == PI_DIGIT_COUNTS
    assert "3.1415926535897932384626433832795028841971..." in said
    assert_is_picture(tmp_path / "pi_digits.png")


def test_option_prices_agree_with_the_formula(tmp_path: Path) -> None:
    sizes = ("--strikes", 3, "--volatilities", 2, "--paths", 2000)
    said = run_example("option_prices", "--engines", 2, "--output", tmp_path, *sizes)
    rows = [[float(text) for text in row] for row in rows_of(said, "strike")]
    assert [row[0] for row in rows] == [80, 100, 120]
    for _, exact, european, error, _, asian, _ in rows:
        assert abs(european - exact) < 5 * error + 0.01  # what is printed is rounded
        assert asian < european
    assert_is_picture(tmp_path / "option_prices.png")


@pytest.mark.parametrize(("engine_count", "parts"), [(1, "1 x 1"), (4, "2 x 2")])
def test_wave_is_the_same_in_parts(tmp_path: Path, engine_count: int, parts: str) -> None:
    size = ("--rows", 40, "--steps", 100)
    said = run_example("wave_sockets", "--engines", engine_count, "--output", tmp_path, *size)
    assert f"engines       {parts}" in said
    difference = said.split("between the two solutions is ")[1].split()[0].rstrip(".")
    assert float(difference) <= 1e-12
    assert_is_picture(tmp_path / "wave.png")


def test_large_arrays_shows_the_rules_and_rates(tmp_path: Path) -> None:
    said = run_example("large_arrays", "--engines", 2, "--output", tmp_path, "--megabytes", 4)
    assert "after a wait       sent is True" in said
    assert "changed in place   ValueError" in said
    rows = rows_of(said, "MB")
    assert texts(rows, 0) == ["1", "4"]
    assert all(float(rate.replace(",", "")) > 0 for row in rows for rate in row[1:])
    assert_is_picture(tmp_path / "large_arrays.png")


def test_collaborator_picks_up_what_another_process_left() -> None:
    said = run_example("collaborator", "--engines", 2, "--files", 4)
    rows = rows_of(said, "file")
    assert texts(rows, 0) == [f"measured-{number:02}.txt" for number in range(4)]
    assert [row[-1] == "again" for row in rows] == [False, False, True, False]
    clients = [task.split("-")[0] for task in texts(rows, 1)]
    assert clients[0] == clients[1] == clients[3] != clients[2]
    assert "4 that ended well, 1 that failed" in said


def test_word_count_is_that_of_one_process(tmp_path: Path) -> None:
    options = ("--output", tmp_path, "--files", 30, "--top", 5)
    said = run_example("word_count", "--engines", 2, *options)
    rows = rows_of(said, "rank")
    assert texts(rows, 0) == ["1", "2", "3", "4", "5"]
    assert rows[0][1] == "the"
    assert "the same without a cluster" in said
    assert_is_picture(tmp_path / "word_count.png")


def test_parameter_search_stops_at_the_first_that_is_good_enough(tmp_path: Path) -> None:
    options = ("--trials", 40, "--steps", 20, "--target", 0.3, "--max-runtime", 30)
    said = run_example("parameter_search", "--engines", 2, "--output", tmp_path, *options)
    assert all(row[5:] == ["good", "enough"] for row in rows_of(said, "width"))
    cancelled_count = int(said.split(" cancelled")[0].split()[-1])
    assert 0 < cancelled_count < 40
    assert_is_picture(tmp_path / "parameter_search.png")


def test_parameter_search_says_if_nothing_is_good_enough(tmp_path: Path) -> None:
    options = ("--trials", 4, "--steps", 20, "--target", 1.5, "--max-runtime", 30)
    said = run_example("parameter_search", "--engines", 2, "--output", tmp_path, *options)
    assert "None of them has an accuracy of 1.5." in said
    assert len(rows_of(said, "width")) == 4


def test_a_running_cluster_is_used_and_left_as_it_was(tmp_path: Path) -> None:
    with Cluster(n=2, profile_dir=tmp_path / "profile_mine") as rc:
        said = run_example(
            "word_count", "--profile", "mine", "--output", tmp_path, "--files", 5,
            IPYTHONDIR=str(tmp_path),
        )  # fmt: skip
        assert said.splitlines()[1] == "2 engines"
        assert rc.ids == [0, 1]
        assert len(rc.hub_history()) > 0


@pytest.mark.parametrize("interrupt_count", [1, 3])
def test_an_interrupt_leaves_nothing(tmp_path: Path, interrupt_count: int) -> None:
    process = subprocess.Popen(
        command("dag_of_waits", "--engines", 2, "--output", tmp_path, "--wait", 100),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2 engines\n"
        for _ in range(interrupt_count):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGINT
    assert said.strip() == "interrupted; all it started has ended"
    # Whatever belongs to such a cluster has the path of its profile among its arguments.
    left = [p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    assert [line for line in left if tempfile.gettempdir() in " ".join(line)] == []
    assert list(Path(tempfile.gettempdir()).glob("parallelz-example-*")) == []
