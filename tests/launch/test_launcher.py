"""What all launchers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelz.launch.launcher import (
    HistoryLimits,
    describe_code,
    describe_end,
    last_lines,
)


def test_only_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"{number:0200}\n" for number in range(1000)))
    assert last_lines(log, line_count=2) == f"{998:0200}\n{999:0200}"


def test_a_log_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "x.log") == ""


def test_limits_of_the_history_are_passed_on_as_far_as_they_are_given() -> None:
    assert HistoryLimits().arguments == []
    assert HistoryLimits(0.5, 10, 2 * 10**9).arguments == [
        "--history-max-age-s=0.5",
        "--history-max-count=10",
        "--history-max-bytes=2000000000",
    ]


def test_an_unknown_signal_is_told_by_its_number() -> None:
    assert describe_code(-35) == "was killed by signal 35"


@pytest.mark.parametrize(
    ("returncode", "how"),
    [
        (3, "it ended with exit code 3"),
        (-9, "it was killed by signal 9 (SIGKILL)"),
        (None, "it did not get ready in time"),
    ],
)
def test_an_unexpected_end_is_put_in_words(
    tmp_path: Path, returncode: int | None, how: str
) -> None:
    text = describe_end("it", returncode, tmp_path / "x.log")
    assert text == f"{how}. It logged nothing. The whole log: {tmp_path / 'x.log'}"
