"""What all launchers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelz.errors import ClusterError
from parallelz.launch.launcher import check_launcher, describe_end, last_lines


def test_an_unknown_launcher_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ClusterError, match="no launcher called 'cloud'; known are: local"):
        check_launcher("cloud")


def test_only_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"{number:0200}\n" for number in range(1000)))
    assert last_lines(log, line_count=2) == f"{998:0200}\n{999:0200}"


def test_a_log_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "x.log") == ""


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
