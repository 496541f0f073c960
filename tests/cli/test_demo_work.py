from __future__ import annotations

from functools import partial
from pathlib import Path

import networkx
import pytest

from parallelz.cli import demo_graph, demo_work
from parallelz.cli.demo_work import FileCounts, NodeSize


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "lib"
    write(root, "base.py", "x = 1\n")
    write(root, "left.py", "import base, right\n")
    write(root, "right.py", "def f():\n    import left\nfrom left import g\n")
    write(root, "pack/__init__.py", "from . import inner\nfrom .inner import thing\n")
    write(root, "pack/inner.py", "import os.path, base\n" * 50)
    write(root, "pack/test/broken.py", "print 'two'\n")
    write(root, "site-packages/other.py", "import base\n")
    return root


def counts_of(root: Path) -> list[FileCounts]:
    return [demo_work.count_file(str(root), path) for path in demo_work.library_files(root)]


def edges_of(root: Path) -> set[tuple[str, str]]:
    return set(demo_graph.import_graph(counts_of(root)).edges)


def test_files_come_largest_first_and_without_what_users_installed(library: Path) -> None:
    paths = demo_work.library_files(library)
    assert paths[0] == "pack/inner.py"
    assert paths[-1] == "base.py"
    assert "pack/test/broken.py" in paths
    assert "site-packages/other.py" not in paths


def test_this_interpreter_has_well_over_500_files() -> None:
    assert len(demo_work.library_files(demo_work.library_root())) > 500


def test_a_file_is_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.py",
        "import os.path as p\nclass C:\n    async def f(self): return x + x + y\n",
    )
    assert demo_work.count_file(str(tmp_path), "a.py") == FileCounts(
        "a.py", definitions=2, names=2, lines=3, imports=("os.path",), is_parsed=True
    )


@pytest.mark.parametrize("text", ["print 'two'\n", "# coding: none\n", "\0\n"])
def test_what_is_not_python_is_counted_as_that(tmp_path: Path, text: str) -> None:
    write(tmp_path, "a.py", text)
    assert demo_work.count_file(str(tmp_path), "a.py") == FileCounts(
        "a.py", definitions=0, names=0, lines=1, imports=(), is_parsed=False
    )


def test_old_escapes_warn_nobody(tmp_path: Path) -> None:
    write(tmp_path, "a.py", r"x = '\d'")
    assert demo_work.count_file(str(tmp_path), "a.py").is_parsed


@pytest.mark.parametrize(
    ("path", "text", "imports"),
    [
        ("a/b.py", "from . import c", ("a.c",)),
        ("a/__init__.py", "from . import c", ("a.c",)),
        ("a/b/c.py", "from ..d import e", ("a.d.e",)),
        ("a.py", "from b.c import d, e", ("b.c.d", "b.c.e")),
        ("a.py", "try:\n import b\nexcept ImportError:\n import c", ("b", "c")),
        ("a.py", "class C:\n import b", ("b",)),
        ("a.py", "def f():\n import b", ()),
    ],
)
def test_imports_are_those_of_importing_the_module(
    tmp_path: Path, path: str, text: str, imports: tuple[str, ...]
) -> None:
    write(tmp_path, path, text)
    assert demo_work.count_file(str(tmp_path), path).imports == imports


def test_edges_lead_from_the_imported(library: Path) -> None:
    assert ("base", "pack.inner") in edges_of(library)


def test_modules_that_import_each_other_are_one_node(library: Path) -> None:
    graph = demo_graph.import_graph(counts_of(library))
    assert graph.nodes["left + 1"]["paths"] == ["left.py", "right.py"]
    assert networkx.is_directed_acyclic_graph(graph)


def test_tests_and_what_cannot_be_parsed_are_no_nodes(library: Path) -> None:
    assert set(demo_graph.import_graph(counts_of(library))) == {
        "base",
        "left + 1",
        "pack",
        "pack.inner",
    }


def run_in_order(
    library: Path, build_dir: Path
) -> tuple[networkx.DiGraph, dict[str, NodeSize]]:
    graph = demo_graph.import_graph(counts_of(library))
    jobs = demo_graph.graph_jobs(graph, str(library), str(build_dir))
    return graph, {node: jobs[node]() for node in networkx.topological_sort(graph)}


def test_a_node_adds_up_what_it_needs(library: Path, tmp_path: Path) -> None:
    graph, sizes = run_in_order(library, tmp_path)
    assert sizes["base"].own == sizes["base"].needed > 0
    assert sizes["pack"].needed == sum(sizes[n].own for n in ("base", "pack.inner", "pack"))
    demo_graph.check_sizes(graph, sizes)


def test_a_wrong_sum_is_found(library: Path, tmp_path: Path) -> None:
    graph, sizes = run_in_order(library, tmp_path)
    sizes["pack"] = NodeSize(sizes["pack"].own, 1)
    with pytest.raises(ValueError, match="pack: needs"):
        demo_graph.check_sizes(graph, sizes)


def test_a_node_cannot_run_before_what_it_imports(library: Path, tmp_path: Path) -> None:
    graph = demo_graph.import_graph(counts_of(library))
    job: partial[NodeSize] = demo_graph.graph_jobs(graph, str(library), str(tmp_path))["pack"]
    with pytest.raises(FileNotFoundError):
        job()
