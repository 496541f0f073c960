"""The connection file: how a client or an engine finds its controller, and the secrets for it.

There is one file per role and per cluster. Whoever can read it may join in that role, so it is
written with mode 0600 and is the only secret there is. This module knows what is in it, not
where it is: reading and writing files is the business of others.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from parallelz.errors import ConnectionFileError

CONNECTION_FILE_VERSION = 1


class Heartbeat(msgspec.Struct, frozen=True):
    """Signs of life on connections: how soon it is noticed that a network is gone.

    Attributes
    ----------
    period_s
        Seconds between two signs.
    timeout_s
        Seconds without any after which a connection counts as broken, and is made again.
    """

    period_s: float = 0.5
    timeout_s: float = 2.0


class ConnectionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection file says.

    Attributes
    ----------
    version
        Of this format; another one is refused.
    cluster_id
        Empty for the usual cluster of a profile.
    token
        The secret of the role, shown in the first message of each connection.
    ipc_url
        For processes on `host_id` only; empty if there is none.
    tcp_urls
        One per address of the controller, in the order to try them. Empty if only processes
        of its own host may connect.
    host, host_id
        Where the controller runs: its name, and what tells whether that is here.
    shared_memory
        The directory in which processes on `host_id` may share memory; empty if they cannot.
    heartbeat
        The same for all peers of a controller.
    server_key, public_key, secret_key
        CURVE keys in Z85: the controller's, and the pair of this role. Empty without TCP.
    """

    version: int = CONNECTION_FILE_VERSION
    cluster_id: str
    role: Literal["client", "engine", "recorder"]
    token: str
    ipc_url: str = ""
    tcp_urls: list[str] = []
    host: str
    host_id: str
    shared_memory: str = ""
    heartbeat: Heartbeat = Heartbeat()
    server_key: str = ""
    public_key: str = ""
    secret_key: str = ""

    def encode(self) -> bytes:
        """Return the content of the file: JSON, indented for people."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> ConnectionInfo:
        """Return what the content of a file says.

        Raises
        ------
        ConnectionFileError
            If it is not a connection file, or one of another version. Names no secret.
        """
        try:
            version = msgspec.json.decode(data, type=_Versioned).version
            if version == CONNECTION_FILE_VERSION:
                return msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ConnectionFileError(f"this is not a connection file: {error}") from error
        raise ConnectionFileError(
            f"the connection file is of version {version}, this parallelz understands version "
            f"{CONNECTION_FILE_VERSION}; use the same parallelz for the cluster and here"
        )


class _Versioned(msgspec.Struct):
    version: int
