"""What `ipclusterz status` says of the history."""

from __future__ import annotations

import pytest

from parallelz.cli.commands import history_line
from parallelz.launch.cluster_file import ClusterFacts

FINE = {"is_kept": True, "trouble": "", "lost_records": 0}


@pytest.mark.parametrize(
    ("store", "recorder", "line"),
    [
        ("sqlite", FINE, "written  sqlite  /p/parallelz-b.sqlite"),
        ("memory", FINE, "written  memory"),
        ("none", {**FINE, "is_kept": False}, "off      none"),
        (
            "sqlite",
            {**FINE, "trouble": "the disk is full"},
            "stuck    sqlite  /p/parallelz-b.sqlite, nothing is written: the disk is full",
        ),
        (
            "postgresql://db/x",
            {**FINE, "lost_records": 7},
            "written  postgresql://db/x, 7 records were lost",
        ),
    ],
)
def test_the_history_is_one_line(store: str, recorder: dict[str, object], line: str) -> None:
    facts = ClusterFacts("b", "/p", "here", "/tmp/parallelz-x", None, store=store)
    assert history_line(recorder, facts) == line
