"""The launchers by their short names.

Each is a class in a module of its own, imported only when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import EngineSet, LaunchedFacts, Place

CONTROLLER_LAUNCHERS = ("local",)

_ENGINE_LAUNCHERS = {
    "local": "parallelz.launch.local:LocalEngines",
    "mpi": "parallelz.launch.mpi:MPIEngines",
    "ssh": "parallelz.launch.ssh:SSHEngines",
    "slurm": "parallelz.launch.batch:SlurmEngines",
    "pbs": "parallelz.launch.batch:PBSEngines",
    "sge": "parallelz.launch.batch:SGEEngines",
    "lsf": "parallelz.launch.batch:LSFEngines",
    "htcondor": "parallelz.launch.batch:HTCondorEngines",
}


class EngineLauncher(Protocol):
    """What the class of a launcher of engines offers."""

    def needs_network(self, launcher_options: Mapping[str, Any]) -> bool:
        """Whether its engines are on other hosts, for which the controller must listen."""
        ...

    def default_count(self, launcher_options: Mapping[str, Any]) -> int:
        """Return how many engines to start if nobody says."""
        ...

    def __call__(
        self,
        place: Place,
        n: int,
        *,
        set_id: str,
        options: EngineOptions,
        launcher_options: Mapping[str, Any],
    ) -> EngineSet:
        """Return a set that is not started; raise ClusterError for options it cannot use."""
        ...

    def from_facts(self, facts: LaunchedFacts, place: Place, *, set_id: str) -> EngineSet:
        """Take up engines that were started by another process, or see that they ended."""
        ...


def engine_launcher(name: str) -> EngineLauncher:
    """Return the class behind a short name such as ``local``.

    Raises
    ------
    ClusterError
        If there is none; says which there are.
    """
    _check(name, tuple(_ENGINE_LAUNCHERS))
    module, _, attribute = _ENGINE_LAUNCHERS[name].partition(":")
    launcher: EngineLauncher = getattr(importlib.import_module(module), attribute)
    return launcher


def launcher_sections() -> dict[str, tuple[str, type[msgspec.Struct]]]:
    """Return launchers with options: by the names of their sections in configuration files.

    Returns
    -------
    dict
        Such as ``{"Slurm": ("slurm", BatchOptions)}``. To ask imports all launchers.
    """
    sections: dict[str, tuple[str, type[msgspec.Struct]]] = {}
    for name in _ENGINE_LAUNCHERS:
        launcher = engine_launcher(name)
        options = getattr(launcher, "Options", None)
        if options is not None:
            class_name = _ENGINE_LAUNCHERS[name].partition(":")[2]
            sections[class_name.removesuffix("Engines")] = (name, options)
    return sections


def section_of(launcher: str) -> str:
    """Return the name of a launcher's section in configuration files, "" if unknown."""
    return _ENGINE_LAUNCHERS.get(launcher, "").partition(":")[2].removesuffix("Engines")


def check_controller_launcher(name: str) -> None:
    """Raise ClusterError unless there is a launcher of controllers called `name`."""
    _check(name, CONTROLLER_LAUNCHERS)


def _check(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ClusterError(
            f"there is no launcher called {name!r}; known are: {', '.join(known)}"
        )
