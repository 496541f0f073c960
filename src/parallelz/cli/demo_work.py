"""What the engines of the demonstration compute; they import this module by name.

The input is Python's own library. `count_file` reads one of its files. `compile_node` is the
work at one node of the graph of what imports what, and can only be done after that of the
nodes it imports, for it reads what they wrote. Nothing here knows of clusters.
"""

from __future__ import annotations

import ast
import json
import marshal
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

NOT_PARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast` and `compile` raise for text that is not Python, or too deeply nested."""

INSTALLED_DIRS = frozenset({"site-packages", "dist-packages"})

OPTIMIZATION_LEVELS = (0, 1, 2)
"""Those of ``python``, ``python -O`` and ``python -OO``, as packagers compile."""


class FileCounts(NamedTuple):
    """What was counted in one file.

    Attributes
    ----------
    path
        Below the root, with slashes.
    definitions
        Functions, methods and classes. Like `names`, 0 if the file cannot be parsed.
    names
        Different names that occur.
    lines
        Also of a file that cannot be parsed.
    imports
        Full names of all that is imported when the module is; the last part of a name may be
        something inside a module.
    is_parsed
        The library's tests have some files that are wrong on purpose.
    """

    path: str
    definitions: int
    names: int
    lines: int
    imports: tuple[str, ...]
    is_parsed: bool


class NodeSize(NamedTuple):
    """Bytes of compiled code of one node, and of all nodes that it needs, itself included."""

    own: int
    needed: int


def library_root() -> Path:
    """Return the directory of the standard library of this interpreter."""
    return Path(sysconfig.get_path("stdlib"))


def library_files(root: Path) -> list[str]:
    """Return the paths below `root` of all its Python files, the largest first.

    What users installed there (`INSTALLED_DIRS`) is left out. To begin with the largest lets
    parallel work end at the same time everywhere.
    """
    found = [
        path
        for path in root.rglob("*.py")
        if not INSTALLED_DIRS.intersection(path.relative_to(root).parts)
    ]
    found.sort(key=lambda path: (-path.stat().st_size, path))
    return [path.relative_to(root).as_posix() for path in found]


def count_file(root: str, path: str) -> FileCounts:
    """Parse one file and count what is in it."""
    source = (Path(root) / path).read_bytes()
    line_count = len(source.splitlines())
    try:
        tree = _parse(source)
    except NOT_PARSED:
        return FileCounts(path, 0, 0, line_count, (), is_parsed=False)
    definition_count = 0
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definition_count += 1
    imports = tuple(sorted(set(_imports(tree, path))))
    return FileCounts(path, definition_count, len(names), line_count, imports, is_parsed=True)


def module_name(path: str) -> str:
    """Return the full name of the module in a file: ``a.b`` of ``a/b.py``."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def compile_node(
    root: str, build_dir: str, number: int, paths: Sequence[str], needed: Sequence[int]
) -> NodeSize:
    """Compile the modules of a node, and add up the compiled code of all that it needs.

    Parameters
    ----------
    build_dir
        Where each node leaves a file for those that need it.
    needed
        The numbers of the nodes that this one imports.

    Raises
    ------
    FileNotFoundError
        If one of those has not been compiled.
    """
    sizes: dict[str, int] = {}
    for other in needed:
        sizes.update(json.loads(_built_file(build_dir, other).read_bytes()))
    own = sum(_compiled_size(Path(root) / path) for path in paths)
    sizes[str(number)] = own
    _built_file(build_dir, number).write_text(json.dumps(sizes))
    return NodeSize(own, sum(sizes.values()))


def _parse(source: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes and the like: not ours to mend
        return ast.parse(source)


def _compiled_size(path: Path) -> int:
    source = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = [
            compile(source, str(path), "exec", dont_inherit=True, optimize=level)
            for level in OPTIMIZATION_LEVELS
        ]
    return sum(len(marshal.dumps(code)) for code in codes)


def _built_file(build_dir: str, number: int) -> Path:
    return Path(build_dir) / f"{number}.json"


def _imports(tree: ast.Module, path: str) -> Iterator[str]:
    """Name what is imported by running `tree`, without calling any function in it."""
    name = module_name(path)
    package = name if path.endswith("__init__.py") else name.rpartition(".")[0]
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    around = package.split(".")
                    around = around[: len(around) - node.level + 1]
                    base = ".".join([*around, base] if base else around)
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case _:
                waiting += ast.iter_child_nodes(node)
