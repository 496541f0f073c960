"""What clients do to an engine's namespace. They are tasks like any other, bound ones."""

from __future__ import annotations

import linecache
from typing import Any

from parallelz.engine.namespace import Main, Namespace

_main: list[Main] = []
_shell: list[Any] = []


def serve(main: Main) -> None:
    """Let `execute` work in this module."""
    _main[:] = [main]
    _shell.clear()


def push(namespace: Namespace, values: dict[str, object]) -> None:
    """Assign each value to its name, which may be dotted or indexed (``a.b``, ``x[3]``)."""
    names = _main[0].names
    for name, value in values.items():
        if name.isidentifier():
            names[name] = value
        else:
            exec(compile(f"{name} = _pushed", "<push>", "exec"), names, {"_pushed": value})


def pull(namespace: Namespace, names: str | list[str]) -> object:
    """Return what a name or expression stands for; a list for a list of them."""
    if isinstance(names, str):
        return _pull_one(names)
    return [_pull_one(name) for name in names]


def _pull_one(name: str) -> object:
    names = _main[0].names
    if name.isidentifier():
        if name in names:
            return names[name]
        raise NameError(f"name {name!r} is not defined")
    return eval(name, names)


def execute(
    namespace: Namespace,
    code: str,
    filename: str = "",
    silent: bool = False,  # noqa: FBT001, FBT002 - by place
) -> None:
    """Run code as a cell of IPython, which keeps no value if `silent`; or as a file's."""
    from parallelz.engine import shell  # brings IPython, at the first use only

    if not _shell:
        _shell.append(shell.make_shell(_main[0]))
    if filename:
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        exec(compile(code, filename, "exec"), _main[0].names)
    else:
        shell.run(_shell[0], code, silent=silent)
