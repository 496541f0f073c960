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
from parallelz.launch.cluster_file import ChangingFacts
from parallelz.launch.launcher import (
    ControllerOptions,
    EngineSet,
    LaunchedController,
    LaunchedFacts,
    Place,
)
from parallelz.option_values import nearest

_CONTROLLER_LAUNCHERS = {
    "local": "parallelz.launch.local_controller:LocalController",
    "ssh": "parallelz.launch.ssh_controller:SSHController",
    "slurm": "parallelz.launch.batch_controller:SlurmController",
    "pbs": "parallelz.launch.batch_controller:PBSController",
    "sge": "parallelz.launch.batch_controller:SGEController",
    "lsf": "parallelz.launch.batch_controller:LSFController",
    "htcondor": "parallelz.launch.batch_controller:HTCondorController",
}

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


class ControllerLauncher(Protocol):
    """What the class of a launcher of controllers offers.

    Attributes
    ----------
    makes_files
        Whether the connection files are made by what it starts, not before.
    """

    makes_files: bool

    def check(self, launcher_options: Mapping[str, Any]) -> None:
        """Raise ClusterError if it cannot use these options."""
        ...

    def needs_network(self, launcher_options: Mapping[str, Any]) -> bool:
        """Whether it is to listen for other hosts wherever its engines are."""
        ...

    def __call__(
        self,
        place: Place,
        options: ControllerOptions,
        *,
        launcher_options: Mapping[str, Any],
        changing_facts: ChangingFacts,
    ) -> LaunchedController:
        """Return a controller that is not started."""
        ...

    def from_facts(self, facts: LaunchedFacts, place: Place) -> LaunchedController:
        """Take up one that was started by another process, or see that it ended."""
        ...


def engine_launcher(name: str) -> EngineLauncher:
    """Return the class behind a short name such as ``local``.

    Raises
    ------
    ClusterError
        If there is none; says which there are.
    """
    launcher: EngineLauncher = _imported(name, _ENGINE_LAUNCHERS)
    return launcher


def controller_launcher(name: str) -> ControllerLauncher:
    """Do as `engine_launcher`, for controllers."""
    launcher: ControllerLauncher = _imported(name, _CONTROLLER_LAUNCHERS)
    return launcher


def _imported(name: str, launchers: Mapping[str, str]) -> Any:  # noqa: ANN401 - a class
    _check(name, launchers)
    module, _, attribute = launchers[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def to_engine_launcher(name: str) -> str:
    """Return the name of a launcher of engines; raise ClusterError if there is none."""
    _check(name, _ENGINE_LAUNCHERS)
    return name


def to_controller_launcher(name: str) -> str:
    """Do as `to_engine_launcher`, for controllers."""
    _check(name, _CONTROLLER_LAUNCHERS)
    return name


def _check(name: str, launchers: Mapping[str, str]) -> None:
    if name not in launchers:
        hint = nearest(str(name), launchers)
        raise ClusterError(f"there is no launcher called {name!r}; {hint}")


def launcher_sections() -> dict[str, tuple[str, type[msgspec.Struct]]]:
    """Return launchers with options: by the names of their sections in configuration files.

    Returns
    -------
    dict
        Such as ``{"Slurm": ("slurm", BatchOptions)}``. To ask imports all launchers.
    """
    sections: dict[str, tuple[str, type[msgspec.Struct]]] = {}
    for launchers in (_ENGINE_LAUNCHERS, _CONTROLLER_LAUNCHERS):
        for name in launchers:
            options = getattr(_imported(name, launchers), "Options", None)
            if options is not None:
                sections[_section(name, launchers)] = (name, options)
    return sections


def section_of(launcher: str) -> str:
    """Return the name of a launcher's section in configuration files, "" if unknown."""
    return _section(launcher, _ENGINE_LAUNCHERS)


def section_of_controller(launcher: str) -> str:
    """Do as `section_of`, for launchers of controllers."""
    return _section(launcher, _CONTROLLER_LAUNCHERS)


def _section(launcher: str, launchers: Mapping[str, str]) -> str:
    return launchers.get(launcher, "").partition(":")[2].removesuffix("Engines")
