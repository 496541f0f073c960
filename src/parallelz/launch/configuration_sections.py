"""The sections of configuration files, as structs; those of launchers are their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from parallelz import settings
from parallelz.controller_limits import ControllerLimits
from parallelz.core.placement import to_scheme
from parallelz.engine_options import to_code, to_labels, to_resources, to_size
from parallelz.launch.configuration import Command
from parallelz.launch.launcher_options import to_options
from parallelz.launch.registry import (
    launcher_sections,
    to_controller_launcher,
    to_engine_launcher,
)
from parallelz.option_values import (
    to_count,
    to_count_or_0,
    to_grace,
    to_period,
    to_port,
    to_seconds,
)
from parallelz.protocol.connection import Heartbeat
from parallelz.store.choice import to_store


class ClusterSection(msgspec.Struct, frozen=True):
    """A cluster as a whole.

    Attributes
    ----------
    n
        How many engines; None: one per core, or as the launcher says.
    engines
        Launcher of engines: local, mpi, ssh, slurm, pbs, sge, lsf, htcondor.
    controller
        Launcher of the controller: local, ssh, slurm, pbs, sge, lsf, htcondor.
    engine_timeout
        Seconds until controller and engines must be ready.
    stop_grace_s
        Seconds from asking a controller or a set of engines to end to ending it by force. An
        engine that does not end at once, as what it runs handles SIGTERM or holds the GIL, is
        killed 3 s before that. Jobs get what their system gives.
    """

    n: int | None = None
    engines: str = "local"
    controller: str = "local"
    engine_timeout: float = settings.START_TIMEOUT_S
    stop_grace_s: float = settings.STOP_GRACE_S


class ControllerSection(msgspec.Struct, frozen=True):
    """Ports and addresses: where a controller listens for engines and clients.

    Attributes
    ----------
    ip
        Also listen on this address, for other hosts; "*" is all addresses, encrypted always;
        "": this host only, or all addresses if the launcher of engines needs that.
    port
        For other hosts; 0: one that is free.
    location
        Address by which other hosts reach this one, if it does not know that itself.
    reuse
        Keep the connection files at the end, and use the keys, the address and the port in
        them again: copies on other hosts stay valid.
    """

    ip: str = ""
    port: int = 0
    location: str = ""
    reuse: bool = False


class HistorySection(msgspec.Struct, frozen=True):
    """Database backend: where the history of tasks and results is kept, and how much of it.

    Attributes
    ----------
    store
        sqlite, memory, none, postgresql, or the URL of a PostgreSQL database without a
        password.
    max_age_s
        Forget tasks that ended longer ago, in seconds; None: never.
    max_count
        Forget the oldest tasks if there are more; None: no limit.
    max_bytes
        The same by the size of the store, such as 500MB or 2GiB; None: no limit.
    """

    store: str = settings.DEFAULT_STORE
    max_age_s: float | None = None
    max_count: int | None = None
    max_bytes: int | str | None = None


class SchedulerSection(msgspec.Struct, frozen=True):
    """Scheduling of balanced tasks.

    Attributes
    ----------
    scheme
        How an engine is chosen: leastload, lru, plainrandom, twobin, weighted, pure, or
        module:Class of your own.
    hwm
        How many tasks may be placed on an engine at once, 0: any number; None: what covers
        the way to it.
    """

    scheme: str = settings.DEFAULT_SCHEME
    hwm: int | None = None


class EngineSection(msgspec.Struct, frozen=True):
    """Engines, whatever starts them.

    Attributes
    ----------
    n
        How many ipenginez starts.
    labels
        What they are good for; tasks may ask for engines with some labels.
    resources
        How much each of them has, such as {"gpu": 1}; tasks may ask for some.
    memory_limit
        Kill and replace an engine that uses more memory than this, such as 500MB or 2GiB;
        None: no limit.
    restart
        Replace an engine that dies; at most 5 within a minute, all together.
    startup_file
        Python that each engine runs first, in its namespace; an engine for which that fails
        ends. The path is one of the engine's host.
    startup_code
        The same as text, after the file.
    file_wait_s
        Seconds for which engines wait for their connection file where it may come late:
        ipenginez, jobs of batch systems, ranks of MPI.
    """

    n: int = 1
    labels: list[str] = []
    resources: dict[str, float] = {}
    memory_limit: int | str | None = None
    restart: bool = False
    startup_file: str = ""
    startup_code: str = ""
    file_wait_s: float = settings.FILE_WAIT_S


CONTROLLER_SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    "Controller": ControllerSection,
    "History": HistorySection,
    "Scheduler": SchedulerSection,
    "Heartbeat": Heartbeat,
    "Limits": ControllerLimits,
}
ENGINE_SECTIONS: Mapping[str, type[msgspec.Struct]] = {"Engine": EngineSection}


def sections_of(command: Command) -> dict[str, type[msgspec.Struct]]:
    """Return the sections that a command understands, by their names."""
    match command:
        case "ipcontrollerz":
            return dict(CONTROLLER_SECTIONS)
        case "ipenginez":
            return dict(ENGINE_SECTIONS)
        case "ipclusterz":
            return {
                "Cluster": ClusterSection,
                **CONTROLLER_SECTIONS,
                **ENGINE_SECTIONS,
                **{name: options for name, (_, options) in launcher_sections().items()},
            }


def check_values(section: str, values: Mapping[str, Any]) -> None:
    """Raise ClusterError if values make no sense, though they are of the right types."""
    if section in launcher_sections():
        launcher, options = launcher_sections()[section]
        to_options(options, values, launcher)
    for option, value in values.items():
        to_value(section, option, value)


def to_value(section: str, option: str, value: object) -> object:
    """Return the value of an option if it makes sense; raise ClusterError if not."""
    convert = _CONVERSIONS.get((section, option))
    return value if convert is None or value is None else convert(value)


_CONVERSIONS: Mapping[tuple[str, str], Callable[[Any], object]] = {
    ("Cluster", "n"): to_count,
    ("Cluster", "engines"): to_engine_launcher,
    ("Cluster", "controller"): to_controller_launcher,
    ("Cluster", "engine_timeout"): to_seconds,
    ("Cluster", "stop_grace_s"): to_seconds,
    ("Heartbeat", "period_s"): to_period,
    ("Heartbeat", "timeout_s"): to_period,
    ("Limits", "away_grace_s"): to_grace,
    ("Limits", "client_grace_s"): to_grace,
    ("Limits", "unrecorded_s"): to_seconds,
    ("Limits", "unrecorded_bytes_max"): to_count,
    ("Limits", "peer_bytes_max"): to_count,
    ("Controller", "port"): to_port,
    ("History", "store"): to_store,
    ("History", "max_age_s"): to_seconds,
    ("History", "max_count"): to_count,
    ("History", "max_bytes"): to_size,
    ("Scheduler", "scheme"): to_scheme,
    ("Scheduler", "hwm"): to_count_or_0,
    ("Engine", "n"): to_count,
    ("Engine", "labels"): to_labels,
    ("Engine", "resources"): to_resources,
    ("Engine", "memory_limit"): to_size,
    ("Engine", "startup_code"): to_code,
    ("Engine", "file_wait_s"): to_seconds,
}
