"""IBM Spectrum LSF: ``bsub``, ``bjobs``, ``bkill``."""

from __future__ import annotations

from collections.abc import Sequence

from parallelz.launch.batch_system import BatchSystem, Job, JobState, Request, job_in

_STATES: dict[str, JobState] = {
    **dict.fromkeys(("PEND", "PSUSP", "WAIT"), "waiting"),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP", "PROV", "UNKWN"), "running"),
    **dict.fromkeys(("DONE", "EXIT", "ZOMBI"), "ended"),
}


class LSF(BatchSystem):
    """Projects are its accounts."""

    name = "lsf"
    submit = ("bsub",)
    reads_stdin = True
    submitted = r"Job <(\d+)> is submitted .*"
    cancel = ("bkill",)
    passes_signals = "all"
    gone = ("is not found",)

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        lines = [
            f"-J {request.name}",
            f"-oo {self.quoted(request.log)}",
            f"-n {request.cores}",
            '-R "span[hosts=1]"',
            "-rn",
        ]
        if request.walltime_s:
            minutes = -(-request.walltime_s // 60)
            lines.append(f"-W {minutes // 60}:{minutes % 60:02}")
        if request.memory_mb:
            lines.append(f"-M {request.memory_mb}MB")
        if request.queue:
            lines.append(f"-q {request.queue}")
        if request.account:
            lines.append(f"-P {request.account}")
        return [f"#BSUB {line}" for line in lines]

    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""
        columns = "jobid stat exit_code pend_reason delimiter='|'"
        return ["bjobs", "-a", "-noheader", "-o", columns, *job_ids]

    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown."""
        found: dict[str, Job] = {}
        for line in output.splitlines():
            job_id, state, code, reason = line.strip().split("|", 3)
            why = "" if reason == "-" else reason
            exit_code = int(code) if code.isdecimal() else None
            found[job_id] = job_in(_STATES, state, why, exit_code)
        return found

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``, to all processes of a job."""
        return ["bkill", "-s", signame, *job_ids]
