"""What one job of a batch system is asked for, and its script; no I/O but for templates."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from parallelz import settings
from parallelz.engine_options import EngineOptions, to_size
from parallelz.errors import ClusterError
from parallelz.launch.batch_system import BatchSystem, Request, clock, to_walltime_s
from parallelz.launch.launcher import Place
from parallelz.launch.template import fill


class BatchOptions(msgspec.Struct, frozen=True):
    """What each job asks for. "" and 0 leave it to the system.

    Attributes
    ----------
    nodes
        How many jobs the engines are spread over.
    queue
        Queue or partition.
    account
        Account or project that pays.
    walltime
        Seconds, or a text such as ``12:00:00``.
    memory
        Of each engine, such as ``4GB``.
    cores
        Of each engine.
    directives
        More lines by which the script asks for something, as the system wants them.
    template
        A whole script, or the path of one, instead of ours; with fields such as ``${n}``.
    drain_s
        Engines take nothing new for so long before the walltime is over.
    python
        Interpreter of the engines; "": the path of the one here.
    environment
        Variables of the engines.
    directory
        Where engines work; "": where this process does.
    setup
        Commands of a POSIX shell to run before, such as ``module load python``.
    """

    nodes: int = 1
    queue: str = ""
    account: str = ""
    walltime: str | int = ""
    memory: str = ""
    cores: int = 1
    directives: list[str] = []
    template: str = ""
    drain_s: int = 60
    python: str = ""
    environment: dict[str, str] = {}
    directory: str = ""
    setup: str = ""


class SGEOptions(BatchOptions, frozen=True):
    """What each job of Grid Engine asks for, besides what all systems have.

    Attributes
    ----------
    parallel_environment
        The one whose slots are cores of one host; only for jobs of several.
    """

    parallel_environment: str = "smp"


class BatchControllerOptions(msgspec.Struct, frozen=True):
    """What the job of a controller asks for. "" and 0 leave it to the system.

    Attributes
    ----------
    queue
        Queue or partition.
    account
        Account or project that pays.
    walltime
        Seconds, or a text such as ``12:00:00``; the cluster ends with it.
    memory
        Such as ``4GB``.
    cores
        How many cores.
    directives
        More lines by which the script asks for something, as the system wants them.
    template
        A whole script, or the path of one, instead of ours; with fields such as ``${name}``.
    python
        Interpreter of the controller; "": the path of the one here.
    environment
        Variables of the controller.
    directory
        Where it works; "": where this process does.
    setup
        Commands of a POSIX shell to run before, such as ``module load python``.
    """

    queue: str = ""
    account: str = ""
    walltime: str | int = ""
    memory: str = ""
    cores: int = 1
    directives: list[str] = []
    template: str = ""
    python: str = ""
    environment: dict[str, str] = {}
    directory: str = ""
    setup: str = ""


class SGEControllerOptions(BatchControllerOptions, frozen=True):
    """The same of Grid Engine.

    Attributes
    ----------
    parallel_environment
        The one whose slots are cores of one host; only for several cores.
    """

    parallel_environment: str = "smp"


class JobPlan(NamedTuple):
    """One job before it is submitted."""

    number: int
    n: int  # engines


def spread(n: int, nodes: int) -> list[JobPlan]:
    """Return how many engines each job gets, the first ones one more if it is uneven."""
    count = min(n, nodes)
    each, more = divmod(n, count)
    return [JobPlan(index + 1, each + (index < more)) for index in range(count)]


def job_script(
    system: BatchSystem,
    options: BatchOptions,
    engine: EngineOptions,
    plan: JobPlan,
    *,
    place: Place,
    set_id: str,
    log_dir: Path,
) -> str:
    """Return the script of one job.

    Raises
    ------
    ClusterError
        If the template, or what it is to be filled with, makes no sense.
    """
    log = log_dir / f"job-{plan.number}.log"
    walltime_s = to_walltime_s(options.walltime)
    memory = to_size(options.memory) * plan.n if options.memory else 0
    request = Request(
        f"parallelz-{place.cluster_id or 'engines'}-{set_id}",
        str(log),
        options.cores * plan.n,
        walltime_s,
        -(-memory // 1_000_000),
        options.queue,
        options.account,
        options.parallel_environment if isinstance(options, SGEOptions) else "",
    )
    command = _command(system, options, engine, plan, place, log_dir, walltime_s)
    fields: dict[str, str | int] = {
        "n": plan.n,
        "log_dir": str(log_dir),
        "profile_dir": str(place.profile_dir),
        "cluster_id": place.cluster_id,
    }
    return script_of(system, options, request, command, fields)


def script_of(
    system: BatchSystem,
    options: BatchOptions | BatchControllerOptions,
    request: Request,
    command: str,
    fields: Mapping[str, str | int],
) -> str:
    """Return the script of a job that runs a command; templates may use more fields."""
    variables = options.environment.items()
    body = "\n".join(
        [
            *(f"export {name}={shlex.quote(text)}" for name, text in variables),
            *([options.setup] if options.setup else []),
            shlex.join(["cd", options.directory or str(Path.cwd())]),
            f"exec {command}",
        ]
    )
    if not options.template:
        return system.script([*system.directives(request), *options.directives], body)
    all_fields: dict[str, str | int] = {
        **fields,
        "nodes": 1,
        "cores": request.cores,
        "memory_mb": request.memory_mb,
        "walltime": clock(request.walltime_s) if request.walltime_s else "",
        "queue": options.queue,
        "account": options.account,
        "name": request.name,
        "log": request.log,
        "command": command,
        "body": body,
    }
    return fill(_template(options.template), all_fields)


def _template(given: str) -> str:
    if "\n" in given:
        return given
    try:
        return Path(given).expanduser().read_text()
    except OSError as error:
        raise ClusterError(f"there is no template of a job in {given}: {error}") from None


def _command(
    system: BatchSystem,
    options: BatchOptions,
    engine: EngineOptions,
    plan: JobPlan,
    place: Place,
    log_dir: Path,
    walltime_s: int,
) -> str:
    file = settings.connection_file(place.profile_dir, place.cluster_id, "engine")
    command = [options.python or sys.executable, "-m", "parallelz.engine.process"]
    command += ["--file", str(file), "-n", str(plan.n), "--wait-s", f"{engine.file_wait_s:g}"]
    command += ["--log-dir", str(log_dir / f"job-{plan.number}")]
    command.append("--leave-signals" if system.passes_signals == "all" else "--pass-signals")
    if walltime_s > options.drain_s:
        command += ["--drain-after-s", str(walltime_s - options.drain_s)]
    return shlex.join([*command, *engine.arguments])
