"""Peers of the controller that `secrets` of a test module runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers_controller import RawPeer

from parallelz.protocol.messages import EngineJoined, Welcome
from parallelz.transport.security import ClusterSecrets


@pytest.fixture
def client(secrets: ClusterSecrets) -> Iterator[RawPeer]:
    peer = RawPeer(secrets, "client")
    peer.wait_for(Welcome)
    peer.wait_for(Welcome)
    yield peer
    peer.close()


@pytest.fixture
def engine(secrets: ClusterSecrets, client: RawPeer) -> Iterator[RawPeer]:
    peer = RawPeer(secrets, "engine")
    peer.wait_for(Welcome)
    peer.wait_for(Welcome)
    client.wait_for(EngineJoined)
    yield peer
    peer.close()
