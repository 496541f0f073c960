"""A shell for one profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "p")
    yield shell
    shell.run("ipclusterz stop --all")
    for process in shell.processes():
        process.kill()
