"""What views keep for later calls: flags, which are attributes that can be set by name."""

from __future__ import annotations

import contextlib
import copy
import functools
import operator
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from parallelz.client.session import Session


@functools.cache
def _attributes_of(
    flag_names: tuple[str, ...],
) -> tuple[tuple[str, ...], operator.attrgetter[tuple[object, ...]]]:
    """Return where the flags are kept, and what reads all of them at once."""
    names = tuple("_block" if name == "block" else name for name in flag_names)
    return names, operator.attrgetter(*names)


class Flagged:
    """Has flags, and follows the `block` of its client until it gets one of its own."""

    flag_names: ClassVar[tuple[str, ...]]

    _session: Session
    _block: bool | None = None  # None: as the client says

    @property
    def block(self) -> bool:
        """Whether calls wait for their results, for those whose name does not say.

        As long as it was not set, or set to None, it is that of the client.
        """
        return self._session.block if self._block is None else self._block

    @block.setter
    def block(self, value: bool | None) -> None:
        self._block = value

    def _is_blocking(self, block: bool | None) -> bool:  # noqa: FBT001
        return self.block if block is None else block

    def set_flags(self, **flags: object) -> Self:
        """Set attributes by name, all of them or none.

        Raises
        ------
        AttributeError
            If one is ``targets`` or ``balanced``, which are for good.
        KeyError
            If one is no flag.
        TypeError, ValueError
            If a value cannot be that of its flag.
        """
        for name, value in flags.items():
            if name in ("targets", "balanced"):
                setattr(self, name, value)  # says what to do instead
            if name not in self.flag_names:
                raise KeyError(
                    f"Invalid name: {name!r}; flags are {', '.join(self.flag_names)}"
                )
        before = {name: self._kept(name) for name in flags}
        try:
            self._put(flags)
        except (TypeError, ValueError):
            self._put(before)
            raise
        return self

    @contextlib.contextmanager
    def temp_flags(self, **flags: object) -> Iterator[None]:
        """Set attributes by name for the length of a ``with`` block, in all threads."""
        names, read = _attributes_of(self.flag_names)
        before = read(self)
        try:
            self.set_flags(**flags)
            yield
        finally:
            for name, now, then in zip(names, read(self), before, strict=True):
                if now is not then:
                    setattr(self, name, then)

    def with_flags(self, **flags: object) -> Self:
        """Return a copy with other flags; its calls are in the history of the original, too.

        Unlike `temp_flags` it does not concern other threads. Raises what `set_flags` does.
        """
        return copy.copy(self).set_flags(**flags)

    def _kept(self, name: str) -> object:
        return self._block if name == "block" else getattr(self, name)

    def _put(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if self._kept(name) is not value:
                setattr(self, name, value)
