"""The tables in SQLite, and how those of an older parallelz become them.

`records` shows tasks with their large payloads, which are in a table of their own: what is
asked most often is then read without them. `journal` has what came last, as it came.
"""

from __future__ import annotations

import sqlite3

from parallelz.store.interface import StoreError

VERSION = 4

# Large columns come last: what is before them is read without them.
_FIRST = """
CREATE TABLE tasks (
    msg_id TEXT NOT NULL UNIQUE,
    client_uuid TEXT,
    queue TEXT,
    name TEXT,
    digest BLOB,
    submitted REAL,
    arrived REAL,
    label TEXT,
    engine_id INTEGER,
    status TEXT NOT NULL,
    engine_uuid TEXT,
    started REAL,
    completed REAL,
    received REAL,
    retries INTEGER,
    payload_bytes INTEGER,
    data_bytes INTEGER,
    ename TEXT,
    evalue TEXT,
    after BLOB,
    follow BLOB,
    options BLOB,
    traceback TEXT,
    stdout TEXT,
    stderr TEXT,
    outputs BLOB,
    execute_result BLOB,
    payload BLOB,
    payload_frames BLOB,
    data BLOB,
    frames BLOB
);
CREATE INDEX tasks_by_time ON tasks (submitted);
CREATE TABLE engines (
    engine_uuid TEXT PRIMARY KEY,
    engine_id INTEGER,
    host TEXT,
    pid INTEGER,
    changed REAL,
    cause TEXT
);
CREATE TABLE functions (digest BLOB PRIMARY KEY, name TEXT, data BLOB, frames BLOB);
"""
_SECOND = """
CREATE TABLE runs (run INTEGER PRIMARY KEY, key TEXT UNIQUE, cluster TEXT, started REAL);
ALTER TABLE tasks ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
ALTER TABLE engines ADD COLUMN info BLOB;
ALTER TABLE engines ADD COLUMN run INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_pending ON tasks (run) WHERE status = 'pending';
CREATE TABLE payloads (
    msg_id TEXT NOT NULL,
    part INTEGER NOT NULL,  -- 0: the arguments, 1: the result
    data BLOB,
    frames BLOB,
    PRIMARY KEY (msg_id, part)
);
CREATE TRIGGER payloads_go_with_their_task AFTER DELETE ON tasks BEGIN
    DELETE FROM payloads WHERE msg_id = OLD.msg_id;
END;
CREATE VIEW records AS SELECT
    tasks.rowid AS number, run, msg_id, client_uuid, queue, name, digest, submitted, arrived,
    label, engine_id, status, engine_uuid, started, completed, received, retries,
    payload_bytes, data_bytes, ename, evalue, after, follow, options, traceback, stdout, stderr,
    outputs, execute_result,
    coalesce(payload, (SELECT p.data FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 0)) AS payload,
    coalesce(payload_frames, (SELECT p.frames FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 0)) AS payload_frames,
    coalesce(data, (SELECT p.data FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 1)) AS data,
    coalesce(frames, (SELECT p.frames FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 1)) AS frames
    FROM tasks;
"""
_THIRD = """
CREATE TABLE journal (
    number INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    count INTEGER NOT NULL,  -- of records
    data BLOB NOT NULL  -- msgpack: list of records
);
"""
_FOURTH = """
ALTER TABLE tasks ADD COLUMN tags BLOB;
DROP VIEW records;
CREATE VIEW records AS SELECT
    tasks.rowid AS number, run, msg_id, client_uuid, queue, name, digest, submitted, arrived,
    label, tags, engine_id, status, engine_uuid, started, completed, received, retries,
    payload_bytes, data_bytes, ename, evalue, after, follow, options, traceback, stdout, stderr,
    outputs, execute_result,
    coalesce(payload, (SELECT p.data FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 0)) AS payload,
    coalesce(payload_frames, (SELECT p.frames FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 0)) AS payload_frames,
    coalesce(data, (SELECT p.data FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 1)) AS data,
    coalesce(frames, (SELECT p.frames FROM payloads AS p
        WHERE p.msg_id = tasks.msg_id AND p.part = 1)) AS frames
    FROM tasks;
"""
_MIGRATIONS = (
    _FIRST,
    _SECOND,
    _THIRD,
    _FOURTH,
)  # number n leads from version n to n + 1; 0: no tables


def prepare(db: sqlite3.Connection, path: object) -> None:
    """Create the tables, or bring older ones up to date.

    Raises
    ------
    StoreError
        If they are of a newer parallelz.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer parallelz (version {version} of its tables; this"
            f" one knows {VERSION}); move it away or update"
        )
    if version == 0:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that it can shrink again
    if version < VERSION:
        steps = "".join(_MIGRATIONS[version:])
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
