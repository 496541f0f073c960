"""Slurm: ``sbatch``, ``squeue``, ``scontrol``, ``scancel``."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from parallelz.launch.batch_system import BatchSystem, Job, JobState, Request, clock, job_in

# Ends by Slurm itself: it sends SIGTERM, or the job has not started.
_STOPPED = ("CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT")
_STATES: dict[str, JobState] = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
        "waiting",
    ),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"),
        "running",
    ),
    **dict.fromkeys(
        ("COMPLETED", "FAILED", "BOOT_FAIL", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
        "ended",
    ),
    **dict.fromkeys(_STOPPED, "ended"),
}


class Slurm(BatchSystem):
    """Partitions are its queues."""

    name = "slurm"
    submit = ("sbatch", "--parsable")
    submitted = r"(\d+)(;\S+)?"
    # With the signal, also the shell of the script gets it, which `scancel` alone spares.
    cancel = ("scancel", "--full")
    passes_signals = "supervisor"

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        lines = [
            f"--job-name={request.name}",
            f"--output={self.quoted(request.log.replace('%', '%%'))}",
            "--nodes=1",
            "--ntasks=1",
            f"--cpus-per-task={request.cores}",
            "--no-requeue",
        ]
        if request.walltime_s:
            lines.append(f"--time={clock(request.walltime_s)}")
        if request.memory_mb:
            lines.append(f"--mem={request.memory_mb}M")
        if request.queue:
            lines.append(f"--partition={request.queue}")
        if request.account:
            lines.append(f"--account={request.account}")
        return [f"#SBATCH {line}" for line in lines]

    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""
        # By user: for a single job that it has forgotten squeue fails.
        return ["squeue", "--noheader", "--states=all", f"--user={user}", "--format=%i|%T|%r"]

    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown."""
        found: dict[str, Job] = {}
        for line in output.splitlines():
            job_id, state, reason = line.strip().split("|", 2)
            found[job_id] = _job(state, reason)
        return found

    def end_commands(self, job_id: str) -> list[list[str]]:
        """Return what tells how a job ended; each is asked if those before do not know."""
        # The controller forgets after some minutes; not every site has accounts.
        asked = "--allocations --noheader --parsable2 --format=State,ExitCode --jobs"
        return [
            ["scontrol", "show", "job", "--oneliner", job_id],
            ["sacct", *asked.split(), job_id],
        ]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what one of them printed; None: it does not know."""
        if "JobState=" in output:
            facts = dict(re.findall(r"(\w+)=(\S*)", output))
            state, reason, code = (
                facts.get(name, "") for name in ("JobState", "Reason", "ExitCode")
            )
        else:
            state, _, code = output.strip().partition("|")
            reason = ""
        job = _job(state, reason) if state else None
        return job._replace(exit_code=_exit_code(state, code)) if job else None

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``, to what the script has become."""
        return ["scancel", "--batch", f"--signal={signame}", *job_ids]


def _job(state: str, reason: str) -> Job:
    state = _bare(state)
    reason = "" if reason in ("None", "(null)") else reason
    job = job_in(_STATES, state, reason)
    if job.state == "waiting":
        return job
    return job._replace(why=" ".join(filter(None, (state, reason))))


def _exit_code(state: str, told: str) -> int | None:
    """Return the exit code of a job, from a text such as ``0:15``; None: it is not told."""
    code, _, signum = told.partition(":")
    if not code.isdecimal() or not signum.isdecimal():
        return None
    # 125 stands for memory that ran out, and is no signal.
    exit_code = int(code) if int(signum) in (0, 125) else -int(signum)
    if exit_code == 0 and _bare(state) != "COMPLETED":  # as of a job that has not started
        return -signal.SIGTERM if _bare(state) in _STOPPED else 1
    return exit_code


def _bare(state: str) -> str:
    """Return a state without more words, such as ``CANCELLED by 1000``."""
    return state.split("+")[0].split(" ")[0]
