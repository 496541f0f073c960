"""Notes what a block of code imports."""

from __future__ import annotations

import builtins
import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import resolve_name
from types import ModuleType


@contextlib.contextmanager
def recorded_imports(*, quiet: bool) -> Iterator[list[str]]:
    """Give a list that fills with the statements that the caller's caller imports by.

    Imports inside of imported modules are not noted, nor those of other threads. Unless
    `quiet`, says what is noted.
    """
    statements: list[str] = []
    original = builtins.__import__
    own_thread = threading.get_ident()
    depth = 0

    def note(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        nonlocal depth
        if threading.get_ident() != own_thread:
            return original(name, globals, locals, fromlist or (), level)
        depth += 1
        try:
            module = original(name, globals, locals, fromlist or (), level)
        finally:
            depth -= 1
        if depth == 0:
            absolute = resolve_name("." * level + name, _package_of(globals)) if level else name
            statement, what = _described(absolute, fromlist or ())
            statements.append(statement)
            if not quiet:
                sys.stdout.write(f"importing {what} on engine(s)\n")
        return module

    builtins.__import__ = note
    try:
        yield statements
    finally:
        builtins.__import__ = original


def _package_of(names: Mapping[str, object] | None) -> str:
    # The import has succeeded: there is a package.
    return str((names or {})["__package__"])


def _described(module: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the statement that imports the same, and how to call it."""
    if not names:
        return f"import {module}", module
    return f"from {module} import {', '.join(names)}", f"{','.join(names)} from {module}"
