"""A controller on this host; it is started again if it dies without having been asked to.

The thread that waits for its end does that, with the same files and ``--resume``, under the
lock of the cluster file. So whoever stops the cluster meanwhile either finds the new process
written down, or has said so before and there is none. To its users all these processes are one
controller: `pid` is that of the latest, `state`, `wait` and `on_stop` are about the last.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from parallelz import settings
from parallelz.errors import ClusterError
from parallelz.launch.cluster_file import ChangingFacts
from parallelz.launch.launcher import (
    ControllerOptions,
    LaunchedFacts,
    Place,
    describe_code,
    describe_end,
)
from parallelz.launch.local import NO_LAUNCHER_OPTIONS, LocalProcess

logger = logging.getLogger(__name__)

RESTARTS_MAX = 5
RESTARTS_PERIOD_S = 60.0

DEFAULTS = ControllerOptions()

ENDS_WHEN_ASKED = (0, -signal.SIGTERM, -signal.SIGINT)
"""Codes of a controller that was told to end, be it before it could handle the signal."""


def controller_command(
    place: Place,
    options: ControllerOptions = DEFAULTS,
    *,
    ready_fd: int | None = None,
    resume: bool = False,
    python: str = sys.executable,
) -> list[str]:
    """Return the command line of a controller that also removes its files at its end."""
    # -P: a random.py of the user's must not end up in the controller.
    command = [python, "-P", "-m", "parallelz.cli.ipcontrollerz"]
    command += ["--launched", place.socket_dir]
    command += ["--profile-dir", str(place.profile_dir), "--cluster-id", place.cluster_id]
    command += options.arguments
    if options.ip:
        command += ["--ip", options.ip]
    if options.port:
        command += ["--port", str(options.port)]
    if ready_fd is not None:
        command += ["--ready-fd", str(ready_fd)]
    if place.parent_pid is not None:
        command += ["--parent-pid", str(place.parent_pid)]
    if resume:
        command.append("--resume")
    return command


class RestartLimit:
    """Counts restarts: too many within a short time mean that one more is of no use."""

    def __init__(self) -> None:
        self._latest_s: deque[float] = deque(maxlen=RESTARTS_MAX)

    def allows_one_more(self, now_s: float) -> bool:
        """Return whether there may be a restart now; if so, count it."""
        latest = self._latest_s
        if len(latest) == RESTARTS_MAX and now_s - latest[0] < RESTARTS_PERIOD_S:
            return False
        latest.append(now_s)
        return True


class LocalController(LocalProcess):
    """A controller on this host. Its connection files must be there before it is started.

    Launchers of other controllers that have a process here inherit from it.

    Parameters
    ----------
    place, options
        Which cluster it is of, and how it is started, at first and again.
    launcher_options
        None are known.
    changing_facts
        For writing down which process takes the place of one that died. None: no other is
        started.
    """

    name = "local"
    makes_files = False  # the connection files are there before it starts

    def __init__(
        self,
        place: Place,
        options: ControllerOptions = DEFAULTS,
        *,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
        changing_facts: ChangingFacts | None = None,
    ) -> None:
        log = settings.log_file(place.profile_dir, place.cluster_id, "controller")
        super().__init__("the controller", log)
        self.launcher_options = dict(launcher_options)
        self._place = place
        self._options = options
        self._changing_facts = changing_facts
        self._ready_fd: int | None = None
        self._was_ready = False
        self._may_start = threading.RLock()  # held while another is started
        self._is_left = False
        self._limit = RestartLimit()
        self._verdict = ""  # why there is no other any more

    @classmethod
    def check(cls, launcher_options: Mapping[str, Any]) -> None:
        """Raise ClusterError if it cannot use these options."""
        if launcher_options:
            raise ClusterError(
                "the launcher local of a controller has no options, but was given"
                f" {list(launcher_options)}"
            )

    @staticmethod
    def needs_network(launcher_options: Mapping[str, Any]) -> bool:
        """Whether it is to listen for other hosts wherever its engines are."""
        return False

    @classmethod
    def from_facts(cls, facts: LaunchedFacts, place: Place) -> Self:
        """Take up a controller that was started by another process, or see that it ended.

        That process starts another one if it dies; this launcher stands for this one only.
        """
        controller = cls(place, launcher_options=facts.launcher_options)
        controller._log = Path(facts.log)
        controller._attach(facts)
        return controller

    @property
    def is_taken_up(self) -> bool:
        """Whether another process started it."""
        return self.state != "before" and self._changing_facts is None

    @property
    def has_failed(self) -> bool:
        """Whether it died and was not started again though nobody had asked for its end."""
        return self._verdict != "" and self.state == "after"

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._ready_fd, writer = os.pipe()
        try:
            self._spawn(self._command(ready_fd=writer), [writer])
        except BaseException:
            self._close_ready_fd()
            raise
        finally:
            os.close(writer)

    def _command(self, *, ready_fd: int | None = None, resume: bool = False) -> list[str]:
        return controller_command(self._place, self._options, ready_fd=ready_fd, resume=resume)

    def wait_ready(self, timeout_s: float = settings.START_TIMEOUT_S) -> None:
        """Wait until it listens. Only from then on it is started again if it dies.

        Raises
        ------
        ClusterError
            If it ended instead, with its last words, or needs longer than `timeout_s`.
        """
        if self._ready_fd is None:
            return
        poller = select.poll()
        poller.register(self._ready_fd, select.POLLIN)
        ready = poller.poll(timeout_s * 1000)
        said = os.read(self._ready_fd, 64) if ready else b""
        self._close_ready_fd()
        if said:
            self._was_ready = True
            return
        if ready:
            # Its end of the pipe is closed, so its exit code is about to be known.
            self._ended.wait(settings.LINGER_S)
        raise ClusterError(self.explain_end())

    def _close_ready_fd(self) -> None:
        if self._ready_fd is not None:
            os.close(self._ready_fd)
            self._ready_fd = None

    def terminate(self) -> None:
        """Ask it to end, without waiting. To ask twice is to ask once."""
        with self._may_start:  # either there is another by now, or there will not be
            super().terminate()

    def leave(self) -> None:
        """Let it run, but start no other from now on, as this process is about to end."""
        with self._may_start:
            self._is_left = True

    def stop(self, grace_s: float = settings.STOP_GRACE_S) -> None:
        """Ask it to end, wait, and end it and its recorder by force after `grace_s`."""
        super().stop(grace_s)
        self._close_ready_fd()

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of it."""
        return LaunchedFacts(
            self.name,
            self._pid,
            self._started,
            str(self._log),
            launcher_options=self.launcher_options,
        )

    def explain_end(self) -> str:
        """Return how it ended, why no other was started, and what it said last."""
        return describe_end(self._name, self.poll(), self._log, more=self._verdict)

    # -- in the thread that waits ------------------------------------------------------------

    def _follow(self, wait: Callable[[], int]) -> None:
        returncode = wait()
        while (wait_again := self._start_again(returncode)) is not None:
            returncode = wait_again()
        if self._verdict:
            logger.error(
                "%s", describe_end(self._name, returncode, self._log, more=self._verdict)
            )
        self._end(returncode)

    def _start_again(self, returncode: int) -> Callable[[], int] | None:
        """Start another if this one died; return what waits for its end, or None."""
        is_meant = returncode in ENDS_WHEN_ASKED or not self._was_ready
        if is_meant or self._changing_facts is None:
            return None
        how = describe_code(returncode)
        # What it may raise means that somebody has stopped the cluster and removed its files.
        try:
            with self._changing_facts() as facts, self._may_start:
                if facts.is_stopping or self._terminated or self._is_left:
                    return None
                wait = self._open_again(how)
                facts.controller = self.to_facts()
        except (ClusterError, FileNotFoundError):
            return None
        if wait is not None:
            logger.warning("%s %s; started again (pid %d)", self._name, how, self._pid)
        return wait

    def _open_again(self, how: str) -> Callable[[], int] | None:
        if not self._limit.allows_one_more(time.monotonic()):
            self._verdict = (
                f"It died {RESTARTS_MAX + 1} times within {RESTARTS_PERIOD_S:g} s and is not"
                " started again."
            )
            return None
        heading = f"= {self._name} {how}; another one begins here\n"
        try:
            return self._open(self._command(resume=True), heading=heading)
        except OSError as error:
            self._verdict = f"It cannot be started again: {error}."
            return None
