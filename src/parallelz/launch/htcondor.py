"""HTCondor: ``condor_submit``, ``condor_q``, ``condor_history``, ``condor_rm``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parallelz.errors import ClusterError
from parallelz.launch.batch_system import BatchSystem, Job, JobState, Request, job_in

_STATES: dict[str, JobState] = {
    **dict.fromkeys("15", "waiting"),  # idle, held
    **dict.fromkeys("267", "running"),  # running, transferring, suspended
    **dict.fromkeys("34", "ended"),  # removed, completed
}


class HTCondor(BatchSystem):
    """A job is described by a file of its own syntax; the script is the program it runs."""

    name = "htcondor"
    submit = ("condor_submit", "-terse")
    submitted = r"(\d+)\.\d+ - \d+\.\d+"
    cancel = ("condor_rm",)

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a description asks for what it needs."""
        if request.queue:
            raise ClusterError("htcondor has no queues: leave out the option queue")
        log = request.log.replace("$", "$(DOLLAR)")  # blanks and quotes are as any other
        lines = [
            "universe = vanilla",
            f"batch_name = {request.name}",
            f"output = {log}",
            f"error = {log}",
            f"request_cpus = {request.cores}",
            "getenv = True",
            "max_retries = 0",
        ]
        if request.memory_mb:
            lines.append(f"request_memory = {request.memory_mb}MB")
        if request.walltime_s:
            lines.append(f"allowed_job_duration = {request.walltime_s}")
        if request.account:
            lines.append(f"accounting_group = {request.account}")
        return lines

    def script(self, directives: Sequence[str], body: str) -> str:
        """Return a whole description, with the commands as the arguments of a shell."""
        # A value is one line, in which $(name) is a macro of HTCondor; so printf is to make the
        # lines, the quotes and the dollars. Its rules for arguments: all in double quotes, each
        # in single ones; both are doubled.
        encoded = re.sub(r"""[\n$'"`\\]""", lambda found: f"\\0{ord(found[0]):03o}", body)
        shell = f"""-c 'eval ""`printf %b ''{encoded}''`""'"""
        lines = ["executable = /bin/sh", f'arguments = "{shell}"', "queue"]
        return "\n".join([*directives, *lines, ""])

    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""
        return ["condor_q", *job_ids, "-af", "ClusterId", "JobStatus", "HoldReason"]

    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown."""
        found: dict[str, Job] = {}
        for line in output.splitlines():
            job_id, state, reason = line.strip().split(" ", 2)
            if not state.isdecimal():
                raise ValueError(f"not what condor_q prints: {line[:200]!r}")
            found[job_id] = job_in(_STATES, state, "" if reason == "undefined" else reason)
        return found

    def end_commands(self, job_id: str) -> list[list[str]]:
        """Return what tells how a job ended."""
        return [["condor_history", job_id, "-limit", "1", "-af", "ExitCode", "RemoveReason"]]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what one of them printed; None: it does not know."""
        code, _, reason = output.strip().partition(" ")
        if not code:
            return None
        why = "" if reason == "undefined" else reason
        return Job("ended", why, int(code) if code.lstrip("-").isdecimal() else None)

    def why_command(self, job_id: str) -> list[str]:
        """Return what tells more of why a job waits."""
        return ["condor_q", "-better-analyze", job_id]

    def why(self, output: str) -> str:
        """Return the reason in what that printed: its last sentences."""
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        return " ".join(lines[-3:])
