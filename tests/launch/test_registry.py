"""Launchers by name."""

from __future__ import annotations

import pytest

from parallelz.cluster import Cluster
from parallelz.errors import ClusterError


def test_an_unknown_launcher_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ClusterError, match="no launcher called 'cloud'; there are local"):
        Cluster(engines="cloud")
    with pytest.raises(ClusterError, match="no launcher called 'cloud'; there are local"):
        Cluster(controller="cloud")
