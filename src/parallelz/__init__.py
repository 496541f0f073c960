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
version_info = (0, 1, 0)

_HOMES = {
    "ALL_COMPLETED": "concurrent.futures",
    "AsyncHubResult": "parallelz.client.recorded",
    "AsyncMapResult": "parallelz.client.map_results",
    "AsyncResult": "parallelz.client.results",
    "BroadcastView": "parallelz.client.broadcast",
    "Client": "parallelz.client.client",
    "Cluster": "parallelz.cluster",
    "Dependency": "parallelz.client.dependencies",
    "DetachedResult": "parallelz.client.detached",
    "DirectView": "parallelz.client.direct",
    "FIRST_COMPLETED": "concurrent.futures",
    "FIRST_EXCEPTION": "concurrent.futures",
    "LoadBalancedView": "parallelz.client.balanced",
    "ParallelFunction": "parallelz.client.remote",
    "Reference": "parallelz.protocol.functions",
    "RemoteFunction": "parallelz.client.remote",
    "TaskFuture": "parallelz.client.executor",
    "ViewExecutor": "parallelz.client.executor",
    "depend": "parallelz.protocol.conditions",
    "dependent": "parallelz.protocol.conditions",
    "interactive": "parallelz.protocol.conditions",
    "parallel": "parallelz.client.remote",
    "plot_dag": "parallelz.client.dag",
    "publish_data": "parallelz.engine.output",
    "register_joblib_backend": "parallelz.client.interop",
    "register_serializer": "parallelz.protocol.payload",
    "remote": "parallelz.client.remote",
    "require": "parallelz.protocol.conditions",
    "submit_graph": "parallelz.client.dag",
    "use_cloudpickle": "parallelz.protocol.last_resort",
    "use_dill": "parallelz.protocol.last_resort",
    "use_pickle": "parallelz.protocol.last_resort",
    "validate_graph": "parallelz.client.dag",
}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "ClientClosed",
    "Cluster",
    "ClusterError",
    "CompositeError",
    "ConnectionFileError",
    "Dependency",
    "DependencyTimeout",
    "DetachedResult",
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
    "TaskFuture",
    "TaskLost",
    "TaskTimeout",
    "UnmetDependency",
    "ViewExecutor",
    "depend",
    "dependent",
    "interactive",
    "parallel",
    "plot_dag",
    "publish_data",
    "register_joblib_backend",
    "register_serializer",
    "remote",
    "require",
    "submit_graph",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
    "validate_graph",
    "version_info",
]


def __getattr__(name: str) -> object:
    if name == "client":
        return importlib.import_module("parallelz.client")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
