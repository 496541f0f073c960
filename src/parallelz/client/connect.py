"""Finds the cluster that a client is to connect to."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TypeGuard

import msgspec

from parallelz import settings
from parallelz.client.connection import Connection
from parallelz.errors import ClusterError, ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import check_role, read_connection_file
from parallelz.transport.tunnel import SSHServer, Tunnel

_ADDRESS = re.compile(r"tcp://([^:/\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}")
FILE_CHECK_PERIOD_S = 0.02  # the appearance of a file cannot be awaited everywhere


def connect(
    connection_info: ConnectionInfo | str | os.PathLike[str] | None,
    *,
    profile: str | None,
    profile_dir: str | os.PathLike[str] | None,
    cluster_id: str,
    timeout_s: float,
    sshserver: str | None,
    sshkey: str | os.PathLike[str] | None,
) -> Connection:
    """Return a connection to the cluster that is meant, once its controller has answered.

    Raises
    ------
    ConnectionFileError
        If there is no such file after `timeout_s`, or it cannot be used here.
    ClusterError
        If nobody answers, or refuses, or there is no tunnel to be had.
    """
    until_s = time.monotonic() + timeout_s
    server = None if sshserver is None else SSHServer.of(sshserver, sshkey)
    if server is None and sshkey is not None:
        raise ClusterError("sshkey is of use only with sshserver, which is not given")
    url = connection_info if _is_url(connection_info) else ""
    if isinstance(connection_info, ConnectionInfo):
        info, origin = connection_info, f"{connection_info.host}"
        check_role(info, "client")
    else:
        if connection_info is None or url:
            directory = settings.profile_dir(profile, profile_dir)
            path = settings.connection_file(directory, cluster_id, "client")
        else:
            path = Path(connection_info).expanduser()
        info, origin = _read(path, until_s, timeout_s), url or str(path)
        if url:
            info = _at_address(info, url, path)
    if server is None:
        return _connect(info, until_s, origin, None)
    tunnel = Tunnel(server, info, timeout_s)
    try:
        return _connect(tunnel.info, until_s, f"{origin} through {server.host}", tunnel)
    except BaseException:
        tunnel.close()
        raise


def _connect(
    info: ConnectionInfo, until_s: float, origin: str, tunnel: Tunnel | None
) -> Connection:
    try:
        return Connection(info, max(until_s - time.monotonic(), 0.1), origin, tunnel)
    except ValueError as error:  # no address in it is reachable from here
        raise ConnectionFileError(f"{origin}: {error}") from error


def _is_url(given: object) -> TypeGuard[str]:
    return isinstance(given, str) and "://" in given


def _at_address(info: ConnectionInfo, url: str, path: Path) -> ConnectionInfo:
    """Return the same secrets for a controller at an address that its file does not name."""
    if not _ADDRESS.fullmatch(url):
        raise ConnectionFileError(
            f"{url!r} is not the address of a controller: give tcp://host:port"
        )
    if not info.server_key:
        raise ConnectionFileError(
            f"{path} holds no keys for {url}: that controller accepts connections from its own"
            " host only; start it with --ip to let other hosts connect"
        )
    return msgspec.structs.replace(info, ipc_url="", tcp_urls=[url])


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
