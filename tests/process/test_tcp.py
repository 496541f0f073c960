"""A client that comes over TCP, as from another host: with CURVE, by its connection file."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from parallelz import Client, Cluster
from parallelz.protocol.connection import ConnectionInfo

pytestmark = pytest.mark.process


def test_connection_file_is_enough_to_work_over_tcp(tmp_path: Path) -> None:
    cluster = Cluster(n=1, profile_dir=tmp_path, controller_ip="127.0.0.1")
    with cluster:
        info = ConnectionInfo.decode(Path(cluster.client_connection_file).read_bytes())
        from_elsewhere = msgspec.structs.replace(info, ipc_url="")
        assert len(from_elsewhere.server_key) == 40
        with Client(from_elsewhere) as rc:
            array = np.arange(1_000_000.0)
            rc[:].push({"a": array}, block=True)
            assert (rc[0]["a"] == array).all()
            assert rc.load_balanced_view().map_sync(abs, range(-50, 0)) == list(
                range(50, 0, -1)
            )
