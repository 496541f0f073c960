"""Code that comes as text, and what else is built into the engines, for all views."""

from __future__ import annotations

import copy
import functools
import tokenize
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from parallelz.client.definitions import Function
from parallelz.client.flagged import Flagged
from parallelz.client.outcomes import is_told_by_its_text
from parallelz.client.results import AsyncResult
from parallelz.client.session import Targets, is_all
from parallelz.protocol.functions import Definition, named_definition

__tracebackhide__ = is_told_by_its_text


@functools.cache
def verb(name: str) -> Definition:
    """Return the definition of a function that is built into the engines."""
    return named_definition("parallelz.engine.verbs", name)


class RunsCells(Flagged, ABC):
    """What runs code on its engines, or on others."""

    _targets: int | str | Sequence[int] | None

    @abstractmethod
    def _submit(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        bound: bool,
        name: str = "",
    ) -> AsyncResult: ...

    def _verb(self, name: str, *args: object) -> AsyncResult:
        return self._submit(verb(name), args, {}, bound=True, name=name)

    def execute(
        self,
        code: str,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        silent: bool = False,
        targets: Targets = None,
    ) -> AsyncResult:
        """Run a string of code as a cell of IPython in the engine's namespace.

        Parameters
        ----------
        silent
            Keep the value of the last expression neither in the result nor in ``Out``.
        targets
            Other engines than those of this view.

        Returns
        -------
        AsyncResult
            With ``stdout``, ``outputs`` and the like. If it blocks, it has ended well.
        """
        return self._execute((code, "", silent), block=block, targets=targets)

    def run(
        self,
        filename: str | Path,
        block: bool | None = None,  # noqa: FBT001 - as users know it
        *,
        targets: Targets = None,
    ) -> AsyncResult:
        """Run the content of a Python file of this host in the engine's namespace."""
        path = Path(filename).expanduser()
        with tokenize.open(path) as file:  # in the encoding that it declares
            code = file.read() + "\n"
        return self._execute((code, str(path)), block=block, targets=targets)

    def _execute(
        self, args: tuple[object, ...], *, block: bool | None, targets: Targets = None
    ) -> AsyncResult:
        result = self._at(targets)._verb("execute", *args)
        if self._is_blocking(block):
            result.get()
        return result

    def _at(self, targets: Targets) -> Self:
        """Return this view, or the same for other engines."""
        if targets is None:
            return self
        other = copy.copy(self)
        other._aim(None if is_all(targets) else self._session.resolve(targets))
        return other

    @abstractmethod
    def _aim(self, chosen: int | list[int] | None) -> None:
        """Let it be for these engines, None: all."""
