"""Awaitable twins of methods that block, for event loops and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


def awaited(
    method: Callable[Concatenate[C, P], R],
) -> Callable[Concatenate[C, P], Coroutine[object, object, R]]:
    """Return the twin of ``name_sync``, called ``name``, which runs it in a thread."""

    async def twin(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        # Only who awaits has asyncio loaded already; it takes a while.
        import asyncio

        return await asyncio.to_thread(method, self, *args, **kwargs)

    twin.__name__ = method.__name__.removesuffix("_sync")
    twin.__qualname__ = method.__qualname__.removesuffix("_sync")
    twin.__doc__ = f"Do as `{method.__name__}`, in a thread."
    return twin
