"""What the documentation shows is what happens: its sessions are run on a real cluster."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path

import pytest

from parallelz import Client, Cluster, DirectView, LoadBalancedView

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in ROOT.glob("docs/*.md") if "\n>>> " in page.read_text())
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _python_blocks(text: str) -> list[str]:
    """Return one text per block of Python, each at its lines of the page."""
    blocks: list[str] = []
    inside: list[str] | None = None
    for number, line in enumerate(text.splitlines(keepends=True)):
        if inside is None:
            if line.startswith("```python"):
                inside = ["\n"] * (number + 1)
        elif line.startswith("```"):
            blocks.append("".join(inside))
            inside = None
        else:
            inside.append(line)
    return blocks


def _sessions(page: Path) -> list[doctest.Example]:
    parser = doctest.DocTestParser()
    text = page.read_text()
    return [each for block in _python_blocks(text) for each in parser.get_examples(block)]


def _run(
    name: str, page: Path, examples: list[doctest.Example], names: dict[str, object]
) -> None:
    # As at a prompt: functions of `__main__` travel by value. These can be imported nowhere.
    names = {"__name__": "__main__", **names}
    test = doctest.DocTest(examples, names, name, str(page), 0, None)
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert outcome.attempted == len(examples) > 0
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sessions_of_the_page_give_what_it_shows(
    page: Path,
    rc: Client,
    dv: DirectView,
    lv: LoadBalancedView,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # for pages that write files
    _run(page.stem, page, _sessions(page), {"rc": rc, "dv": dv, "lv": lv})


def _by_comments(block: str) -> list[doctest.Example]:
    """Return the statements of the block's ``with``; what a comment shows is wanted."""
    lines = block.splitlines()
    (cluster,) = (node for node in ast.parse(block).body if isinstance(node, ast.With))
    examples = []
    for node in cluster.body:
        source = ast.unparse(node) + "\n"
        comment = re.search(r"  # (\d.*|\[.*)$", lines[node.end_lineno - 1])
        if comment is None and isinstance(node, ast.Expr):
            source = f"_ = {source}"
        want = comment[1] + "\n" if comment else ""
        examples.append(doctest.Example(source, want, lineno=node.lineno - 1))
    return examples


def test_two_minutes_of_the_readme_are_as_its_comments_say(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    two_minutes, failing, *_ = _python_blocks(readme.read_text())
    examples = _by_comments(two_minutes)
    assert sum(bool(example.want) for example in examples) >= 5
    with Cluster(n=4, profile_dir=tmp_path) as rc:
        names: dict[str, object] = {"rc": rc}
        _run("two_minutes", readme, examples, names)
        error = doctest.Example(
            failing.strip() + "\n", "...ZeroDivisionError: division by zero\n"
        )
        _run("error", readme, [error], {"lv": rc.load_balanced_view()})
