"""What type checkers read in place of `__init__.py`, which imports names when they are used."""

from parallelz.client.balanced import LoadBalancedView
from parallelz.client.broadcast import BroadcastView
from parallelz.client.client import Client
from parallelz.client.direct import DirectView
from parallelz.client.map_results import AsyncMapResult
from parallelz.client.recorded import AsyncHubResult
from parallelz.client.results import AsyncResult
from parallelz.client.view import View

__all__ = [
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "DirectView",
    "LoadBalancedView",
    "View",
]
