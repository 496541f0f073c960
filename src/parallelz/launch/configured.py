"""What a configuration means for those who start controllers and engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallelz.controller_limits import ControllerLimits
from parallelz.engine_options import EngineOptions, to_size
from parallelz.errors import ClusterError
from parallelz.launch.configuration import Configuration
from parallelz.launch.configuration_sections import to_value
from parallelz.launch.launcher import ControllerOptions, HistoryLimits
from parallelz.launch.registry import section_of, section_of_controller
from parallelz.protocol.connection import Heartbeat
from parallelz.settings import DEFAULT_STORE
from parallelz.store.choice import to_store
from parallelz.transport.security import USUAL_HEARTBEAT

ARGUMENTS: Mapping[str, tuple[str, str]] = {
    "n": ("Cluster", "n"),
    "engines": ("Cluster", "engines"),
    "controller": ("Cluster", "controller"),
    "engine_timeout": ("Cluster", "engine_timeout"),
    "controller_ip": ("Controller", "ip"),
    "controller_port": ("Controller", "port"),
    "controller_location": ("Controller", "location"),
    "reuse": ("Controller", "reuse"),
    "store": ("History", "store"),
    "history_max_age_s": ("History", "max_age_s"),
    "history_max_count": ("History", "max_count"),
    "history_max_bytes": ("History", "max_bytes"),
    "scheme": ("Scheduler", "scheme"),
    "hwm": ("Scheduler", "hwm"),
}
"""Options of the configuration by the names that they have as arguments, as of `Cluster`."""


def overridden(
    configuration: Mapping[str, Mapping[str, Any]], arguments: Mapping[str, Any]
) -> Configuration:
    """Return a configuration, but what is given and not None instead.

    Parameters
    ----------
    configuration
        From `read_configuration`.
    arguments
        By the names of `ARGUMENTS`.

    Raises
    ------
    ClusterError
        If something that is given makes no sense.
    """
    whole = {section: dict(values) for section, values in configuration.items()}
    for name, value in arguments.items():
        if value is None:
            continue
        section, option = ARGUMENTS[name]
        try:
            whole.setdefault(section, {})[option] = to_value(section, option, value)
        except ClusterError as error:
            raise ClusterError(f"{name}: {error}") from None
    return whole


def controller_options(configuration: Mapping[str, Mapping[str, Any]]) -> ControllerOptions:
    """Return how a controller is started: as configured, else as usual.

    Raises
    ------
    ClusterError
        If something makes no sense.
    """
    network = configuration.get("Controller", {})
    history = configuration.get("History", {})
    size = history.get("max_bytes")
    return ControllerOptions(
        network.get("ip", ""),
        network.get("port", 0),
        location=network.get("location", ""),
        reuse=network.get("reuse", False),
        store=to_store(history.get("store", DEFAULT_STORE)),
        history=HistoryLimits(
            history.get("max_age_s"),
            history.get("max_count"),
            None if size is None else to_size(size),
        ),
        limits=ControllerLimits(**configuration.get("Limits", {})),
        heartbeat=to_heartbeat(**configuration.get("Heartbeat", {})),
        **configuration.get("Scheduler", {}),
    )


def to_heartbeat(
    period_s: float = USUAL_HEARTBEAT.period_s, timeout_s: float = USUAL_HEARTBEAT.timeout_s
) -> Heartbeat:
    """Return a heartbeat that makes sense; raise ClusterError if it does not."""
    if period_s >= timeout_s:
        raise ClusterError(
            f"a heartbeat each {period_s:g} s cannot be missed within {timeout_s:g} s: let"
            " Heartbeat.timeout_s be several times Heartbeat.period_s"
        )
    return Heartbeat(period_s, timeout_s)


def engine_options(configuration: Mapping[str, Mapping[str, Any]]) -> EngineOptions:
    """Return what is configured for engines, whatever starts them."""
    section = configuration.get("Engine", {})
    return EngineOptions().but(
        **{name: section[name] for name in EngineOptions._fields if name in section}
    )


def launcher_options_for(
    configuration: Mapping[str, Mapping[str, Any]],
    launcher: str,
    given: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a launcher of engines is told: as given, else as configured."""
    return {**configuration.get(section_of(launcher), {}), **(given or {})}


def controller_launcher_options_for(
    configuration: Mapping[str, Mapping[str, Any]],
    launcher: str,
    given: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Do as `launcher_options_for`, for a launcher of controllers."""
    return {**configuration.get(section_of_controller(launcher), {}), **(given or {})}
