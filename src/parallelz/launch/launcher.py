"""What all launchers have in common, whatever they start processes with.

A launcher is one controller or one set of engines. It goes once through its states::

    before --start()--> running --the process ends, by stop() or not--> after

and is written down as `LaunchedFacts`, from which another process can take it up again. A
launcher is known to users by a short name, such as ``local``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError

LaunchState = Literal["before", "running", "after"]

LAUNCHER_NAMES = ("local",)


class Place(NamedTuple):
    """Which cluster a launcher works for, and whether that is to outlive us."""

    profile_dir: Path
    cluster_id: str
    parent_pid: int | None  # what is launched ends when this process does; None: it stays


class ControllerOptions(NamedTuple):
    """How a controller is to be started."""

    ip: str = ""  # also listen here, for other hosts
    port: int = 0  # for other hosts; 0: one that is free
    store: str = settings.DEFAULT_STORE
    scheme: str = settings.DEFAULT_SCHEME
    hwm: int | None = None  # None: as much as covers the round trip


class LaunchedFacts(msgspec.Struct, frozen=True):
    """What is written down of something that was launched."""

    launcher: str
    pid: int
    started: str  # tells the process from a later one with the same pid
    log: str
    n: int = 1
    options: EngineOptions = EngineOptions()  # of engines


class Launcher(Protocol):
    """Starts one thing, knows whether it runs, and stops it."""

    @property
    def state(self) -> LaunchState:
        """Whether it was started, runs, or has ended."""
        ...

    @property
    def log(self) -> Path:
        """The file that takes up its output."""
        ...

    def start(self) -> None:
        """Start it, without waiting until it is ready.

        Raises
        ------
        ClusterError
            If that is not possible. Nothing runs then.
        """
        ...

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal), None while it runs.

        What another process had started ends with an exit code of 0, as its real one is
        told to nobody but its parent.
        """
        ...

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""
        ...

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` once it has ended, from another thread or, if late, at once."""
        ...

    def signal(self, signum: int) -> None:
        """Send a signal to it, or to each engine of a set; after its end to nobody."""
        ...

    def terminate(self) -> None:
        """Ask it to end, without waiting. To ask twice is to ask once."""
        ...

    def stop(self, grace_s: float = settings.STOP_GRACE_S) -> None:
        """Ask it to end, wait, and end it by force after `grace_s`. It has ended then."""
        ...

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of it."""
        ...


def check_launcher(name: str) -> None:
    """Raise ClusterError unless there is a launcher called `name`."""
    if name not in LAUNCHER_NAMES:
        known = ", ".join(LAUNCHER_NAMES)
        raise ClusterError(f"there is no launcher called {name!r}; known are: {known}")


def usable_core_count() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_lines(
    log: Path, *, offset: int = 0, line_count: int = settings.LOG_LINES_SHOWN
) -> str:
    """Return the end of a log, "" if there is none. What is before `offset` is of earlier."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - 400 * line_count))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-line_count:])


def describe_end(what: str, returncode: int | None, log: Path, *, offset: int = 0) -> str:
    """Return why something ended that should not have, as far as is known, for an error."""
    if returncode is None:
        how = "did not get ready in time"
    elif returncode < 0:
        how = f"was ended by signal {-returncode}"
    else:
        how = f"ended with exit code {returncode}"
    lines = last_lines(log, offset=offset)
    shown = f"Its last words:\n\n{lines}\n\n" if lines else "It logged nothing. "
    return f"{what} {how}. {shown}The whole log: {log}"
