"""The secrets of a cluster: who may connect, as what, and how that is written down.

`ClusterSecrets` is all of it, for the controller. Whoever starts a controller makes them and
writes them first (`write_secrets`), so that engines and clients can start beside it. Each role
has a token and, with TCP, a CURVE key pair of its own; a peer reads the file of its role only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Literal

import msgspec
import psutil
import zmq

from parallelz import settings
from parallelz.errors import ClusterError, ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo, Heartbeat
from parallelz.transport.sockets import host_id

USUAL_HEARTBEAT = Heartbeat()
LOOPBACK = "127.0.0.1"
HAS_IPC = sys.platform != "win32"
PEER_ROLES: tuple[Literal["client", "engine", "recorder"], ...] = (
    "client",
    "engine",
    "recorder",
)


class ClusterSecrets(msgspec.Struct):
    """Everything that the controller must know to let the right ones in."""

    cluster_id: str
    bind_urls: list[str]  # the socket file first: CURVE holds for what is bound after it
    server_secret_key: str  # "" without TCP
    infos: dict[str, ConnectionInfo]  # by role: what its connection file says

    @property
    def heartbeat(self) -> Heartbeat:
        """What all roles are told."""
        return next((info.heartbeat for info in self.infos.values()), Heartbeat())


def new_secrets(
    cluster_id: str,
    *,
    runtime_dir: Path,
    ip: str = "",
    port: int = 0,
    location: str = "",
    heartbeat: Heartbeat = USUAL_HEARTBEAT,
) -> ClusterSecrets:
    """Make up the secrets of a controller that is about to be started.

    Parameters
    ----------
    cluster_id
        Only told on.
    runtime_dir
        An existing directory that nobody else may enter; the socket file comes there. One of
        the same name is for shared memory; `remove_runtime_dir` removes both.
    ip
        Address to listen on for other hosts, ``"0.0.0.0"`` for all; "": this host only, by the
        socket file where the system has such.
    port
        0: one that is free now.
    location
        Address by which other hosts reach this one, if that is none of its interfaces', or is
        the best of these: it is tried first. Its port is the same.
    heartbeat
        Of all connections.
    """
    ip = ip or ("" if HAS_IPC else LOOPBACK)
    bind_urls = [f"ipc://{runtime_dir / 'controller.sock'}"] if HAS_IPC else []
    tcp_urls: list[str] = []
    server_public, server_secret = b"", b""
    if ip:
        ip = "0.0.0.0" if ip == "*" else ip
        port = port or _free_port(ip)
        bind_urls.append(f"tcp://{ip}:{port}")
        tcp_urls = _reachable_urls(location, ip, port)
        server_public, server_secret = zmq.curve_keypair()
    shared_memory = settings.shared_memory_dir(runtime_dir)
    infos: dict[str, ConnectionInfo] = {}
    for role in PEER_ROLES:
        public, secret = zmq.curve_keypair() if ip else (b"", b"")
        infos[role] = ConnectionInfo(
            version=1,
            cluster_id=cluster_id,
            role=role,
            token=secrets.token_hex(24),
            ipc_url=bind_urls[0] if HAS_IPC else "",
            tcp_urls=tcp_urls,
            host=socket.gethostname(),
            host_id=host_id(),
            shared_memory=str(shared_memory) if shared_memory.parent.is_dir() else "",
            heartbeat=heartbeat,
            server_key=server_public.decode(),
            public_key=public.decode(),
            secret_key=secret.decode(),
        )
    return ClusterSecrets(cluster_id, bind_urls, server_secret.decode(), infos)


def renewed(
    cluster: ClusterSecrets, *, ip: str, port: int, location: str, heartbeat: Heartbeat
) -> ClusterSecrets:
    """Return the same keys and addresses for a controller that is started again with them.

    Parameters
    ----------
    cluster
        From `read_secrets`.
    ip, port
        Where it was asked to listen; "" and 0: where it did.
    location, heartbeat
        As for `new_secrets`.

    Raises
    ------
    ClusterError
        If it is asked to listen elsewhere than the files say.
    """
    tcp = next((url for url in cluster.bind_urls if url.startswith("tcp://")), "tcp://:0")
    kept_ip, _, kept_port = tcp.removeprefix("tcp://").rpartition(":")
    ip = "0.0.0.0" if ip == "*" else ip
    if (ip and ip != kept_ip) or (port and port != int(kept_port)):
        where = f"{kept_ip} port {kept_port}" if kept_ip else "this host only"
        raise ClusterError(
            f"the connection files to be used again are for {where}: leave out --ip and"
            " --port, or --reuse to begin with new files"
        )
    shared_memory = settings.shared_memory_dir(runtime_dir_of(cluster))
    here = msgspec.structs.replace(
        next(iter(cluster.infos.values())),
        tcp_urls=_reachable_urls(location, kept_ip, int(kept_port)) if kept_ip else [],
        host=socket.gethostname(),
        host_id=host_id(),
        shared_memory=str(shared_memory) if shared_memory.parent.is_dir() else "",
        heartbeat=heartbeat,
    )
    infos = {
        role: msgspec.structs.replace(
            here,
            role=info.role,
            token=info.token,
            public_key=info.public_key,
            secret_key=info.secret_key,
        )
        for role, info in cluster.infos.items()
    }
    return ClusterSecrets(
        cluster.cluster_id, cluster.bind_urls, cluster.server_secret_key, infos
    )


def runtime_dir_of(cluster: ClusterSecrets) -> Path:
    """Return the directory of the socket file."""
    return Path(cluster.bind_urls[0].removeprefix("ipc://")).parent


def remove_runtime_dir(runtime_dir: Path) -> None:
    """Remove the directory of a cluster's socket, and that of its shared memory."""
    for path in (runtime_dir, settings.shared_memory_dir(runtime_dir)):
        shutil.rmtree(path, ignore_errors=True)


def write_secrets(cluster: ClusterSecrets, profile_dir: Path) -> list[Path]:
    """Write the connection files of a cluster, mode 0600, each at once whole or not at all.

    Returns
    -------
    list of Path
        The files of client, engine and controller; their owner removes them at the end.
    """
    contents: dict[settings.ConnectionRole, bytes] = {
        "client": cluster.infos["client"].encode(),
        "engine": cluster.infos["engine"].encode(),
        "controller": msgspec.json.format(msgspec.json.encode(cluster), indent=2),
    }
    paths = []
    for role, content in contents.items():
        path = settings.connection_file(profile_dir, cluster.cluster_id, role)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "wb") as file:  # mkstemp makes it 0600
            file.write(content)
        Path(name).replace(path)
        paths.append(path)
    return paths


def read_secrets(profile_dir: Path, cluster_id: str) -> ClusterSecrets:
    """Read what `write_secrets` wrote.

    Raises
    ------
    FileNotFoundError
        Nobody did.
    ConnectionFileError
        Others than its owner may read or change it, or somebody did.
    """
    return read_secrets_file(settings.connection_file(profile_dir, cluster_id, "controller"))


def read_secrets_file(path: Path) -> ClusterSecrets:
    """Do as `read_secrets`, with the path of the controller's file."""
    try:
        return msgspec.json.decode(_read_private(path), type=ClusterSecrets)
    except msgspec.MsgspecError as error:
        raise ConnectionFileError(
            f"{path} was changed: {error}; start without --reuse"
        ) from error


def read_connection_file(path: Path, role: Literal["client", "engine"]) -> ConnectionInfo:
    """Read a connection file, wherever it was copied to.

    Raises
    ------
    FileNotFoundError
        There is none.
    ConnectionFileError
        It is of another kind, or others than its owner may read or change it. Says which file.
    """
    data = _read_private(path)
    try:
        info = ConnectionInfo.decode(data)
        check_role(info, role)
    except ConnectionFileError as error:
        raise ConnectionFileError(f"{path}: {error}") from error
    return info


def check_role(info: ConnectionInfo, role: Literal["client", "engine"]) -> None:
    """Raise ConnectionFileError if this is for another role."""
    if info.role != role:
        raise ConnectionFileError(
            f"this connection file is for {info.role}s; the one for {role}s lies beside it,"
            f" its name ends with -{role}.json"
        )


def _read_private(path: Path) -> bytes:
    """Return the content of a file, if it is ours alone.

    Whoever can change it can make us connect to a controller of his own, which then runs code
    here; whoever can read it can run code in the cluster.
    """
    with path.open("rb") as file:
        # Of what was opened, not of what has this name by now; through symbolic links.
        status = os.fstat(file.fileno())
        if hasattr(os, "geteuid"):
            if status.st_uid not in (os.geteuid(), 0):
                raise ConnectionFileError(
                    f"{path} belongs to another user (uid {status.st_uid}), who could let this"
                    " process run anything: use a copy of your own"
                )
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise ConnectionFileError(
                    f"{path} is open to others (mode {mode:04o}), and who reads it can run code"
                    f" as you: run `chmod 600 {path}`"
                )
        return file.read()


def _free_port(ip: str) -> int:
    try:
        with socket.socket() as probe:
            probe.bind((ip, 0))
            port: int = probe.getsockname()[1]
            return port
    except OSError as error:
        raise ClusterError(
            f"cannot listen on {ip!r}: {error.strerror}; give an address of this host, or '*'"
            " for all of them"
        ) from error


def _reachable_urls(location: str, ip: str, port: int) -> list[str]:
    """Return the addresses that others may reach us at, the likeliest first."""
    own = [ip] if ip != "0.0.0.0" else _own_addresses()
    addresses = dict.fromkeys([location, *own] if location else own)
    return [f"tcp://{address}:{port}" for address in addresses]


def _own_addresses() -> list[str]:
    beyond = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    return [*beyond, LOOPBACK]
