"""Interactive parallel and distributed computing for Python.

::

    import parallelz

    with parallelz.Cluster(n=4) as rc:
        rc[:].push({"a": 2})
        rc[:].apply_sync(lambda x: a * x, 21)
        rc.view().map_sync(str.upper, ["some", "words"])

Names are imported when they are first used, so that ``import parallelz`` costs next to nothing.
"""

from __future__ import annotations

import importlib

from parallelz.errors import (
    AlreadyDisplayedError,
    ClientClosed,
    ClusterError,
    CompositeError,
    ConnectionFileError,
    DependencyTimeout,
    EngineError,
    ImpossibleDependency,
    InvalidDependency,
    NoEnginesRegistered,
    NotRecorded,
    ParallelzError,
    QueueFull,
    RemoteError,
    SerializationError,
    TaskAborted,
    TaskLost,
    TaskTimeout,
    UnmetDependency,
)

__version__ = "0.1.0"

_HOMES = {
    "AsyncHubResult": "parallelz.client.recorded",
    "AsyncMapResult": "parallelz.client.map_results",
    "AsyncResult": "parallelz.client.results",
    "Client": "parallelz.client.client",
    "Cluster": "parallelz.cluster",
    "Dependency": "parallelz.client.dependencies",
    "DirectView": "parallelz.client.direct",
    "LoadBalancedView": "parallelz.client.balanced",
    "ParallelFunction": "parallelz.client.remote",
    "Reference": "parallelz.protocol.functions",
    "RemoteFunction": "parallelz.client.remote",
    "depend": "parallelz.protocol.conditions",
    "dependent": "parallelz.protocol.conditions",
    "interactive": "parallelz.protocol.conditions",
    "plot_dag": "parallelz.client.dag",
    "register_serializer": "parallelz.protocol.payload",
    "require": "parallelz.protocol.conditions",
    "submit_graph": "parallelz.client.dag",
    "validate_graph": "parallelz.client.dag",
}

__all__ = [
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "Client",
    "ClientClosed",
    "Cluster",
    "ClusterError",
    "CompositeError",
    "ConnectionFileError",
    "Dependency",
    "DependencyTimeout",
    "DirectView",
    "EngineError",
    "ImpossibleDependency",
    "InvalidDependency",
    "LoadBalancedView",
    "NoEnginesRegistered",
    "NotRecorded",
    "ParallelFunction",
    "ParallelzError",
    "QueueFull",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "SerializationError",
    "TaskAborted",
    "TaskLost",
    "TaskTimeout",
    "UnmetDependency",
    "depend",
    "dependent",
    "interactive",
    "plot_dag",
    "register_serializer",
    "require",
    "submit_graph",
    "validate_graph",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
