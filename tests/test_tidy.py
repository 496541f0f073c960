"""House rules that no linter has. Each says why in its message."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(ROOT.glob("src/parallelz/**/*.py"))
MODULE_LENGTH_MAX = 500
FUNCTION_LENGTH_MAX = 60  # without its docstring


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_module_is_tidy(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "say what the module is for"
    assert source.count("\n") <= MODULE_LENGTH_MAX, "split it where the reader would"
    assert "TYPE_CHECKING" not in source, "an import for types only hides one that points up"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= FUNCTION_LENGTH_MAX, f"{node.name} does not fit on a screen"


def test_architecture_names_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {path.parent.name for path in MODULES if path.parent.name != "parallelz"}
    assert {p for p in packages if f"{p}/" not in text} == set()
