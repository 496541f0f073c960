"""Processes of this host, and engines as such; controllers are in `local_controller`.

Each is started in a session of its own, so that the Ctrl-C of a terminal reaches only the
process that started them, which then stops them in order; and its process group is what gets
killed when asking does not help. One thread per process waits for its end.

A signal that arrives while a process is being started is held back until it is known, so
that an interrupt at any moment leaves none behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.ending import Ending
from parallelz.launch.launcher import (
    LaunchedFacts,
    LaunchState,
    Place,
    describe_end,
    usable_core_count,
)

NO_OPTIONS = EngineOptions()
NO_LAUNCHER_OPTIONS: Mapping[str, Any] = {}

_HELD_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def engines_command(
    place: Place,
    n: int,
    *,
    log_dir: Path,
    options: EngineOptions = NO_OPTIONS,
    python: str = sys.executable,
) -> list[str]:
    """Return the command line of a supervisor with `n` engines."""
    file = settings.connection_file(place.profile_dir, place.cluster_id, "engine")
    command = [python, "-m", "parallelz.engine.process", "--file", str(file), "-n", str(n)]
    # The file is there; if it is not, the cluster was stopped already.
    command += ["--wait-s", "0", "--log-dir", str(log_dir), *options.arguments]
    if place.parent_pid is not None:
        command += ["--parent-pid", str(place.parent_pid)]
    return command


class LocalProcess:
    """One process and its group; what controllers and sets of engines share.

    It is either ours (`_spawn`) or was started by a process before us (`_attach`).
    """

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._pid = 0
        self._started = ""
        self._returncode: int | None = None
        self._terminated = False
        self._ended = Ending()

    @property
    def state(self) -> LaunchState:
        """Whether it was started, runs, or has ended."""
        if not self._pid:
            return "before"
        return "after" if self._ended.is_there else "running"

    @property
    def log(self) -> Path:
        """The file that takes up its output."""
        return self._log

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal), None while it runs."""
        return self._returncode if self._ended.is_there else None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""
        return self.state == "before" or self._ended.wait(timeout_s)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` once it has ended, from another thread or, if late, at once."""
        self._ended.call(callback)

    def signal(self, signum: int) -> None:
        """Send a signal to the process alone."""
        if self.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signum)

    def terminate(self) -> None:
        """Ask it to end, without waiting. To ask twice is to ask once."""
        if not self._terminated:
            self._terminated = True
            self.signal(signal.SIGTERM)

    def stop(self, grace_s: float = settings.STOP_GRACE_S) -> None:
        """Ask it to end, wait, and end its whole group by force after `grace_s`."""
        if self.state != "running":
            return
        self.terminate()
        if not self._ended.wait(grace_s):
            self._kill_group()
            self.signal(signal.SIGKILL)  # if it leads no group, as a shell's command may not
            self._ended.wait()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._terminated

    def explain_end(self) -> str:
        """Return how it ended and what it said last, for an error."""
        return describe_end(self._name, self.poll(), self._log)

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of it."""
        return LaunchedFacts("local", self._pid, self._started, str(self._log))

    def _spawn(self, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        if self._pid:
            raise ClusterError(f"{self._name} was started already")
        _keep_previous(self._log)
        with _signals_held():
            try:
                wait = self._open(command, pass_fds)
            except OSError as error:
                raise ClusterError(f"cannot start {self._name}: {error}") from error
            self._watch(wait)

    def _open(
        self, command: Sequence[str], pass_fds: Sequence[int] = (), *, heading: str = ""
    ) -> Callable[[], int]:
        """Start a process, from now on ours; return what waits for its end."""
        with self._log.open("ab") as output:
            output.write(heading.encode())
            output.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self._pid, self._started = process.pid, process_started(process.pid)
        return process.wait

    def _attach(self, facts: LaunchedFacts) -> None:
        self._pid, self._started = facts.pid, facts.started
        if is_alive(facts.pid, facts.started):
            self._watch(lambda: _wait_for_stranger(facts.pid))
        else:
            self._end(0)

    def _watch(self, wait: Callable[[], int]) -> None:
        threading.Thread(
            target=lambda: self._follow(wait), name=f"waits for {self._name}", daemon=True
        ).start()

    def _follow(self, wait: Callable[[], int]) -> None:
        """Wait for the end, in a thread of its own."""
        self._end(wait())

    def _end(self, returncode: int) -> None:
        self._returncode = returncode
        self._ended.come()

    def _kill_group(self) -> None:
        # Gone already, or (macOS) only zombies are left of it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)


class LocalEngines(LocalProcess):
    """A set of engines on this host, under one supervisor."""

    name = "local"

    def __init__(
        self,
        place: Place,
        n: int,
        *,
        set_id: str = "1",
        options: EngineOptions = NO_OPTIONS,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
    ) -> None:
        if launcher_options:
            raise ClusterError(
                f"the launcher local has no options, but was given {list(launcher_options)}"
            )
        log = settings.log_file(place.profile_dir, place.cluster_id, f"engines-{set_id}")
        super().__init__(f"engine set {set_id}", log)
        self._place = place
        self.n = n
        self.options = options
        self.launcher_options = launcher_options

    @staticmethod
    def needs_network(launcher_options: Mapping[str, Any]) -> bool:
        """Whether the controller is to listen for other hosts."""
        return False

    @staticmethod
    def default_count(launcher_options: Mapping[str, Any]) -> int:
        """Return how many engines to start if nobody says: one per usable core."""
        return usable_core_count()

    @classmethod
    def from_facts(cls, facts: LaunchedFacts, place: Place, *, set_id: str) -> Self:
        """Take up engines that were started by another process, or see that they ended."""
        engines = cls(
            place,
            facts.n,
            set_id=set_id,
            options=facts.options,
            launcher_options=facts.launcher_options,
        )
        engines._log = Path(facts.log)
        engines._attach(facts)
        return engines

    def start(self) -> None:
        """Start them, without waiting until they are ready."""
        # One file per engine, in a directory that belongs to the set, so that they do not
        # add up: those of the set before are of use until there is another one.
        log_dir = self._log.with_suffix("")
        shutil.rmtree(log_dir, ignore_errors=True)
        log_dir.mkdir()
        self._spawn(self._command(str(log_dir)))

    def _command(self, log_dir: str) -> list[str]:
        return engines_command(self._place, self.n, log_dir=Path(log_dir), options=self.options)

    def signal(self, signum: int) -> None:
        """Send a signal to each engine, or to the supervisor if it is about their end."""
        if signum in (signal.SIGTERM, signal.SIGKILL):
            super().signal(signum)
            return
        if self.state == "running":
            for pid in _children(self._pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)

    def stop(self, grace_s: float = settings.STOP_GRACE_S) -> None:
        """Ask the supervisor to end its engines, wait, and end all by force."""
        was_running = self.state == "running"
        super().stop(grace_s)
        if was_running:
            self._kill_group()  # an engine that its supervisor could not end

    def shortfall(self) -> str:
        """Return why some of them will not come while others run; "": all may."""
        return ""

    def why_waiting(self) -> str:
        """Return why some of them have not been started yet; "": all were."""
        return ""

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of them."""
        return LaunchedFacts(
            self.name,
            self._pid,
            self._started,
            str(self._log),
            self.n,
            self.options,
            dict(self.launcher_options),
        )


class LocalWatcher(LocalProcess):
    """The process that a cluster in the background leaves behind, to look after it."""

    @classmethod
    def from_facts(cls, facts: LaunchedFacts) -> Self:
        """Take it up, or see that it ended."""
        watcher = cls("the watcher", Path(facts.log))
        watcher._attach(facts)
        return watcher


def process_started(pid: int) -> str:
    """Return when a process started, in whatever unit; "" if there is no such process.

    With it, a process is told from a later one that was given the same pid.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        if sys.platform == "linux":
            return ""
        return _process_started_elsewhere(pid)
    # The name, in parentheses, may hold anything, so count from its end.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def is_alive(pid: int, started: str) -> bool:
    """Return whether the process runs that was given `pid` at the time `started`."""
    return bool(started) and process_started(pid) == started


def _process_started_elsewhere(pid: int) -> str:
    # Linux does without psutil, which takes a while to import.
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return ""


def _wait_for_stranger(pid: int) -> int:
    if sys.platform == "linux":
        # Unlike others, this does not wait for its parent to notice, which may never.
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll()
            os.close(descriptor)
        return 0
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait()
    return 0


def _children(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _keep_previous(log: Path) -> None:
    """Let a log begin afresh and keep the one before it: two at most per process."""
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_suffix(".log.previous"))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Deliver what would end us only after the block, in the thread that gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in _HELD_SIGNALS}
    handlers = {
        signum: handler
        for signum, handler in handlers.items()
        if handler not in (None, signal.SIG_IGN)  # not ours to change
    }
    for held_signal in handlers:
        signal.signal(held_signal, lambda signum, _frame: held.append(signum))
    try:
        yield
    finally:
        for held_signal, handler in handlers.items():
            signal.signal(held_signal, handler)
        for signum in held:
            signal.raise_signal(signum)
