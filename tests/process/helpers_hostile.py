"""The catalogue of objects that do not behave, as if a user had typed it in.

It is run as ``__main__`` by `test_hostile`, so that its classes and functions go by value.
"""

from __future__ import annotations

import collections
import ctypes
import enum
import functools
import io
import math
import os
import socket
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any


class FailsInReduce:
    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")


class FailsInReduceEx:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise KeyError("no reduce_ex")


class FailsInGetstate:
    def __getstate__(self) -> Any:
        raise RuntimeError("no getstate")


class FailsWithoutWords:
    def __reduce__(self) -> Any:
        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

        raise Mute


class LiesAboutItsClass:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    def __reduce__(self) -> Any:
        raise RuntimeError("no reduce")


class HasUnreadableAttributes:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Key:
    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


async def coroutine() -> None: ...


def closed_coroutine() -> Any:
    made = coroutine()
    made.close()
    return made


def socket_of_nothing() -> socket.socket:
    with socket.socket() as made:
        return made


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "reduce raises": (FailsInReduce, "argument 0: RuntimeError: no reduce"),
    "reduce_ex raises": (FailsInReduceEx, "argument 0: KeyError: 'no reduce_ex'"),
    "getstate raises": (FailsInGetstate, "argument 0: RuntimeError: no getstate"),
    "an error without words": (FailsWithoutWords, r"Mute: <str\(\) of it failed: ValueError>"),
    "class raises": (LiesAboutItsClass, "RuntimeError: no "),
    "attributes raise": (HasUnreadableAttributes, "RuntimeError: no "),
    "lock": (threading.Lock, "argument 0: cannot pickle '_thread.lock' object"),
    "lock inside": (lambda: {"a": [1, threading.Lock()]}, r"\['a'\]\[1\]: cannot"),
    "lock under an odd key": (lambda: {Key(): threading.Lock()}, r"\[<Key>\]: "),
    "lock under a huge key": (lambda: {10**5000: threading.Lock()}, r"\[<int>\]: cannot"),
    "generator": (lambda: (i for i in range(3)), "cannot pickle 'generator' object"),
    "coroutine": (closed_coroutine, "cannot pickle 'coroutine' object"),
    "socket": (socket_of_nothing, "cannot pickle 'socket' object"),
    "weak reference": (lambda: weakref.ref(Key), "cannot pickle 'weakref"),
    "thread": (threading.current_thread, "cannot pickle '_thread"),
    "frame": (sys._getframe, "cannot pickle 'frame' object"),
    "nested too deeply": (lambda: nested(100_000), "it is nested too deeply to be pickled"),
}


class FailsInSetstate:
    def __init__(self) -> None:
        self.x = 1

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("no setstate")


class Unusable:
    """Everything about it raises but its pickling."""

    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("no")

    __eq__ = __len__ = __bool__ = __repr__ = __iter__ = __contains__ = _fail
    __array__ = __getitem__ = __float__ = __index__ = __format__ = __call__ = _fail
    __hash__ = _fail  # type: ignore[assignment]


class NoAttributes:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


class Color(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "left right")


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        return super().__call__(*args)


class Base:
    def __init__(self, value: int = 1) -> None:
        self.value = value

    @property
    def twice(self) -> int:
        return 2 * self.value


class Derived(Base, metaclass=Meta):
    def more(self) -> int:
        return self.twice + 1


class Text(str):
    __slots__ = ()


def cyclic() -> list[Any]:
    made: list[Any] = [1]
    made.append({"self": made})
    return made


SENT: dict[str, Callable[[], Any]] = {
    "everything raises": Unusable,
    "getattr raises": NoAttributes,
    "derived with a metaclass": Derived,
    "bound method": lambda: Derived(3).more,
    "partial": lambda: functools.partial(pow, 2),
    "enum": lambda: Color.RED,
    "namedtuple": lambda: Pair(1, 2),
    "subclass of str": lambda: Text("x"),
    "cyclic": cyclic,
    "huge int": lambda: 10**5000,
    "NaN as a key": lambda: {math.nan: 1},
    "half a surrogate": lambda: "\udc80abc",
    "module": lambda: os.path,
    "mapping proxy": lambda: types.MappingProxyType({"a": 1}),
    "stream": lambda: io.StringIO("text"),
    "odd memory": lambda: memoryview(bytes(16)).cast("d"),
    "ctypes": lambda: ctypes.c_int(3),
    "exception": lambda: ValueError("v"),
    "lambda of lambdas": lambda: lambda: (lambda x: x + 1)(2),
    "exhausted iterator": lambda: iter(int, 0),
    "class of main": lambda: type("Local", (), {"x": 1, "__module__": "__main__"}),
}
