"""Engines as jobs of a batch system; each job has those of one node, under a supervisor.

Jobs start when the system lets them, and join as they come. What a job prints, and its script,
are in the log directory of its set.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.batch_job import BatchOptions, JobPlan, SGEOptions, job_script, spread
from parallelz.launch.batch_queue import BatchQueue, QueueError
from parallelz.launch.batch_system import BatchSystem, Job
from parallelz.launch.ending import Ending
from parallelz.launch.htcondor import HTCondor
from parallelz.launch.launcher import (
    LaunchedFacts,
    LaunchState,
    Place,
    describe_code,
    last_lines,
)
from parallelz.launch.launcher_options import to_options
from parallelz.launch.local import NO_LAUNCHER_OPTIONS, NO_OPTIONS
from parallelz.launch.lsf import LSF
from parallelz.launch.pbs import PBS
from parallelz.launch.sge import SGE
from parallelz.launch.slurm import Slurm

CANCEL_TIMEOUT_S = 120.0  # for a system to end what it was told to
REFUSAL_WAIT_S = 5.0  # to learn that jobs which cannot be cancelled have ended already


class BatchJobs:
    """Jobs that one batch system runs, as a launcher; a subclass names the system."""

    system: ClassVar[BatchSystem]
    queue: ClassVar[BatchQueue]

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._log = settings.log_file(place.profile_dir, place.cluster_id, name)
        self._log_dir = self._log.with_suffix("")
        self._jobs: dict[str, Job] = {}
        self._terminated = False
        self._ended = Ending()

    # -- starting and ending ---------------------------------------------------------------

    def _scripts(self) -> list[tuple[JobPlan, str]]:
        """Return what is to be submitted."""
        raise NotImplementedError

    def start(self) -> None:
        """Submit the jobs, without waiting until one starts.

        Raises
        ------
        ClusterError
            If one is refused. Those before are cancelled; it names them if they cannot be.
        """
        scripts = self._scripts()  # what makes no sense is told before anything is changed
        shutil.rmtree(self._log_dir, ignore_errors=True)
        job_ids: list[str] = []
        try:
            for plan, script in scripts:
                (self._log_dir / f"job-{plan.number}").mkdir(parents=True)
                path = self._log_dir / f"job-{plan.number}.sh"
                path.write_text(script)
                job_ids.append(self.queue.submit(script, str(path)))
        except BaseException as error:
            if job_ids:
                self._cancel_after(error, job_ids)
            raise
        self._log.write_text(f"{self.system.name} jobs: {' '.join(job_ids)}\n")
        self._follow(job_ids)

    def _cancel_after(self, error: BaseException, job_ids: list[str]) -> None:
        try:
            self.queue.run([*self.system.cancel, *job_ids])
        except QueueError as refusal:
            raise ClusterError(
                f"{error}. Cancel the {self.system.name} jobs {' '.join(job_ids)} yourself,"
                f" which were submitted before: {refusal}"
            ) from error

    def _follow(self, job_ids: list[str]) -> None:
        self._jobs = {job_id: Job("waiting") for job_id in job_ids}
        self.queue.watch(self)

    @property
    def open_jobs(self) -> list[str]:
        """Those that have not ended, as far as is known."""
        return [job_id for job_id, job in self._jobs.items() if job.state != "ended"]

    def take(self, job_id: str, job: Job) -> None:
        """Take in what is known of a job now."""
        self._jobs[job_id] = job
        if job.state == "ended" and not self.open_jobs:
            self._ended.come()

    @property
    def state(self) -> LaunchState:
        """Whether it was started, runs (or waits to), or has ended."""
        if not self._jobs:
            return "before"
        return "after" if self._ended.is_there else "running"

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._terminated

    @property
    def log(self) -> Path:
        """The file that names the jobs; what they print is in the directory beside it."""
        return self._log

    def poll(self) -> int | None:
        """Return the exit code, the first that is not 0; None while one of the jobs is left."""
        codes = [job.exit_code for job in self._jobs.values() if job.exit_code]
        return next(iter(codes), 0) if self._ended.is_there else None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all jobs have ended; return whether they have."""
        return self.state == "before" or self._ended.wait(timeout_s)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` once all have ended, from another thread or, if late, at once."""
        self._ended.call(callback)

    def signal(self, signum: int) -> None:
        """Send a signal to each engine; SIGTERM and SIGKILL cancel the jobs.

        Raises
        ------
        ClusterError
            If the system cannot send signals, or does not let us.
        """
        if signum in (signal.SIGTERM, signal.SIGKILL):
            self.terminate()
            return
        if not self.system.passes_signals:
            raise ClusterError(
                f"{self.system.name} cannot send signals to jobs; a client's interrupt() and"
                " shutdown() reach engines wherever they are"
            )
        if running := self.open_jobs:
            name = signal.Signals(signum).name.removeprefix("SIG")
            self.queue.run(self.system.signal_command(running, name))

    def terminate(self) -> None:
        """Cancel the jobs, without waiting. To ask twice is to ask once.

        Raises
        ------
        ClusterError
            If the system does not let us; then they go on.
        """
        job_ids = self.open_jobs
        if self._terminated or not job_ids:
            return
        self._terminated = True  # from now on jobs that are not listed have ended
        try:
            self.queue.run([*self.system.cancel, *job_ids])
        except QueueError as refusal:
            # All systems but Slurm also refuse what has ended since we last asked.
            self.queue.hurry()
            if not self._ended.wait(REFUSAL_WAIT_S) and self.open_jobs == job_ids:
                self._terminated = False
                raise ClusterError(
                    f"{self.system.name} has not cancelled the jobs {' '.join(job_ids)}:"
                    f" {refusal}"
                ) from refusal
        self.queue.hurry()

    def stop(self, grace_s: float = settings.STOP_GRACE_S) -> None:
        """Cancel the jobs and wait for their end: to use force is up to the system.

        Raises
        ------
        ClusterError
            If it does not end them in the time that such a thing takes.
        """
        self.terminate()
        if not self.wait(max(grace_s, CANCEL_TIMEOUT_S)):
            raise ClusterError(
                f"{self.system.name} has not ended jobs {' '.join(self.open_jobs)} within"
                f" {CANCEL_TIMEOUT_S:g} s: {self.queue.last_error or 'still listed'}"
            )

    # -- what to tell ----------------------------------------------------------------------

    def explain_end(self) -> str:
        """Return how the jobs ended and what they said last, for an error."""
        return "\n".join(self._explained(job_id) for job_id in self._jobs)

    def why_waiting(self) -> str:
        """Return why jobs have not started, as the system tells it; "": none waits."""
        waiting = {i: job for i, job in self._jobs.items() if job.state == "waiting"}
        lines = [
            f"{self.system.name} job {job_id} waits: {self.queue.why_waiting(job_id, job)}"
            for job_id, job in waiting.items()
        ]
        if self.queue.last_error:
            lines.append(f"{self.system.name} does not answer: {self.queue.last_error}")
        return "\n".join(lines)

    def _explained(self, job_id: str) -> str:
        job = self._jobs[job_id]
        log = self._log_dir / f"job-{list(self._jobs).index(job_id) + 1}.log"
        how = "ended" if job.exit_code is None else describe_code(job.exit_code)
        why = f" ({job.why})" if job.why else ""
        said = last_lines(log)
        shown = f"Its last words:\n\n{said}\n\n" if said else "It printed nothing. "
        return f"{self.system.name} job {job_id} {how}{why}. {shown}Its output: {log}"


class BatchEngines(BatchJobs):
    """A set of engines that one batch system runs; a subclass names the system."""

    Options: ClassVar[type[BatchOptions]] = BatchOptions

    def __init__(
        self,
        place: Place,
        n: int,
        *,
        set_id: str = "1",
        options: EngineOptions = NO_OPTIONS,
        launcher_options: Mapping[str, Any] = NO_LAUNCHER_OPTIONS,
    ) -> None:
        super().__init__(place, f"engines-{set_id}")
        self._batch = to_options(self.Options, launcher_options, self.system.name)
        for name in ("nodes", "cores"):
            if getattr(self._batch, name) < 1:
                raise ClusterError(f"the option {name} must be 1 or more")
        self.n = n
        self.options = options
        self.launcher_options = dict(launcher_options)
        self._set_id = set_id

    @staticmethod
    def needs_network(launcher_options: Mapping[str, Any]) -> bool:
        """Whether the controller is to listen for other hosts: jobs run there."""
        return True

    @classmethod
    def default_count(cls, launcher_options: Mapping[str, Any]) -> int:
        """Return how many engines to start if nobody says: one for each node."""
        return to_options(cls.Options, launcher_options, cls.system.name).nodes

    @classmethod
    def from_facts(cls, facts: LaunchedFacts, place: Place, *, set_id: str) -> Self:
        """Take up jobs that were submitted by another process, or see that they ended."""
        engines = cls(
            place,
            facts.n,
            set_id=set_id,
            options=facts.options,
            launcher_options=facts.launcher_options,
        )
        engines._follow(facts.details["jobs"].split())
        return engines

    def _scripts(self) -> list[tuple[JobPlan, str]]:
        return [
            (
                plan,
                job_script(
                    self.system,
                    self._batch,
                    self.options,
                    plan,
                    place=self._place,
                    set_id=self._set_id,
                    log_dir=self._log_dir,
                ),
            )
            for plan in spread(self.n, self._batch.nodes)
        ]

    def shortfall(self) -> str:
        """Return which jobs have ended while others run; "": none."""
        if self._terminated:
            return ""
        over = [job_id for job_id, job in self._jobs.items() if job.state == "ended"]
        return "\n".join(self._explained(job_id) for job_id in over)

    def to_facts(self) -> LaunchedFacts:
        """Return what another process needs to know of them."""
        return LaunchedFacts(
            self.system.name,
            0,
            "",
            str(self._log),
            self.n,
            self.options,
            dict(self.launcher_options),
            {"jobs": " ".join(self._jobs)},
        )


class SlurmEngines(BatchEngines):
    """Engines as jobs of Slurm."""

    system = Slurm()
    queue = BatchQueue(system)


class PBSEngines(BatchEngines):
    """Engines as jobs of PBS."""

    system = PBS()
    queue = BatchQueue(system)


class SGEEngines(BatchEngines):
    """Engines as jobs of Grid Engine."""

    system = SGE()
    queue = BatchQueue(system)
    Options = SGEOptions


class LSFEngines(BatchEngines):
    """Engines as jobs of LSF."""

    system = LSF()
    queue = BatchQueue(system)


class HTCondorEngines(BatchEngines):
    """Engines as jobs of HTCondor."""

    system = HTCondor()
    queue = BatchQueue(system)


ENGINES = {
    each.system.name: each
    for each in (SlurmEngines, PBSEngines, SGEEngines, LSFEngines, HTCondorEngines)
}


def state_of_jobs(facts: LaunchedFacts) -> str:
    """Return what a system says now of the jobs of a set, for people.

    Returns
    -------
    str
        A state that all of them are in, such as ``waiting`` or, if nobody can tell,
        ``unknown``; else how many are in which, such as ``1 ended, 3 running``.
    """
    try:
        jobs = ENGINES[facts.launcher].queue.ask(facts.details["jobs"].split())
    except QueueError:
        return "unknown"
    counts = Counter(job.state if job else "unknown" for job in jobs.values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
