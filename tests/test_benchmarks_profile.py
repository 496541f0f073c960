"""What a profile says of py-spy's samples, without taking any."""

from __future__ import annotations

from collections import Counter

from benchmarks.profile import parse_stacks, render_profile

SAMPLES = "main (a.py:1);work (b.py:5) 30\nmain (a.py:1);work (b.py:7) 10\nmain (a.py:2) 60\n"


def test_samples_of_all_lines_of_a_function_are_added_up() -> None:
    assert parse_stacks(SAMPLES) == {("main (a.py)", "work (b.py)"): 40, ("main (a.py)",): 60}


def test_a_profile_tells_own_time_from_that_of_callees() -> None:
    shown = render_profile(parse_stacks(SAMPLES), 5).splitlines()
    assert shown[0].strip() == "100 samples"
    assert shown[2].split() == ["60.0%", "100.0%", "main", "(a.py)"]
    assert shown[3].split() == ["40.0%", "40.0%", "work", "(b.py)"]


def test_a_recursive_function_counts_once_in_a_stack() -> None:
    shown = render_profile(parse_stacks("f (a.py:1);f (a.py:1);g (a.py:9) 4\n"), 5)
    assert "100.0%  g (a.py)" in shown
    assert render_profile(parse_stacks("f (a.py:1);f (a.py:1) 4\n"), 5).count("100.0%") == 2


def test_a_process_that_never_worked_is_no_error() -> None:
    assert "never seen working" in render_profile(Counter(), 5)
