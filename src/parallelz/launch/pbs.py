"""PBS Professional and OpenPBS: ``qsub``, ``qstat``, ``qdel``, ``qsig``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parallelz.launch.batch_system import (
    BatchSystem,
    Job,
    JobState,
    Request,
    attributes,
    clock,
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
    passes_signals = "supervisor"

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        chunk = f"select=1:ncpus={request.cores}"
        if request.memory_mb:
            chunk += f":mem={request.memory_mb}mb"
        lines = [f"-N {request.name[:15]}", "-V", "-j oe", f"-o {request.log}", "-r n"]
        lines.append(f"-l {chunk}")
        if request.walltime_s:
            lines.append(f"-l walltime={clock(request.walltime_s)}")
        if request.queue:
            lines.append(f"-q {request.queue}")
        if request.account:
            lines.append(f"-A {request.account}")
        return [f"#PBS {line}" for line in lines]

    def job_id(self, output: str) -> str | None:
        """Return the id in what the submission printed; None: there is none."""
        found = re.fullmatch(r"\d+(\.\S+)?", output.strip().splitlines()[-1] if output else "")
        return found[0] if found else None

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
            code = facts.get("Exit_status", facts.get("exit_status", ""))
            found[job_id.strip()] = Job(
                _STATES[facts["job_state"]],
                facts.get("comment", ""),
                int(code) if code.lstrip("-").isdecimal() else None,
            )
        return found

    def knows_none(self, errors: str) -> bool:
        """Whether the status command failed only since jobs do not exist any more."""
        lines = [line for line in errors.splitlines() if line.strip()]
        gone = ("Unknown Job Id", "has finished", "Unknown Job")
        return bool(lines) and all(any(text in line for text in gone) for line in lines)

    def end_command(self, job_id: str) -> list[str]:
        """Return what tells how a job ended, where a history is kept."""
        return ["qstat", "-x", "-f", job_id]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what that printed."""
        try:
            found = list(self.states(output).values())
        except (ValueError, KeyError):
            return None
        return found[0] if found and found[0].state == "ended" else None

    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return what ends jobs."""
        return ["qdel", *job_ids]

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``."""
        return ["qsig", "-s", f"SIG{signame}", *job_ids]
