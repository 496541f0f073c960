"""What type checkers read in place of `__init__.py`, which imports names when they are used."""

from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

from parallelz.client.balanced import LoadBalancedView
from parallelz.client.broadcast import BroadcastView
from parallelz.client.client import Client
from parallelz.client.dag import plot_dag, submit_graph, validate_graph
from parallelz.client.dependencies import Dependency
from parallelz.client.detached import DetachedResult
from parallelz.client.direct import DirectView
from parallelz.client.executor import TaskFuture, ViewExecutor
from parallelz.client.interop import register_joblib_backend
from parallelz.client.map_results import AsyncMapResult
from parallelz.client.recorded import AsyncHubResult
from parallelz.client.remote import ParallelFunction, RemoteFunction, parallel, remote
from parallelz.client.results import AsyncResult
from parallelz.cluster import Cluster
from parallelz.engine.output import publish_data
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
from parallelz.protocol.conditions import depend, dependent, interactive, require
from parallelz.protocol.functions import Reference
from parallelz.protocol.last_resort import use_cloudpickle, use_dill, use_pickle
from parallelz.protocol.payload import register_serializer

__version__: str
version_info: tuple[int, int, int]

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
