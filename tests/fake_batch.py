"""Fakes of the commands of PBS, Grid Engine, LSF and HTCondor, which cannot run here.

Each is this file under the name of the command. Jobs are real processes of this host, started
at once; what is known of them is in files below ``$FAKE_BATCH/<id>/``. Options in scripts
are not looked at, but for where the output goes. A file of the directory makes them misbehave:
``fail`` (commands fail with its text), ``garbage`` (they print it), ``hang`` (they do not end),
``hold`` (jobs do not start, for this reason), ``lose`` (jobs are not listed), ``refuse`` (jobs
are not cancelled, for this reason).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_BATCH"])
SYSTEM = os.environ["FAKE_BATCH_SYSTEM"]
OUTPUTS = {
    "pbs": r"(?m)^#PBS -o (.+)",
    "sge": r"(?m)^#\$ -o (.+)",
    "lsf": r"(?m)^#BSUB -oo (.+)",
    "htcondor": r"(?m)^output = (.+)",
}
UNKNOWN = {
    "pbs": ("qstat: Unknown Job Id {}.server", 153),
    "sge": ("", 0),
    "lsf": ("Job <{}> is not found", 255),
    "htcondor": ("", 0),
}


def switch(name: str) -> str | None:
    path = ROOT / name
    return path.read_text() if path.exists() else None


def submit(script: str) -> None:
    job_id = str(sum(path.is_dir() for path in ROOT.iterdir()) + 1)
    job = ROOT / job_id
    job.mkdir()
    found = re.search(OUTPUTS[SYSTEM], script)
    assert found, f"no output file in {script}"
    output = found[1]
    if SYSTEM == "htcondor":
        (arguments,) = re.findall(r"(?m)^arguments = \"(.*)\"$", script)
        quoted = re.fullmatch(r"-c '(.*)'", arguments.replace('""', '"'), re.DOTALL)
        assert quoted, arguments
        script = quoted[1].replace("''", "'")
    else:
        (output,) = shlex.split(found[1])
        output = output.removeprefix(":")
    (job / "script").write_text(script)
    if (reason := switch("hold")) is not None:
        (job / "hold").write_text(reason)
    else:
        code = shlex.quote(str(job / "code"))
        run = (
            f"sh {shlex.quote(str(job / 'script'))}; echo $? > {code}.new; mv {code}.new {code}"
        )
        with Path(output).open("ab") as log:
            process = subprocess.Popen(
                ["setsid", "sh", "-c", f"trap '' TERM INT USR1; {run_untrapped(run)}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        (job / "pid").write_text(str(process.pid))
    said = {
        "pbs": f"{job_id}.server",
        "sge": job_id,
        "lsf": f"Job <{job_id}> is submitted to default queue <normal>.",
        "htcondor": f"{job_id}.0 - {job_id}.0",
    }
    print(said[SYSTEM])


def run_untrapped(run: str) -> str:
    """Return the same, with the usual signals for the script itself."""
    before, _, after = run.partition(";")
    reset = "import os, signal, sys; [signal.signal(n, signal.SIG_DFL) for n in (2, 10, 15)]"
    call = f"{reset}; os.execvp('sh', sys.argv[1:])"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(call)} {before};{after}"


def state_of(job: Path) -> tuple[str, int | None]:
    if (job / "code").exists():
        return "ended", int((job / "code").read_text())
    if (job / "removed").exists():
        return "ended", None
    return ("waiting" if (job / "hold").exists() else "running"), None


def listed(wanted: list[str]) -> list[Path]:
    known = sorted(
        (path for path in ROOT.iterdir() if path.is_dir()), key=lambda p: int(p.name)
    )
    if switch("lose") is not None:
        known = []
    return [job for job in known if not wanted or job.name in wanted]


def status(wanted: list[str]) -> int:  # noqa: C901 - four systems
    jobs = listed(wanted)
    if SYSTEM == "sge":
        jobs = [job for job in jobs if state_of(job)[0] != "ended"]
        if jobs:
            print(
                "job-ID  prior   name       user         state submit/start at     queue  slots"
            )
            print("-" * 80)
    for job in jobs:
        state, code = state_of(job)
        reason = (job / "hold").read_text() if (job / "hold").exists() else ""
        if SYSTEM == "pbs" and state != "ended":
            letter = {"waiting": "Q", "running": "R"}[state]
            print(f"Job Id: {job.name}.server\n    Job_Name = x\n    job_state = {letter}")
            print(f"    comment = {reason[:20]}\n\t{reason[20:]}\n")
        elif SYSTEM == "sge":
            letters = {"waiting": "qw", "running": "r"}[state]
            print(
                f"{job.name:>7} 0.55500 parallelz  me  {letters}  11/25/2026 10:00:00  all.q  1"
            )
        elif SYSTEM == "lsf":
            letters = {"waiting": "PEND", "running": "RUN"}.get(state) or (
                "EXIT" if code else "DONE"
            )
            print(f"{job.name}|{letters}|{'-' if code is None else code}|{reason or '-'}")
        elif SYSTEM == "htcondor" and state != "ended":
            number = {"waiting": "5", "running": "2"}[state]
            print(f"{job.name} {number} {reason or 'undefined'}")
    gone = set(wanted) - {job.name for job in jobs}
    if SYSTEM == "pbs":
        gone |= {job.name for job in jobs if state_of(job)[0] == "ended"}
    text, exit_code = UNKNOWN[SYSTEM]
    if gone and text:
        for name in sorted(gone):
            print(text.format(name), file=sys.stderr)
        return exit_code
    return 0


def history(job_id: str) -> int:
    job = ROOT / job_id
    state, code = state_of(job) if job.is_dir() else ("", None)
    if state != "ended" or switch("lose") is not None:
        return 1
    if SYSTEM == "pbs":
        print(f"Job Id: {job_id}.server\n    job_state = F\n    Exit_status = {code or 0}\n")
    elif SYSTEM == "sge":
        print(f"{'=' * 62}\nqname        all.q\nfailed       0\nexit_status  {code or 0}")
    elif SYSTEM == "htcondor":
        print(f"{'undefined' if code is None else code} undefined")
    return 0


def kill(job_ids: list[str], signum: int) -> None:
    for job_id in job_ids:
        job = ROOT / job_id
        if (job / "hold").exists():
            (job / "hold").unlink()
            (job / "removed").touch()
        elif (job / "pid").exists() and not (job / "code").exists():
            with contextlib.suppress(ProcessLookupError):
                send(int((job / "pid").read_text()), signum)


def send(leader: int, signum: int) -> None:
    """Send it to what the script has become, or for LSF to all processes of the job."""
    if SYSTEM == "lsf" or signum in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(leader, signum)
        return
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    os.kill(int(children[0]), signum)


def bare(arguments: list[str]) -> list[str]:
    return [
        text.partition(".")[0] for text in arguments if re.fullmatch(r"\d+(\.server)?", text)
    ]


def main(name: str, arguments: list[str]) -> int:  # noqa: C901, PLR0912 - one arm a command
    if switch("hang") is not None:
        time.sleep(600)
    if (text := switch("fail")) is not None:
        print(text, file=sys.stderr)
        return 1
    if (text := switch("garbage")) is not None:
        print(text)
        return 0
    match name:
        case "qsub" | "condor_submit":
            submit(Path(arguments[-1]).read_text())
        case "bsub":
            submit(sys.stdin.read())
        case "qstat" if "-x" in arguments:
            return history(bare(arguments)[0])
        case "qacct" | "condor_history":
            return history(bare(arguments)[0])
        case "qstat" if "-j" in arguments:
            reason = (ROOT / arguments[-1] / "hold").read_text()
            print(f"job_number: {arguments[-1]}\nscheduling info:   {reason}")
        case "condor_q" if "-better-analyze" in arguments:
            print("The Requirements expression for job is\n\n0 machines match")
        case "qstat" | "bjobs" | "condor_q":
            return status(bare(arguments))
        case "qsig":
            kill(bare(arguments), signal.Signals[arguments[1]])
        case "bkill" if arguments[0] == "-s":
            kill(bare(arguments), signal.Signals[f"SIG{arguments[1]}"])
        case "qdel" | "bkill" | "condor_rm" if (reason := switch("refuse")) is not None:
            print(reason, file=sys.stderr)
            return 1
        case "qdel" | "bkill" | "condor_rm":
            kill(bare(arguments), signal.SIGTERM)
        case _:
            raise AssertionError(f"no fake of {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
