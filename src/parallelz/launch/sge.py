"""Grid Engine and its descendants: ``qsub``, ``qstat``, ``qacct``, ``qdel``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from parallelz.launch.batch_system import BatchSystem, Job, JobState, Request, clock


class SGE(BatchSystem):
    """Cores are slots of a parallel environment, whose name differs from site to site."""

    name = "sge"
    submit = ("qsub", "-terse")
    submitted = r"(\d+)"
    cancel = ("qdel",)

    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs."""
        # The colon ends the name of a host that there may be: paths may have colons too.
        log = self.quoted(f":{request.log}")
        lines = [f"-N {request.name}", "-V", "-S /bin/sh", "-j y", f"-o {log}", "-r n"]
        if request.cores > 1:
            lines.append(f"-pe {request.parallel_environment} {request.cores}")
        if request.walltime_s:
            lines.append(f"-l h_rt={clock(request.walltime_s)}")
        if request.memory_mb:  # which it counts for each slot
            lines.append(f"-l h_vmem={-(-request.memory_mb // request.cores)}M")
        if request.queue:
            lines.append(f"-q {request.queue}")
        if request.account:
            lines.append(f"-P {request.account}")
        return [f"#$ {line}" for line in lines]

    def advice(self, refusal: str) -> str:
        """Return what to do about a job that was refused for this; "": nobody knows."""
        if "parallel environment" not in refusal:
            return ""
        return "The option parallel_environment is to be one that `qconf -spl` lists."

    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""
        return ["qstat", "-u", user]

    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown."""
        found: dict[str, Job] = {}
        lines = output.splitlines()
        if lines and not lines[0].startswith("job-ID"):
            raise ValueError(f"not what qstat prints: {lines[0][:200]!r}")
        for line in lines[2:]:
            job_id, _, _, _, state, *_ = line.split()
            found[job_id] = Job(_state(state), "in the state " + state)
        return found

    def end_commands(self, job_id: str) -> list[list[str]]:
        """Return what tells how a job ended, some seconds after its end."""
        return [["qacct", "-j", job_id]]

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what one of them printed; None: it does not know."""
        facts = {
            name: value
            for name, _, value in (line.partition(" ") for line in output.splitlines())
        }
        code = facts.get("exit_status", "").strip().split(" ")[0]
        if not code.isdecimal():
            return None
        failed = facts.get("failed", "").strip()
        return Job("ended", "" if failed == "0" else failed, int(code))

    def why_command(self, job_id: str) -> list[str]:
        """Return what tells more of why a job waits."""
        return ["qstat", "-j", job_id]

    def why(self, output: str) -> str:
        """Return the reason in what that printed."""
        found = re.search(r"(?ms)^scheduling info:(.*?)(?=^\S|\Z)", output)
        lines = [line.strip() for line in (found[1] if found else "").splitlines()]
        errors = re.findall(r"(?m)^error reason.*?:\s*(.*)$", output)
        return "; ".join(filter(None, [*errors, *lines]))


def _state(code: str) -> JobState:
    # Letters add up: "Eqw" waits with an error, "dr" runs and is being deleted.
    return "waiting" if "w" in code else "running"
