"""A cluster in threads, with two engines, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers_client import TIMEOUT_S, ThreadCluster, running_cluster

from parallelz import Client, DirectView, LoadBalancedView


@pytest.fixture
def cluster() -> Iterator[ThreadCluster]:
    with running_cluster(2) as cluster:
        yield cluster


@pytest.fixture
def rc(cluster: ThreadCluster) -> Iterator[Client]:
    with Client(cluster.info) as client:
        client.wait_for_engines(2, TIMEOUT_S)
        yield client


@pytest.fixture
def dv(rc: Client) -> DirectView:
    return rc[:]


@pytest.fixture
def lv(rc: Client) -> LoadBalancedView:
    return rc.load_balanced_view()
