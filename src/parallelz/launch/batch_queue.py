"""The commands of a batch system, used with care: its daemons serve everybody.

All sets of engines of this process share one queue per system: one question at a time asks for
all their jobs, less often the longer nothing changes, and submissions keep a distance. When
several questions in a row are not answered, nothing more is submitted until one is: what is not
known to have ended meanwhile is not said to. A submission that is refused says nothing of the
system, as most are refused for what they ask for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from parallelz.errors import ClusterError
from parallelz.launch.batch_system import BatchSystem, Job

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 30.0
SUBMIT_PERIOD_S = 0.1
PERIOD_FIRST_S, PERIOD_MAX_S, PERIOD_GROWTH = 0.25, 15.0, 2.0  # between questions
FAILURES_MAX = 3  # in a row, then the breaker opens
UNSEEN_GRACE_S = 30.0  # a job that is not listed for so long has ended


class QueueError(ClusterError):
    """A command of a batch system failed; says which, and what it said."""


class JobHolder(Protocol):
    """A set of engines that wants to know of its jobs."""

    @property
    def open_jobs(self) -> Sequence[str]:
        """Those that have not ended, as far as is known."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether they were cancelled."""
        ...

    def take(self, job_id: str, job: Job) -> None:
        """Take in what is known of a job now."""
        ...


class BatchQueue:
    """All that this process asks of one batch system."""

    def __init__(self, system: BatchSystem) -> None:
        self.system = system
        self._holders: list[JobHolder] = []
        self._seen_s: dict[str, float] = {}  # when a job was last listed, or first asked for
        self._failure_count = 0  # of questions, since the last answer
        self._last_error = ""
        self._period_s = PERIOD_FIRST_S
        self._submitted_s = 0.0
        self._changed = threading.Condition()  # guards all of the above
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether so many questions were not answered that nothing is submitted."""
        return self._failure_count >= FAILURES_MAX

    @property
    def last_error(self) -> str:
        """Why the last question was not answered; "" if it was."""
        return self._last_error

    def run(self, command: Sequence[str], *, script: str | None = None) -> str:
        """Run a command to its end; return what it printed.

        Raises
        ------
        QueueError
            If it is not there, fails, or takes too long.
        """
        done = self._done(command, script)
        if done.returncode:
            said = (done.stderr or done.stdout).strip() or "it said nothing"
            raise QueueError(f"{command[0]} failed with exit code {done.returncode}: {said}")
        return done.stdout

    def _done(
        self, command: Sequence[str], script: str | None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                input="" if script is None else script,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_TIMEOUT_S,
                check=False,
                start_new_session=True,  # a Ctrl-C here is none of its business
            )
        except FileNotFoundError:
            raise QueueError(
                f"there is no program {command[0]!r} here: {self.system.name} is used on a"
                " host that can submit jobs, such as a login node"
            ) from None
        except OSError as error:
            raise QueueError(f"cannot run {command[0]}: {error}") from error
        except subprocess.TimeoutExpired:
            text = f"{command[0]} did not end within {COMMAND_TIMEOUT_S:g} s"
            raise QueueError(text) from None

    def _failed(self, text: str) -> None:
        with self._changed:
            self._failure_count += 1
            self._last_error = text
            if self._failure_count == FAILURES_MAX:
                logger.warning(
                    "! %s does not work, nothing is submitted: %s", self.system.name, text
                )

    def _succeeded(self) -> None:
        with self._changed:
            if self.is_open:
                logger.warning("= %s works again", self.system.name)
            self._failure_count, self._last_error = 0, ""

    def submit(self, script: str, path: str) -> str:
        """Submit a job, whose script also is in a file; return its id.

        Raises
        ------
        QueueError
            If the system refuses, or has not worked lately.
        """
        if self.is_open:
            raise QueueError(f"{self.system.name} has not worked lately: {self._last_error}")
        with self._changed:  # also keeps others from submitting meanwhile
            pause_s = self._submitted_s + SUBMIT_PERIOD_S - time.monotonic()
            if pause_s > 0:
                time.sleep(pause_s)
            self._submitted_s = time.monotonic()
        command = list(self.system.submit)
        try:
            if self.system.reads_stdin:
                output = self.run(command, script=script)
            else:
                output = self.run([*command, path])
        except QueueError as error:
            if advice := self.system.advice(str(error)):
                raise QueueError(f"{error}\n{advice}") from error
            raise
        job_id = self.system.job_id(output)
        if job_id is None:
            raise QueueError(f"{command[0]} told no job id: {output.strip()[:500]!r}")
        return job_id

    # -- asking ----------------------------------------------------------------------------

    def watch(self, holder: JobHolder) -> None:
        """Tell a set what becomes of its jobs, until all have ended."""
        with self._changed:
            self._holders.append(holder)
            if self._thread is None:
                name = f"asks {self.system.name}"
                self._thread = threading.Thread(target=self._ask_on, name=name, daemon=True)
                self._thread.start()
        self.hurry()

    def hurry(self) -> None:
        """Ask soon: something is about to change."""
        with self._changed:
            self._period_s = PERIOD_FIRST_S
            self._changed.notify_all()

    def _ask_on(self) -> None:
        """Ask until nobody wants to know, in a thread of its own."""
        while True:
            with self._changed:
                self._holders = [each for each in self._holders if each.open_jobs]
                if not self._holders:
                    self._thread = None
                    return
                self._changed.wait(self._period_s)
                holders = list(self._holders)
                self._period_s = min(self._period_s * PERIOD_GROWTH, PERIOD_MAX_S)
            job_ids = [job_id for each in holders for job_id in each.open_jobs]
            try:
                states = self._states(job_ids)
            except QueueError as error:  # told when somebody wants to know
                self._failed(str(error))
                continue
            self._succeeded()
            for holder in holders:
                self._tell(holder, states)

    def _tell(self, holder: JobHolder, states: Mapping[str, Job]) -> None:
        for job_id in holder.open_jobs:
            now_s = time.monotonic()
            job = states.get(job_id)
            if job is None:
                unseen_s = now_s - self._seen_s.setdefault(job_id, now_s)
                is_over = holder.is_stopping or unseen_s >= UNSEEN_GRACE_S
                job = self._unlisted_job(job_id, is_over=is_over)
            else:
                self._seen_s[job_id] = now_s
                if job.state == "ended" and job.exit_code is None:
                    with contextlib.suppress(QueueError):  # then it is not known
                        job = self._ended(job_id) or job
            if job is not None:
                if job.state == "ended":
                    self._seen_s.pop(job_id, None)
                holder.take(job_id, job)

    def ask(self, job_ids: Sequence[str]) -> dict[str, Job | None]:
        """Ask once what is known of jobs; None: nothing.

        Raises
        ------
        QueueError
            If the system does not answer.
        """
        states = self._states(job_ids)
        return {
            job_id: states.get(job_id) or self._unlisted_job(job_id, is_over=False)
            for job_id in job_ids
        }

    def _states(self, job_ids: Sequence[str]) -> dict[str, Job]:
        command = self.system.status_command(job_ids, _user())
        done = self._done(command, None)
        knows_none = done.returncode and self.system.knows_none(done.stderr)
        if done.returncode and not knows_none:
            said = (done.stderr or done.stdout).strip()
            raise QueueError(f"{command[0]} failed with exit code {done.returncode}: {said}")
        try:
            return self.system.states(done.stdout)
        except (ValueError, KeyError, IndexError) as error:
            shown = repr(done.stdout[:500])
            text = f"{command[0]} printed what it usually does not ({error!r}): {shown}"
            raise QueueError(text) from error

    def _unlisted_job(self, job_id: str, *, is_over: bool) -> Job | None:
        """Return what became of a job that is not listed; None: it is too early to say."""
        why = f"{self.system.name} does not know it any more"
        try:
            ended = self._ended(job_id)
        except QueueError as error:  # such as of a site that keeps no accounts
            ended, why = None, f"{why}, and {error}"
        return ended or (Job("ended", why) if is_over else None)

    def _ended(self, job_id: str) -> Job | None:
        refusal: QueueError | None = None
        for command in self.system.end_commands(job_id):
            try:
                done = self._done(command, None)
            except QueueError as error:  # the others may know
                refusal = error
                continue
            ended = None if done.returncode else self.system.end(done.stdout)
            if ended is not None and ended.state == "ended":
                return ended
        if refusal is not None:
            raise refusal
        return None

    def why_waiting(self, job_id: str, job: Job) -> str:
        """Return why a job has not started, as the system tells it."""
        command = self.system.why_command(job_id)
        more = ""
        if command:
            try:
                more = self.system.why(self.run(command))
            except QueueError as error:
                more = str(error)
        return "; ".join(filter(None, (job.why, more))) or "no reason is given"


def _user() -> str:
    """Return who we are for the system: the environment may say something else."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container
        return str(os.getuid())
