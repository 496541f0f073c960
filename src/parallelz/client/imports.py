"""Notes what a block of code imports."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType


@contextlib.contextmanager
def recorded_imports(*, quiet: bool) -> Iterator[list[str]]:
    """Give a list that fills with the statements that the caller's caller imports by.

    Imports inside of imported modules are not noted. Unless `quiet`, says what is noted.
    """
    statements: list[str] = []
    original = builtins.__import__
    depth = 0

    def note(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        nonlocal depth
        depth += 1
        try:
            module = original(name, globals, locals, fromlist or (), level)
        finally:
            depth -= 1
        if depth == 0 and level == 0:
            names = ", ".join(fromlist or ())
            statements.append(f"from {name} import {names}" if names else f"import {name}")
            if not quiet:
                what = f"{','.join(fromlist or ())} from {name}" if names else name
                sys.stdout.write(f"importing {what} on engine(s)\n")
        return module

    builtins.__import__ = note
    try:
        yield statements
    finally:
        builtins.__import__ = original
