"""What a forked process does with clients: they stay its parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Disownable(Protocol):
    """What holds threads, sockets or pipes that a forked process must leave alone."""

    def disown(self) -> None:
        """Forget them; called in the forked process."""
        ...


_living: weakref.WeakSet[Disownable] = weakref.WeakSet()


def disowned_by_forks(owner: Disownable) -> None:
    """Have `disown` called in each process that is forked from now on."""
    _living.add(owner)


def _disown_all() -> None:
    for owner in list(_living):
        owner.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
