"""A controller as a job of a batch system.

The job makes the connection files in the profile directory, which all hosts share, once it
knows on which host it is. Clients and engines reach it there, always encrypted. In the job a
controller that dies is started again (`controller_job`). If the job ends, so does the cluster:
another job would be on another host, where nobody looks for it.
"""

from __future__ import annotations

import logging
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import msgspec

from parallelz import settings
from parallelz.engine_options import to_size
from parallelz.errors import ClusterError
from parallelz.launch.batch import (
    BatchJobs,
    HTCondorEngines,
    LSFEngines,
    PBSEngines,
    SGEEngines,
    SlurmEngines,
)
from parallelz.launch.batch_job import (
    BatchControllerOptions,
    JobPlan,
    SGEControllerOptions,
    script_of,
)
from parallelz.launch.batch_system import Job, Request, to_walltime_s
from parallelz.launch.cluster_file import ChangingFacts
from parallelz.launch.launcher import ControllerOptions, LaunchedFacts, Place
from parallelz.launch.launcher_options import to_options
from parallelz.launch.local import NO_LAUNCHER_OPTIONS
from parallelz.launch.local_controller import DEFAULTS
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import LOOPBACK, read_connection_file
from parallelz.transport.sockets import host_id

logger = logging.getLogger(__name__)

READY_CHECK_PERIOD_S = 0.1  # a file of another host cannot be awaited
PROBE_TIMEOUT_S = 2.0
OWNER_SIGN_PERIOD_S = 10.0
OWNER_SILENCE_S = 180.0  # file systems of networks show times of files late
ENDS_WHEN_ASKED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


class BatchController(BatchJobs):
    """A controller that one batch system runs; a subclass names the system.

    Parameters
    ----------
    place, options
        Which cluster it is of, and how it is started.
    launcher_options
        What its job asks for.
    changing_facts
        None: another process started it.
    """

    Options: ClassVar[type[BatchControllerOptions]] = BatchControllerOptions
    makes_files = True

    def __init__(
        self,
        place: Place,
        options: ControllerOptions = DEFAULTS,
        *,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
        changing_facts: ChangingFacts | None = None,
    ) -> None:
        super().__init__(place, "controller")
        self._batch = self._to_options(launcher_options)
        if options.reuse:
            raise ClusterError(
                f"the launcher {self.system.name} cannot use connection files again: each job"
                " of a controller is on a host of its own (leave out Controller.reuse)"
            )
        self.launcher_options = dict(launcher_options)
        self._options = options
        self._is_taken_up = changing_facts is None
        self._was_ready = False

    @classmethod
    def _to_options(cls, launcher_options: Mapping[str, Any]) -> BatchControllerOptions:
        options = to_options(cls.Options, launcher_options, cls.system.name)
        if options.cores < 1:
            raise ClusterError("the option cores must be 1 or more")
        return options

    @classmethod
    def check(cls, launcher_options: Mapping[str, Any]) -> None:
        """Raise ClusterError if it cannot use these options."""
        cls._to_options(launcher_options)

    @staticmethod
    def needs_network(launcher_options: Mapping[str, Any]) -> bool:
        """Whether it is to listen for other hosts: clients and engines are there."""
        return True

    @classmethod
    def from_facts(cls, facts: LaunchedFacts, place: Place) -> Self:
        """Take up a job that was submitted by another process, or see that it ended."""
        controller = cls(place, launcher_options=facts.launcher_options)
        controller._follow(facts.details["jobs"].split())
        return controller

    @property
    def pid(self) -> int:
        """There is no process of this host."""
        return 0

    @property
    def is_taken_up(self) -> bool:
        """Whether another process started it."""
        return self._is_taken_up

    @property
    def has_failed(self) -> bool:
        """Whether it ended though nobody had asked for that."""
        is_meant = self._terminated or self.poll() in ENDS_WHEN_ASKED
        return self._ended.is_there and not is_meant

    def leave(self) -> None:
        """Let it run: nothing here is needed for that."""

    # -- starting --------------------------------------------------------------------------

    def start(self) -> None:
        """Submit the job, without waiting until it starts.

        Raises
        ------
        ClusterError
            If it is refused.
        """
        super().start()
        if self._place.parent_pid is not None:
            self._owner_file.touch()
            threading.Thread(
                target=self._give_signs, name="gives signs to a job", daemon=True
            ).start()

    @property
    def _owner_file(self) -> Path:
        """The one that tells the job that we are there."""
        return self._log_dir / "owner"

    def _give_signs(self) -> None:
        while not self._ended.wait(OWNER_SIGN_PERIOD_S):
            try:
                self._owner_file.touch()
            except OSError as error:  # as of a file system that is away for a while
                logger.warning("! the controller's job gets no sign of this process: %s", error)

    def _scripts(self) -> list[tuple[JobPlan, str]]:
        place, batch = self._place, self._batch
        memory = to_size(batch.memory) if batch.memory else 0
        request = Request(
            f"parallelz-{place.cluster_id or 'controller'}",
            str(self._log_dir / "job-1.log"),
            batch.cores,
            to_walltime_s(batch.walltime),
            -(-memory // 1_000_000),
            batch.queue,
            batch.account,
            batch.parallel_environment if isinstance(batch, SGEControllerOptions) else "",
        )
        fields: dict[str, str | int] = {
            "log_dir": str(self._log_dir),
            "profile_dir": str(place.profile_dir),
            "cluster_id": place.cluster_id,
        }
        script = script_of(self.system, batch, request, self._command(), fields)
        return [(JobPlan(1, 1), script)]

    def _command(self) -> str:
        place, options = self._place, self._options
        command = [self._batch.python or sys.executable]
        command += ["-P", "-m", "parallelz.launch.controller_job"]
        command += ["--profile-dir", str(place.profile_dir), "--cluster-id", place.cluster_id]
        command += ["--socket-dir", place.socket_dir]
        command += ["--options", msgspec.json.encode(options).decode()]
        command += ["--log", str(self._log_dir / "controller.log")]
        if place.parent_pid is not None:
            command += ["--owner-file", str(self._owner_file)]
            command += ["--owner-silence-s", f"{OWNER_SILENCE_S:g}"]
        return shlex.join(command)

    def wait_ready(self, timeout_s: float = settings.START_TIMEOUT_S) -> None:
        """Wait until it listens, and can be reached from here.

        Raises
        ------
        ClusterError
            If its job ended instead, with its last words, or needs longer than `timeout_s`,
            with the reason that the system tells.
        """
        give_up_s = time.monotonic() + timeout_s
        info: ConnectionInfo | None = None
        while not self._was_ready:
            if self._ended.wait(READY_CHECK_PERIOD_S):
                raise ClusterError(self.explain_end())
            info = info or self._connection_info()
            if info is not None and can_be_reached(info):
                self._was_ready = True
            elif time.monotonic() > give_up_s:
                raise ClusterError(self._why_not_ready(info, timeout_s))

    def _connection_info(self) -> ConnectionInfo | None:
        place = self._place
        path = settings.connection_file(place.profile_dir, place.cluster_id, "client")
        # A name that was missing may be remembered as such; to read the directory helps.
        if path not in path.parent.iterdir():
            return None
        try:
            return read_connection_file(path, "client")
        except FileNotFoundError:
            return None

    def _why_not_ready(self, info: ConnectionInfo | None, timeout_s: float) -> str:
        late = f"the controller did not get ready in {timeout_s:g} s"
        if info is not None:
            return (
                f"{late}: it listens on {info.host}, but none of its addresses"
                f" ({', '.join(info.tcp_urls)}) can be reached from here; name the right one"
                " (controller_location, --location)"
            )
        if why := self.why_waiting():
            return f"{late}: {why}"
        return (
            f"{late}: its job runs, but the connection files have not come to"
            f" {self._place.profile_dir / 'security'}; is that directory shared by all hosts?"
            f" Its output: {self._log_dir / 'job-1.log'}"
        )

    # -- its end ---------------------------------------------------------------------------

    def take(self, job_id: str, job: Job) -> None:
        """Take in what is known of its job now."""
        super().take(job_id, job)
        if self._was_ready and self.has_failed:
            logger.error("%s", self.explain_end())

    def signal(self, signum: int) -> None:
        """Cancel the job; no other signal makes sense to a controller."""
        if signum not in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            raise ClusterError("a controller in a job takes no signals but those to end")
        self.terminate()

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of it."""
        return LaunchedFacts(
            self.system.name,
            0,
            "",
            str(self._log),
            launcher_options=self.launcher_options,
            details={"jobs": " ".join(self._jobs)},
        )


def can_be_reached(info: ConnectionInfo) -> bool:
    """Whether anybody listens at one of the addresses of a controller."""
    if info.ipc_url and info.host_id == host_id():
        return Path(info.ipc_url.removeprefix("ipc://")).exists()
    for url in info.tcp_urls:
        parts = urlsplit(url)
        if parts.hostname == LOOPBACK:
            continue  # of this host, which is another one
        try:
            address = (parts.hostname or "", parts.port or 0)
            with socket.create_connection(address, PROBE_TIMEOUT_S):
                return True
        except OSError:
            continue
    return False


class SlurmController(BatchController):
    """A controller as a job of Slurm."""

    system = SlurmEngines.system
    queue = SlurmEngines.queue


class PBSController(BatchController):
    """A controller as a job of PBS."""

    system = PBSEngines.system
    queue = PBSEngines.queue


class SGEController(BatchController):
    """A controller as a job of Grid Engine."""

    system = SGEEngines.system
    queue = SGEEngines.queue
    Options = SGEControllerOptions


class LSFController(BatchController):
    """A controller as a job of LSF."""

    system = LSFEngines.system
    queue = LSFEngines.queue


class HTCondorController(BatchController):
    """A controller as a job of HTCondor."""

    system = HTCondorEngines.system
    queue = HTCondorEngines.queue
