"""What all launchers have in common, whatever they start processes with.

A launcher is one controller or one set of engines. It goes once through its states::

    before --start()--> running --its end, by stop() or not--> after

A controller that dies and is started again is running all the time. A launcher is written down
as `LaunchedFacts`, from which another process can take it up again. It is known to users by a
short name, such as ``local``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from parallelz import settings
from parallelz.controller_limits import USUAL_LIMITS, ControllerLimits
from parallelz.engine_options import EngineOptions
from parallelz.protocol.connection import Heartbeat

LaunchState = Literal["before", "running", "after"]


class Place(NamedTuple):
    """Which cluster a launcher works for, and whether that is to outlive us."""

    profile_dir: Path
    cluster_id: str
    parent_pid: int | None  # what is launched ends when this process does; None: it stays
    socket_dir: str = ""  # tells the cluster from others with its id; for its controller


class HistoryLimits(NamedTuple):
    """How much of the history is kept, oldest tasks go first; None: any amount."""

    max_age_s: float | None = None
    max_count: int | None = None
    max_bytes: int | None = None

    @property
    def arguments(self) -> list[str]:
        """The same as options of a controller."""
        given = [(name, limit) for name, limit in self._asdict().items() if limit is not None]
        return [f"--history-{name.replace('_', '-')}={limit}" for name, limit in given]


class ControllerOptions(NamedTuple):
    """How a controller is to be started."""

    ip: str = ""  # also listen here, for other hosts
    port: int = 0  # for other hosts; 0: one that is free
    store: str = settings.DEFAULT_STORE
    scheme: str = settings.DEFAULT_SCHEME
    hwm: int | None = None  # None: as much as covers the round trip
    history: HistoryLimits = HistoryLimits()
    limits: ControllerLimits = USUAL_LIMITS
    heartbeat: Heartbeat = Heartbeat()  # of the connection files
    reuse: bool = False  # connection files of before, and leave them for later
    location: str = ""  # address by which others reach it; "": it finds that out

    @property
    def arguments(self) -> list[str]:
        """What the process is told; its addresses are in the connection files."""
        arguments = ["--store", self.store, "--scheme", self.scheme, *self.history.arguments]
        if self.hwm is not None:
            arguments += ["--hwm", str(self.hwm)]
        if self.limits != USUAL_LIMITS:
            arguments += ["--limits", self.limits.encode()]
        return arguments


class LaunchedFacts(msgspec.Struct, frozen=True):
    """What is written down of something that was launched."""

    launcher: str
    pid: int  # 0: it has no process on this host
    started: str  # tells the process from a later one with the same pid
    log: str
    n: int = 1
    options: EngineOptions = EngineOptions()  # of engines
    launcher_options: dict[str, Any] = {}  # what the launcher was told, as in JSON
    details: dict[str, str] = {}  # by which the launcher finds it again, such as a job's id


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

    def explain_end(self) -> str:
        """Return how it ended and what it said last, for an error."""
        ...

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of it."""
        ...


class LaunchedController(Launcher, Protocol):
    """A controller, and whatever is started in its place if it dies."""

    @property
    def pid(self) -> int:
        """Its process on this host, or what stands for it; 0: there is none."""
        ...

    @property
    def makes_files(self) -> bool:
        """Whether the connection files are there only when it is ready."""
        ...

    @property
    def is_taken_up(self) -> bool:
        """Whether another process started it."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether it died and was not started again though nobody had asked for its end."""
        ...

    def wait_ready(self, timeout_s: float = settings.START_TIMEOUT_S) -> None:
        """Wait until it listens.

        Raises
        ------
        ClusterError
            If it ended instead, with its last words, or needs longer than `timeout_s`.
        """
        ...

    def leave(self) -> None:
        """Let it run, but start no other from now on, as this process is about to end."""
        ...


class EngineSet(Launcher, Protocol):
    """Engines that were started together and are stopped together."""

    n: int
    options: EngineOptions

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        ...

    def shortfall(self) -> str:
        """Return why some of them will not come while others run; "": all may."""
        ...

    def why_waiting(self) -> str:
        """Return why some of them have not been started yet; "": all were."""
        ...

    @property
    def launcher_options(self) -> Mapping[str, Any]:
        """What the launcher was told, enough to start the same once more."""
        ...


def usable_core_count() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_lines(log: Path, *, line_count: int = settings.LOG_LINES_SHOWN) -> str:
    """Return the end of a log, "" if there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 400 * line_count))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-line_count:])


def describe_code(returncode: int) -> str:
    """Return how a process ended that gave this code, after its name.

    >>> describe_code(-9)
    'was killed by signal 9 (SIGKILL)'
    """
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = f" ({signal.Signals(-returncode).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"was killed by signal {-returncode}{name}"


def describe_end(what: str, returncode: int | None, log: Path, *, more: str = "") -> str:
    """Return why something ended that should not have, as far as is known, for an error.

    Parameters
    ----------
    what
        Its name, with which the text begins.
    returncode
        None: it runs, but did not get ready.
    log
        Its last lines are shown.
    more
        A sentence to put behind the first one.
    """
    how = "did not get ready in time" if returncode is None else describe_code(returncode)
    lines = last_lines(log)
    shown = f"Its last words:\n\n{lines}\n\n" if lines else "It logged nothing. "
    return f"{what} {how}. {more and f'{more} '}{shown}The whole log: {log}"
