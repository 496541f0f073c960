"""PBS Professional and OpenPBS: ``qsub``, ``qstat``, ``qdel``, ``qsig``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from parallelz.launch.batch_system import (
    BatchSystem,
    Job,
    JobState,
    Request,
    attributes,
    clock,
    job_in,
)

_STATES: dict[str, JobState] = {
    **dict.fromkeys("QHWT", "waiting"),
    **dict.fromkeys("RESUB", "running"),
    **dict.fromkeys("CFX", "ended"),
}


class PBS(BatchSystem):
    """Jobs are chunks of one node."""

    name = "pbs"
    submit = ("qsub",)
    submitted = r"(\d+(?:\.\S+)?)"
    cancel = ("qdel",)
    passes_signals = "supervisor"
    gone = ("Unknown Job", "has finished")

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        chunk = f"select=1:ncpus={request.cores}"
        if request.memory_mb:
            chunk += f":mem={request.memory_mb}mb"
        lines = [
            f"-N {request.name[:15]}",
            "-V",
            "-j oe",
            f"-o {self.quoted(request.log)}",
            "-r n",
        ]
        lines.append(f"-l {chunk}")
        if request.walltime_s:
            lines.append(f"-l walltime={clock(request.walltime_s)}")
        if request.queue:
            lines.append(f"-q {request.queue}")
        if request.account:
            lines.append(f"-A {request.account}")
        return [f"#PBS {line}" for line in lines]

    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""
        return ["qstat", "-f", *job_ids]

    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown."""
        found: dict[str, Job] = {}
        # A value goes on in the next line if that begins with a tabulator.
        blocks = re.split(r"(?m)^Job Id:\s*", output.replace("\n\t", ""))
        if blocks[0].strip():
            raise ValueError(f"not what qstat prints: {blocks[0][:200]!r}")
        for block in blocks[1:]:
            job_id, _, rest = block.partition("\n")
            facts = attributes(rest)
            found[job_id.strip()] = _job(facts)
        return found

    def end_commands(self, job_id: str) -> list[list[str]]:
        """Return what tells how a job ended, where a history is kept."""
        return [["qstat", "-x", "-f", job_id]]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what one of them printed; None: it does not know."""
        try:
            found = list(self.states(output).values())
        except (ValueError, KeyError):
            return None
        return found[0] if found and found[0].state == "ended" else None

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``."""
        return ["qsig", "-s", f"SIG{signame}", *job_ids]


def _job(facts: Mapping[str, str]) -> Job:
    why = facts.get("comment", "")
    told = facts.get("Exit_status", facts.get("exit_status", ""))
    code = int(told) if told.lstrip("-").isdecimal() else None
    if code is not None and code > 256:
        code = 256 - code  # it was killed by a signal
    elif code is not None and code < 0:
        why, code = "; ".join(filter(None, (why, f"Exit_status {code} of PBS itself"))), 1
    return job_in(_STATES, facts["job_state"], why, code)
