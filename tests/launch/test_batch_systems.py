"""What is said to batch systems, and how their answers are read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.batch import HTCondorEngines, SlurmEngines
from parallelz.launch.batch_job import BatchOptions, JobPlan, SGEOptions, job_script, spread
from parallelz.launch.batch_system import BatchSystem, Job, Request, clock, to_walltime_s
from parallelz.launch.htcondor import HTCondor
from parallelz.launch.launcher import Place
from parallelz.launch.lsf import LSF
from parallelz.launch.pbs import PBS
from parallelz.launch.sge import SGE
from parallelz.launch.slurm import Slurm

ALL: tuple[BatchSystem, ...] = (Slurm(), PBS(), SGE(), LSF(), HTCondor())
FULL = Request("work", "/log", 8, 5400, 4000, "long", "physics", "smp")
PLACE = Place(Path("/p"), "c", None)


def script(system: BatchSystem, **options: Any) -> str:
    options.setdefault("python", "python3")
    options.setdefault("directory", "/work")
    return job_script(
        system,
        (SGEOptions if system.name == "sge" else BatchOptions)(**options),
        EngineOptions(labels=("gpu",), file_wait_s=90.0),
        JobPlan(2, 4),
        place=PLACE,
        set_id="1",
        log_dir=Path("/p/log/engines-1"),
    )


COMMAND = (
    "python3 -m parallelz.engine.process --file /p/security/ipcontrollerz-c-engine.json -n 4"
    " --wait-s 90 --log-dir /p/log/engines-1/job-2 --pass-signals"
)


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        (
            Slurm(),
            [
                "--job-name=work",
                "--output=/log",
                "--nodes=1",
                "--ntasks=1",
                "--cpus-per-task=8",
                "--no-requeue",
                "--time=1:30:00",
                "--mem=4000M",
                "--partition=long",
                "--account=physics",
            ],
        ),
        (
            PBS(),
            [
                "-N work",
                "-V",
                "-j oe",
                "-o /log",
                "-r n",
                "-l select=1:ncpus=8:mem=4000mb",
                "-l walltime=1:30:00",
                "-q long",
                "-A physics",
            ],
        ),
        (
            SGE(),
            [
                "-N work",
                "-V",
                "-S /bin/sh",
                "-j y",
                "-o :/log",
                "-r n",
                "-pe smp 8",
                "-l h_rt=1:30:00",
                "-l h_vmem=500M",
                "-q long",
                "-P physics",
            ],
        ),
        (
            LSF(),
            [
                "-J work",
                "-oo /log",
                "-n 8",
                '-R "span[hosts=1]"',
                "-rn",
                "-W 1:30",
                "-M 4000MB",
                "-q long",
                "-P physics",
            ],
        ),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_all_that_was_asked_for_is_in_the_script(system: BatchSystem, lines: list[str]) -> None:
    prefix = {"slurm": "#SBATCH", "pbs": "#PBS", "sge": "#$", "lsf": "#BSUB"}[system.name]
    assert system.directives(FULL) == [f"{prefix} {line}" for line in lines]


def test_a_description_for_htcondor() -> None:
    text = script(HTCondor(), environment={"A": 'it\'s "so"'}, cores=2, memory="1GB")
    lines = text.splitlines()
    assert "request_cpus = 8" in lines
    assert "request_memory = 4000MB" in lines
    assert lines[-1] == "queue"
    assert lines[-3] == "executable = /bin/sh"


def test_htcondor_runs_the_commands_as_they_were_written(tmp_path: Path) -> None:
    setup = (
        '# it\'s a comment; "100%"\nif true; then\n  A=$(printf \'%s\\t\' "a  b")\nfi\n'
        "B=`echo c`\n"
    )
    text = HTCondor().script([], f"{setup}exec printf '[%s]' \"$A\" '\\0101' $B")
    (arguments,) = re.findall(r'(?m)^arguments = "(.*)"$', text)
    assert "$" not in arguments  # of which HTCondor makes macros
    # In double quotes, then in single ones: both kinds within are doubled.
    quoted = re.fullmatch("-c '(.*)'", arguments.replace('""', '"'))
    assert quoted
    command = ["/bin/sh", "-c", quoted[1].replace("''", "'")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[a  b\t][\\0101][c]"


@pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
def test_nothing_is_asked_for_that_nobody_wants(system: BatchSystem) -> None:
    text = "\n".join(system.directives(Request("work", "/log", 1)))
    for name in ("time", "mem", "-q", "partition", "ccount", "-W", "-M", "-P", "-A", "h_rt"):
        assert name not in text, name


def test_the_script_becomes_the_supervisor() -> None:
    text = script(Slurm(), setup="module load x", environment={"A": "b c"})
    assert text.startswith("#!/bin/sh\n#SBATCH ")
    assert text.endswith(
        f"\nexport A='b c'\nmodule load x\ncd /work\nexec {COMMAND} --labels=gpu\n"
    )


def test_engines_drain_in_time() -> None:
    assert "--drain-after-s 3540 " in script(Slurm(), walltime="1:00:00")
    assert "--drain-after-s 3000 " in script(Slurm(), walltime=3600, drain_s=600)
    assert "--drain-after-s" not in script(Slurm(), walltime=30)


def test_more_directives_and_own_templates(tmp_path: Path) -> None:
    assert "\n#SBATCH --gres=gpu:1\n" in script(Slurm(), directives=["#SBATCH --gres=gpu:1"])
    own = "#!/bin/sh\n#SBATCH -n ${n} --nodes=${n/3} -p {queue}\necho $$HOME\n${command}\n"
    filled = script(Slurm(), template=own, queue="short")
    start = "#!/bin/sh\n#SBATCH -n 4 --nodes=2 -p short\necho $HOME\n"
    assert filled == f"{start}{COMMAND} --labels=gpu\n"
    path = tmp_path / "own.sh"
    path.write_text(own)
    assert script(Slurm(), template=str(path), queue="short") == filled


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"walltime": "soon"}, "'soon' is not a walltime"),
        ({"memory": "much"}, "is not a size of memory"),
        ({"template": "/no/such/file"}, "there is no template of a job in /no/such/file"),
        ({"template": "a\n${x}"}, "which is no field"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_submitted(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        SlurmEngines(PLACE, 1, launcher_options=options).start()


def test_options_are_checked_before_anything_starts() -> None:
    with pytest.raises(ClusterError, match="nodes must be 1 or more"):
        SlurmEngines(PLACE, 1, launcher_options={"nodes": 0})
    with pytest.raises(ClusterError, match="has no option 'partition'"):
        SlurmEngines(PLACE, 1, launcher_options={"partition": "x"})


def test_htcondor_has_no_queues() -> None:
    with pytest.raises(ClusterError, match="htcondor has no queues"):
        HTCondorEngines(PLACE, 1, launcher_options={"queue": "long"}).start()


def test_the_parallel_environment_of_grid_engine_can_be_another() -> None:
    assert "\n#$ -pe smp 4\n" in script(SGE())
    assert "\n#$ -pe orte 4\n" in script(SGE(), parallel_environment="orte")
    with pytest.raises(ClusterError, match="slurm has no option 'parallel_environment'"):
        SlurmEngines(PLACE, 1, launcher_options={"parallel_environment": "orte"})


def test_engines_are_spread_evenly() -> None:
    assert [plan.n for plan in spread(10, 4)] == [3, 3, 2, 2]
    assert [plan.n for plan in spread(2, 4)] == [1, 1]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("", 0), (90, 90), ("90", 90), ("1:30", 90), ("2:00:00", 7200), ("1-00:00:00", 86400)],
)
def test_walltimes(given: str | int, seconds: int) -> None:
    assert to_walltime_s(given) == seconds
    assert clock(90061) == "25:01:01"


@pytest.mark.parametrize(
    ("system", "output", "job_id"),
    [
        (Slurm(), "12\n", "12"),
        (Slurm(), "12;cluster\n", "12"),
        (Slurm(), "sbatch: warning\n13\n", "13"),
        (PBS(), "12.server\n", "12.server"),
        (SGE(), "12\n", "12"),
        (LSF(), "Job <12> is submitted to queue <normal>.\n", "12"),
        (HTCondor(), "12.0 - 12.0\n", "12"),
        *((system, "out of order", None) for system in ALL),
        *((system, "", None) for system in ALL),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_job_ids(system: BatchSystem, output: str, job_id: str | None) -> None:
    assert system.job_id(output) == job_id


QSTAT_F = """\
Job Id: 1.server
    Job_Name = work
    job_state = Q
    comment = Not Running: too
\t much memory

Job Id: 2.server
    job_state = R
    Variable_List = A=b
Job Id: 3.server
    job_state = F
    Exit_status = 271
Job Id: 4.server
    job_state = Y
Job Id: 5.server
    job_state = F
    Exit_status = -1
"""
QSTAT = """\
job-ID  prior   name       user   state submit/start at     queue          slots ja-task-ID
-------------------------------------------------------------------------------------------
      1 0.55500 work       me     Eqw   11/25/2026 10:00:00                    1
      2 0.55500 work       me     r     11/25/2026 10:00:00 all.q@node1        1
"""


@pytest.mark.parametrize(
    ("system", "output", "states"),
    [
        (
            Slurm(),
            "1|PENDING|Resources\n2|RUNNING|None\n3|COMPLETED|None\n4|NODE_FAIL|None\n5|PONDERING|None\n",
            {
                "1": Job("waiting", "Resources"),
                "2": Job("running", "RUNNING"),
                "3": Job("ended", "COMPLETED"),
                "4": Job("ended", "NODE_FAIL"),
                "5": Job("waiting", "in the state PONDERING"),
            },
        ),
        (
            PBS(),
            QSTAT_F,
            {
                "1.server": Job("waiting", "Not Running: too much memory"),
                "2.server": Job("running"),
                "3.server": Job("ended", "", -15),
                "4.server": Job("waiting", "in the state Y"),
                "5.server": Job("ended", "Exit_status -1 of PBS itself", 1),
            },
        ),
        (
            SGE(),
            QSTAT,
            {
                "1": Job("waiting", "in the state Eqw"),
                "2": Job("running", "in the state r"),
            },
        ),
        (
            LSF(),
            "1|PEND|-|New job is waiting\n2|RUN|-|-\n3|EXIT|137|-\n",
            {
                "1": Job("waiting", "New job is waiting"),
                "2": Job("running"),
                "3": Job("ended", "", 137),
            },
        ),
        (
            HTCondor(),
            "1 5 disk is full\n2 2 undefined\n3 4 undefined\n",
            {"1": Job("waiting", "disk is full"), "2": Job("running"), "3": Job("ended")},
        ),
        *((system, "", {}) for system in ALL),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_states(system: BatchSystem, output: str, states: dict[str, Job]) -> None:
    assert system.states(output) == states


@pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
def test_nonsense_is_no_state(system: BatchSystem) -> None:
    with pytest.raises((ValueError, KeyError)):
        system.states("the server is on holiday\n")


def test_ends() -> None:
    shown = "JobId=1 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:9 RunTime=1"
    assert Slurm().end(shown) == Job("ended", "OUT_OF_MEMORY OutOfMemory", -9)
    shown = "JobId=1 JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15"
    assert Slurm().end(shown) == Job("ended", "TIMEOUT TimeLimit", -15)
    assert Slurm().end("") is None
    account = "qname    all.q\nfailed   37  : qmaster enforced h_rt\nexit_status  137\n"
    assert SGE().end(account) == Job("ended", "37  : qmaster enforced h_rt", 137)
    assert HTCondor().end("1 undefined\n") == Job("ended", "", 1)
    assert HTCondor().end("undefined via condor_rm (by user me)\n") == Job(
        "ended", "via condor_rm (by user me)"
    )


@pytest.mark.parametrize(
    ("state", "told", "exit_code"),
    [
        ("COMPLETED", "0:0", 0),
        ("FAILED", "3:0", 3),
        ("CANCELLED by 1000", "0:0", -15),  # before it started
        ("TIMEOUT", "0:0", -15),
        ("NODE_FAIL", "0:0", 1),
        ("OUT_OF_MEMORY", "0:125", 1),
    ],
)
def test_what_slurm_ends_is_no_success(state: str, told: str, exit_code: int) -> None:
    name = state.split()[0]
    assert Slurm().end(f"{state}|{told}\n") == Job("ended", name, exit_code)  # as sacct says
    shown = f"JobId=1 JobState={name} Reason=None ExitCode={told}"
    assert Slurm().end(shown) == Job("ended", name, exit_code)


@pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
def test_a_path_may_have_blanks(system: BatchSystem) -> None:
    log = "/home/my lab/50% of $5/job.log"
    line = next(line for line in system.directives(Request("x", log, 1)) if "my lab" in line)
    assert line in {
        '#SBATCH --output="/home/my lab/50%% of $5/job.log"',
        f'#PBS -o "{log}"',
        f'#$ -o ":{log}"',
        f'#BSUB -oo "{log}"',
        "output = /home/my lab/50% of $(DOLLAR)5/job.log",
    }


def test_a_path_for_which_systems_have_no_rule_is_refused() -> None:
    with pytest.raises(ClusterError, match="slurm cannot be told a path such as"):
        Slurm().directives(Request("x", '/a "b" c\'s/job.log', 1))


def test_jobs_that_are_forgotten_are_no_failure() -> None:
    assert PBS().knows_none("qstat: Unknown Job Id 1.server\n")
    assert LSF().knows_none("Job <1> is not found\n")
    for system in ALL:
        assert not system.knows_none("cannot connect to the server\n")
        assert not system.knows_none("")


def test_a_supervisor_passes_on_only_what_its_engines_do_not_get_anyway() -> None:
    assert "--leave-signals" in script(LSF())
    assert "--pass-signals" not in script(LSF())
    assert "--pass-signals" in script(PBS())
