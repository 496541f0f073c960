"""What a configuration means for those who start controllers and engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallelz.controller_limits import ControllerLimits
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch.launcher import ControllerOptions, HistoryLimits
from parallelz.launch.registry import section_of, section_of_controller
from parallelz.protocol.connection import Heartbeat
from parallelz.settings import DEFAULT_STORE
from parallelz.transport.security import USUAL_HEARTBEAT


def controller_options(
    configuration: Mapping[str, Mapping[str, Any]],
    *,
    ip: str | None = None,
    port: int | None = None,
    location: str | None = None,
    reuse: bool | None = None,
    store: str | None = None,
    scheme: str | None = None,
    hwm: int | None = None,
    history_max_age_s: float | None = None,
    history_max_count: int | None = None,
    history_max_bytes: int | str | None = None,
) -> ControllerOptions:
    """Return how a controller is started: as given, else as configured, else as usual.

    Raises
    ------
    ClusterError
        If something makes no sense.
    """
    network = configuration.get("Controller", {})
    history = _overridden(
        configuration.get("History", {}),
        {
            "store": store,
            "max_age_s": history_max_age_s,
            "max_count": history_max_count,
            "max_bytes": history_max_bytes,
        },
    )
    scheduler = _overridden(configuration.get("Scheduler", {}), {"scheme": scheme, "hwm": hwm})
    limits = configuration.get("Limits", {})
    heartbeat = configuration.get("Heartbeat", {})
    return ControllerOptions(
        network.get("ip", "") if ip is None else ip,
        network.get("port", 0) if port is None else port,
        reuse=network.get("reuse", False) if reuse is None else reuse,
        store=history.pop("store", DEFAULT_STORE),
        history=HistoryLimits.of(**history),
        limits=ControllerLimits(**limits),
        heartbeat=to_heartbeat(**heartbeat),
        location=network.get("location", "") if location is None else location,
        **scheduler,
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


def _overridden(configured: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is configured, but what is given and not None instead."""
    return {**configured, **{name: each for name, each in given.items() if each is not None}}
