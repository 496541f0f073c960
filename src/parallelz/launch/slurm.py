"""Slurm: ``sbatch``, ``squeue``, ``scontrol``, ``scancel``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parallelz.launch.batch_system import BatchSystem, Job, JobState, Request, clock

# Of squeue's states: those in which a job has not begun, or runs. All others are ends.
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"}
_RUNNING |= {"STAGE_OUT"}


class Slurm(BatchSystem):
    """Partitions are its queues."""

    name = "slurm"
    submit = ("sbatch", "--parsable")
    passes_signals = "supervisor"

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        lines = [
            f"--job-name={request.name}",
            f"--output={request.log}",
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

    def job_id(self, output: str) -> str | None:
        """Return the id in what the submission printed; None: there is none."""
        found = re.fullmatch(r"(\d+)(;\S+)?", output.strip().splitlines()[-1] if output else "")
        return found[1] if found else None

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

    def end_command(self, job_id: str) -> list[str]:
        """Return what tells how a job ended."""
        return ["scontrol", "show", "job", "--oneliner", job_id]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what that printed."""
        facts = dict(re.findall(r"(\w+)=(\S*)", output))
        if "JobState" not in facts:
            return None
        job = _job(facts["JobState"], facts.get("Reason", ""))
        code, _, signum = facts.get("ExitCode", "").partition(":")
        if not code.isdecimal() or not signum.isdecimal():
            return job
        return job._replace(exit_code=-int(signum) or int(code))

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return what ends jobs."""
        # With the signal, also the shell of the script gets it, which `scancel` alone spares.
        return ["scancel", "--full", *job_ids]

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``, to what the script has become."""
        return ["scancel", "--batch", f"--signal={signame}", *job_ids]


def _job(state: str, reason: str) -> Job:
    state = state.split("+")[0].split()[0]
    reason = "" if reason in ("None", "(null)") else reason
    kind: JobState = "ended"
    if state in _WAITING:
        kind = "waiting"
    elif state in _RUNNING:
        kind = "running"
    return Job(kind, reason if kind == "waiting" else " ".join(filter(None, (state, reason))))
