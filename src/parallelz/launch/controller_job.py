"""What a batch job of a controller runs: the controller, and another one if that dies.

It makes the connection files, as only here it is known on which host it is. A controller that
is started again is on this host and has the same files, so nothing is lost. When the job was
asked to end, or its owner is gone, all ends in order and the files of the cluster are removed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from parallelz import settings
from parallelz.errors import ParallelzError
from parallelz.launch import cluster_file
from parallelz.launch.cluster_file import ClusterFacts, NoCluster
from parallelz.launch.launcher import ControllerOptions, Place
from parallelz.launch.local_controller import LocalController
from parallelz.transport.security import new_secrets, remove_runtime_dir

logger = logging.getLogger(__name__)

CHECK_PERIOD_S = 1.0
OWNER_CHECK_PERIOD_S = 5.0
STOPPED_BY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What systems send before a walltime is over is among them."""


class OwnerFile:
    """Tells whether an owner, who touches a file, is gone. Only clocks of here are compared.

    Parameters
    ----------
    path
        What the owner touches.
    silence_s
        So long without a sign it counts as gone.
    now_s
        Seconds of a clock that does not go back.
    """

    def __init__(self, path: Path, silence_s: float, now_s: float) -> None:
        self._path = path
        self._silence_s = silence_s
        self._touched_ns = -1
        self._heard_s = now_s
        self._check_s = now_s

    def is_silent(self, now_s: float) -> bool:
        """Return whether nothing was heard for too long; looks at the file now and then."""
        if now_s >= self._check_s:
            self._check_s = now_s + min(OWNER_CHECK_PERIOD_S, self._silence_s / 4)
            try:
                touched_ns = self._path.stat().st_mtime_ns
            except OSError:  # that is no sign
                touched_ns = self._touched_ns
            if touched_ns != self._touched_ns:
                self._touched_ns, self._heard_s = touched_ns, now_s
        return now_s - self._heard_s > self._silence_s


class JobController(LocalController):
    """The controller of this host, whose cluster file belongs to the host that wants it."""

    def __init__(
        self, place: Place, options: ControllerOptions, log: Path, runtime_dir: Path
    ) -> None:
        super().__init__(place, options, changing_facts=self._reading_facts)
        self._log = log
        self._runtime_dir = runtime_dir

    def _command(self, *, ready_fd: int | None = None, resume: bool = False) -> list[str]:
        place = self._place
        command = [sys.executable, "-P", "-m", "parallelz.controller.process", "--reuse"]
        command += ["--socket-dir", str(self._runtime_dir)]
        command += ["--profile-dir", str(place.profile_dir), "--cluster-id", place.cluster_id]
        command += [*self._options.arguments, "--parent-pid", str(place.parent_pid)]
        if ready_fd is not None:
            command += ["--ready-fd", str(ready_fd)]
        if resume:
            command.append("--resume")
        return command

    @contextlib.contextmanager
    def _reading_facts(self) -> Iterator[ClusterFacts]:
        # What the file says of the controller is the job, whatever runs in it.
        yield facts_of(self._place)


def facts_of(place: Place) -> ClusterFacts:
    """Return what is written of the cluster that this job is for.

    Raises
    ------
    NoCluster
        If it was stopped, even if there is another with its id by now.
    """
    facts = cluster_file.read(settings.cluster_file(place.profile_dir, place.cluster_id))
    if facts is None or facts.socket_dir != place.socket_dir or facts.is_stopping:
        raise NoCluster("the cluster was stopped before its controller's job had started")
    return facts


def serve(place: Place, options: ControllerOptions, log: Path, owner: OwnerFile | None) -> int:
    """Run a controller until its end; return how it ended.

    Raises
    ------
    ClusterError
        If it does not get ready, with its last words.
    """
    facts_of(place)  # before its files are written
    runtime_dir = Path(cluster_file.make_socket_dir())
    try:
        secrets = new_secrets(
            place.cluster_id,
            runtime_dir=runtime_dir,
            ip=options.ip,
            port=options.port,
            location=options.location,
            heartbeat=options.heartbeat,
        )
        cluster_file.write_files(secrets, place.profile_dir, str(runtime_dir))
        controller = JobController(place, options, log, runtime_dir)
        try:
            controller.start()
            controller.wait_ready()
            _await_end(controller, owner)
        finally:
            controller.stop()
        if not controller.has_failed:
            cluster_file.release(
                place.profile_dir, place.cluster_id, socket_dir=place.socket_dir
            )
        code = controller.poll() or 0
        return code if code >= 0 else 128 - code
    finally:
        remove_runtime_dir(runtime_dir)


def _await_end(controller: LocalController, owner: OwnerFile | None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while not controller.wait(CHECK_PERIOD_S):
            if owner is not None and owner.is_silent(time.monotonic()):
                logger.warning("! the process that started it is gone: ends")
                return


def _stop(number: int, frame: object) -> None:
    for each in STOPPED_BY:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return the exit status."""
    parser = argparse.ArgumentParser(prog="parallelz.launch.controller_job")
    parser.add_argument("--profile-dir", type=Path, required=True)
    parser.add_argument("--cluster-id", default="")
    parser.add_argument("--socket-dir", required=True, help="tells the cluster from later ones")
    parser.add_argument("--options", required=True, help="of the controller, as JSON")
    parser.add_argument("--log", type=Path, required=True, help="of the controller")
    parser.add_argument("--owner-file", type=Path, help="end when nobody touches it any more")
    parser.add_argument("--owner-silence-s", type=float, help="for so long")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    for number in STOPPED_BY:
        signal.signal(number, _stop)
    owner = None
    if args.owner_file is not None:
        owner = OwnerFile(args.owner_file, args.owner_silence_s, time.monotonic())
    place = Place(args.profile_dir, args.cluster_id, os.getpid(), args.socket_dir)
    options = msgspec.json.decode(args.options, type=ControllerOptions)
    try:
        return serve(place, options, args.log, owner)
    except ParallelzError as error:
        logger.error("! %s", error)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
