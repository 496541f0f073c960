"""What the annotations tell a type checker about users' programs; and that they are shipped."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

import parallelz
import parallelz.client

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, set[str]]]:
    """Return what mypy reports of the programs beside this file: file, line, codes."""
    pytest.importorskip("mypy", reason="the extra `dev` is not installed")
    programs = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
    cache = tmp_path_factory.mktemp("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache)]
    run = subprocess.run(
        [*command, *map(str, programs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert not run.stderr, run.stderr
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in run.stdout.splitlines():
        if match := re.match(r"(.+?):(\d+): error: .*\[([\w-]+)\]$", line):
            found[Path(match[1]).name][int(match[2])].add(match[3])
        assert match or "note:" in line or line.startswith("Found "), line
    return found


@pytest.mark.slow
def test_programs_of_users_have_no_errors(
    reported: dict[str, dict[int, set[str]]],
) -> None:
    assert reported.keys() <= {"mistakes.py"}, {
        name: dict(lines) for name, lines in reported.items() if name != "mistakes.py"
    }


@pytest.mark.slow
def test_each_mistake_is_reported_and_nothing_else(
    reported: dict[str, dict[int, set[str]]],
) -> None:
    lines = (HERE / "mistakes.py").read_text().splitlines()
    expected = {
        number: {match[1]}
        for number, line in enumerate(lines, 1)
        if (match := re.search(r"# error: (\S+)$", line))
    }
    assert len(expected) > 20
    assert reported["mistakes.py"] == expected


@pytest.mark.parametrize(
    "package", [parallelz, parallelz.client], ids=lambda each: each.__name__
)
def test_type_checkers_see_the_same_names_as_python(package: ModuleType) -> None:
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text())
    imported = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name, module in imported.items():
        assert getattr(package, name) is getattr(importlib.import_module(str(module)), name)
    (names,) = (
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    public = getattr(package, "__all__", package.__dict__["_HOMES"])
    assert sorted(names) == sorted(public)


@pytest.mark.slow
def test_wheel_says_that_it_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the extra `dev` is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=TIMEOUT_S)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"parallelz/py.typed", "parallelz/__init__.pyi", "parallelz/__init__.py"} <= names
