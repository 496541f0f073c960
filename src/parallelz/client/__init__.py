"""The user's side: a client, its views of engines, and results.

As ``parallelz.client`` has them: ``from parallelz import client; client.Client()``. They are
imported when they are first used.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "AsyncHubResult": "parallelz.client.recorded",
    "AsyncMapResult": "parallelz.client.map_results",
    "AsyncResult": "parallelz.client.results",
    "BroadcastView": "parallelz.client.broadcast",
    "Client": "parallelz.client.client",
    "DirectView": "parallelz.client.direct",
    "LoadBalancedView": "parallelz.client.balanced",
    "View": "parallelz.client.view",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
