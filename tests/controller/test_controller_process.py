"""What a controller process hands on to its recorder."""

from __future__ import annotations

from pathlib import Path

from parallelz.controller.process import build_parser, recorder_command
from parallelz.launch.launcher import HistoryLimits
from parallelz.transport.security import new_secrets


def command(tmp_path: Path, limits: HistoryLimits) -> list[str]:
    argv = ["--profile-dir", str(tmp_path), *limits.arguments]
    return recorder_command(
        build_parser().parse_args(argv), new_secrets("", runtime_dir=tmp_path)
    )


def test_limits_of_the_history_reach_the_recorder(tmp_path: Path) -> None:
    limits = command(tmp_path, HistoryLimits(1.5, 10, 2000))[-6:]
    assert limits == ["--max-age-s", "1.5", "--max-count", "10", "--max-bytes", "2000"]


def test_without_limits_the_recorder_is_told_none(tmp_path: Path) -> None:
    assert not [word for word in command(tmp_path, HistoryLimits()) if word.startswith("--max")]
