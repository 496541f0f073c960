"""The tables in PostgreSQL, and how they come to be those of this version.

They are in a schema of their own, `parallelz`, so that a database may hold other things, too.
Clusters that start at the same time wait for each other here (an advisory lock).
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg

from parallelz.store.interface import StoreError

_LOCK = 0x70617261  # any number that others are unlikely to lock

# Texts are compared by code point, as Python does. Payloads are not compressed: pickles of
# arrays hardly shrink. Statements of a version stay as they are; a new one is added at the end.
_FIRST = """
CREATE TABLE runs (
    run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    cluster text COLLATE "C" NOT NULL,
    started double precision NOT NULL
);
CREATE INDEX ON runs (cluster);
CREATE TABLE tasks (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    msg_id text COLLATE "C" NOT NULL UNIQUE,
    client_uuid text COLLATE "C",
    queue text COLLATE "C",
    name text COLLATE "C",
    digest bytea,
    submitted double precision,
    arrived double precision,
    label text COLLATE "C",
    engine_id bigint,
    status text COLLATE "C" NOT NULL,
    engine_uuid text COLLATE "C",
    started double precision,
    completed double precision,
    received double precision,
    retries bigint,
    payload_bytes bigint,
    data_bytes bigint,
    ename text COLLATE "C",
    evalue text COLLATE "C",
    "after" bytea,
    follow bytea,
    options bytea,
    traceback text COLLATE "C",
    stdout text COLLATE "C",
    stderr text COLLATE "C",
    outputs bytea,
    execute_result bytea,
    payload bytea,
    payload_frames bytea,
    data bytea,
    frames bytea
);
ALTER TABLE tasks
    ALTER payload SET STORAGE EXTERNAL, ALTER payload_frames SET STORAGE EXTERNAL,
    ALTER data SET STORAGE EXTERNAL, ALTER frames SET STORAGE EXTERNAL;
CREATE INDEX tasks_by_time ON tasks (submitted NULLS FIRST, seq);
CREATE INDEX tasks_by_run ON tasks (run, submitted NULLS FIRST, seq);
CREATE INDEX tasks_pending ON tasks (run, seq) WHERE status = 'pending';
CREATE TABLE engines (
    engine_uuid text COLLATE "C" PRIMARY KEY,
    run bigint NOT NULL,
    engine_id bigint,
    host text COLLATE "C",
    pid bigint,
    changed double precision,
    cause text COLLATE "C",
    info bytea
);
CREATE INDEX ON engines (run);
CREATE TABLE functions (
    digest bytea PRIMARY KEY,
    name text COLLATE "C",
    data bytea,
    frames bytea
);
"""
_SECOND = "ALTER TABLE tasks ADD COLUMN tags bytea"
_MIGRATIONS = (
    _FIRST.encode(),
    _SECOND.encode(),
)  # number n leads from version n to n + 1; 0: no tables
VERSION = len(_MIGRATIONS)


def prepare(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Create the tables, or bring older ones up to date.

    Raises
    ------
    StoreError
        If they are of a newer parallelz, or the database cannot hold every text.
    """
    (encoding,) = _row(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"PostgreSQL: the encoding of the database is {encoding}; make one with UTF8:"
            " createdb --encoding=UTF8 --template=template0 NAME"
        )
    connection.execute("SET search_path = parallelz")
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        (table,) = _row(connection, "SELECT to_regclass('parallelz.version')")
        if table is None:
            # IF NOT EXISTS would ask for the right to create even if there is nothing to do.
            (schema,) = _row(connection, "SELECT to_regnamespace('parallelz')")
            if schema is None:
                connection.execute("CREATE SCHEMA parallelz")
            connection.execute("CREATE TABLE version (version integer NOT NULL)")
            connection.execute("INSERT INTO version VALUES (0)")
        (version,) = _row(connection, "SELECT version FROM version")
        if version > VERSION:
            raise StoreError(
                "PostgreSQL: the schema parallelz was made by a newer parallelz (version"
                f" {version} of its tables; this one knows {VERSION}); update, or use another"
                " database"
            )
        for migration in _MIGRATIONS[version:]:
            connection.execute(migration)
        if version < VERSION:
            connection.execute("UPDATE version SET version = %s", [VERSION])


def _row(
    connection: psycopg.Connection[tuple[Any, ...]], statement: LiteralString
) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row
