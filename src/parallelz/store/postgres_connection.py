"""Connections to PostgreSQL on which nothing takes for ever, and the address they need."""

from __future__ import annotations

import time
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from parallelz.errors import ClusterError
from parallelz.store.postgres_schema import prepare

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60  # by the server, for what we have given up already

# A host that is gone is noticed while it is waited for, and the server forgets us if we are.
_CONNECTION: dict[str, str | int] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
    "fallback_application_name": "parallelz",
}
_SESSION = f"""
SET client_encoding = 'UTF8';
SET statement_timeout = '{STATEMENT_TIMEOUT_S}s';
SET idle_in_transaction_session_timeout = '{STATEMENT_TIMEOUT_S}s';
""".encode()


T = TypeVar("T")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits for the server only so long."""

    timeout_s = float(CONNECT_TIMEOUT_S)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """See the base class; on a timeout the connection is closed."""
        limit_s = self.timeout_s if timeout is None else min(timeout, self.timeout_s)
        try:
            return super().wait(_limited(gen, limit_s), interval)
        except TimeoutError as error:
            self.close()  # first, or else psycopg would try to end what it was at in good order
            raise psycopg.OperationalError(str(error)) from None


def _limited(gen: PQGen[T], timeout_s: float) -> PQGen[T]:
    """Do what `gen` does, for at most so long."""
    deadline_s = time.monotonic() + timeout_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline_s:
                raise TimeoutError(f"the server has not answered within {timeout_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        return cast("T", stop.value)


def connect(conninfo: str) -> Connection:
    """Return a connection whose tables are there; it begins a transaction by itself.

    Parameters
    ----------
    conninfo
        URL or keywords for libpq, which `check_conninfo` lets pass.

    Raises
    ------
    psycopg.Error
        If there is no server, or it refuses us.
    StoreError
        If what is there cannot be used.
    """
    given = conninfo_to_dict(conninfo)
    defaults = {name: value for name, value in _CONNECTION.items() if name not in given}
    connection = Connection.connect(make_conninfo(conninfo, **defaults), autocommit=True)
    try:
        connection.execute(_SESSION)
        prepare(connection)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def check_conninfo(conninfo: str) -> None:
    """Raise ClusterError, without a password, if libpq cannot make sense of this."""
    # A password with special characters ends too early; the rest of it would be part of the
    # error at the first connection, as what is no port, host or database.
    try:
        given = conninfo_to_dict(conninfo)
        ports = str(given.get("port") or "").split(",")
        names = (str(given.get("host") or "")[1:], str(given.get("dbname") or ""))
        makes_sense = all(
            port == "" or (port.isascii() and port.isdecimal()) for port in ports
        ) and not any("@" in name for name in names)
    except psycopg.Error:
        makes_sense = False
    if not makes_sense:
        raise ClusterError(
            "the address of the PostgreSQL database makes no sense; a URL is"
            " postgresql://user@host:port/database, with special characters written as %XX"
        )


def told(error: BaseException) -> str:
    """Return what the server, libpq or psycopg says, in one line and without data."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or str(error)
    return " ".join(text.split()) or type(error).__name__
