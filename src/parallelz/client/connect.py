"""Finds the cluster that a client is to connect to."""

from __future__ import annotations

import os
import time
from pathlib import Path

from parallelz import settings
from parallelz.client.connection import Connection
from parallelz.errors import ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import check_role, read_connection_file

FILE_CHECK_PERIOD_S = 0.02  # the appearance of a file cannot be awaited everywhere


def connect(
    connection_info: ConnectionInfo | str | os.PathLike[str] | None,
    *,
    profile: str | None,
    profile_dir: str | os.PathLike[str] | None,
    cluster_id: str,
    timeout_s: float,
) -> Connection:
    """Return a connection to the cluster that is meant, once its controller has answered.

    Raises
    ------
    ConnectionFileError
        If there is no such file after `timeout_s`, or it cannot be used here.
    ClusterError
        If nobody answers, or refuses.
    """
    until_s = time.monotonic() + timeout_s
    if isinstance(connection_info, ConnectionInfo):
        info, origin = connection_info, f"{connection_info.host}"
        check_role(info, "client")
    else:
        if connection_info is None:
            directory = settings.profile_dir(profile, profile_dir)
            path = settings.connection_file(directory, cluster_id, "client")
        else:
            path = Path(connection_info).expanduser()
        info, origin = _read(path, until_s, timeout_s), str(path)
    try:
        return Connection(info, max(until_s - time.monotonic(), 0.1), origin)
    except ValueError as error:  # no address in it is reachable from here
        raise ConnectionFileError(f"{origin}: {error}") from error


def _read(path: Path, until_s: float, timeout_s: float) -> ConnectionInfo:
    while True:
        try:
            return read_connection_file(path, "client")
        except FileNotFoundError:
            if time.monotonic() >= until_s:
                raise ConnectionFileError(
                    f"there is no cluster: {path} did not appear within {timeout_s:g} s."
                    " `ipclusterz start -n 4` starts one; is it another profile or cluster id?"
                ) from None
        time.sleep(FILE_CHECK_PERIOD_S)
