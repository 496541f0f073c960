"""The engine's namespace: what tasks see as globals, and what `execute` works in.

It is the dictionary of a module called ``__main__``, so that classes and functions made on the
engine are found where pickle looks for them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, MutableMapping
from typing import NoReturn


class Namespace(MutableMapping[str, object]):
    """The engine's names, as a mapping and as attributes: ``ns.b *= 2``.

    Bound functions get it as their first argument.
    """

    __slots__ = ("_names",)
    _names: dict[str, object]

    def __init__(self, names: dict[str, object]) -> None:
        object.__setattr__(self, "_names", names)

    def __getitem__(self, name: str) -> object:
        return self._names[name]

    def __setitem__(self, name: str, value: object) -> None:
        self._names[name] = value

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getattr__(self, name: str) -> object:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(f"the engine has no name {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        self._names[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._names[name]
        except KeyError:
            raise AttributeError(f"the engine has no name {name!r}") from None

    def __reduce__(self) -> NoReturn:
        raise TypeError("the engine's namespace cannot be sent; send the names that you need")

    def __repr__(self) -> str:
        names = [name for name in self._names if not name.startswith("_")]
        return f"<Namespace {', '.join(names) or '(empty)'}>"


class Main:
    """The ``__main__`` module of this engine.

    Attributes
    ----------
    before_clear
        Called before the names are forgotten, by `clear`.
    """

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.module.__dict__["__builtins__"] = __builtins__
        self.names: dict[str, object] = self.module.__dict__
        self.namespace = Namespace(self.names)
        self.before_clear: list[Callable[[], object]] = []
        self._initial = dict(self.names)
        sys.modules["__main__"] = self.module

    def clear(self) -> None:
        """Leave only the names that were there at the start."""
        for prepare in self.before_clear:
            prepare()
        self.names.clear()
        self.names.update(self._initial)
