"""Which store is meant: names, addresses, and where the password may be.

A store is chosen by its name or, PostgreSQL, by the URL of the database. That travels on
command lines, which everybody on a host can read; so there is never a password in it. Passwords
come by the environment or from files, of which only their owner can read either.
"""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, urlsplit

from parallelz.errors import ClusterError

STORES = ("sqlite", "memory", "none", "postgresql")
POSTGRESQL = "postgresql"
DATABASE_VARIABLE = "PARALLELZ_DATABASE_URL"

_SCHEMES = ("postgresql://", "postgres://")
_SECRETS = frozenset({"password", "sslpassword"})


def is_postgresql(store: str) -> bool:
    """Return whether this names a PostgreSQL database, by a URL or as such."""
    return store == POSTGRESQL or store.startswith(_SCHEMES)


def to_store(text: str) -> str:
    """Return `text` if it names a store that can be used here.

    Parameters
    ----------
    text
        One of `STORES`, or the URL of a PostgreSQL database.

    Raises
    ------
    ClusterError
        If there is no such store, a program that it needs is not installed, or the address
        makes no sense or holds a password.
    """
    if text in STORES and text != POSTGRESQL:
        return text
    if not is_postgresql(text):
        called = f" called {text!r}" if text.isalnum() else ""  # else maybe with a password
        raise ClusterError(
            f"there is no store{called}; there are {', '.join(STORES)}, and"
            " postgresql://host/database"
        )
    if text != POSTGRESQL and _has_password(text):
        raise ClusterError(
            "the address of a database must not hold a password here, as everybody could read"
            f" it; put the whole URL into the environment variable {DATABASE_VARIABLE} and say"
            f" only {POSTGRESQL!r}, or put the password into ~/.pgpass"
        )
    try:
        # Not at the top: it takes a while, is not always installed and seldom needed.
        from parallelz.store.postgres_connection import check_conninfo
    except ImportError as error:
        raise ClusterError(
            f"the store {POSTGRESQL!r} needs psycopg ({error}): pip install"
            " 'parallelz[postgres]'"
        ) from error
    check_conninfo(conninfo_of(text))
    return text


def conninfo_of(store: str) -> str:
    """Return how libpq finds the database; "": by its own environment variables and files."""
    return os.environ.get(DATABASE_VARIABLE, "") if store == POSTGRESQL else store


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    queried = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    return parts.password is not None or not _SECRETS.isdisjoint(queried)
