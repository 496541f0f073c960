"""A real PostgreSQL server, as long as the tests need one."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SERVER_USERS = ("postgres", "nobody")  # it refuses to run as root
SUPERUSER = "admin"
WAIT_S = 60
CONFIGURATION = """
listen_addresses = ''
fsync = off
max_connections = 40
"""


class PostgresServer:
    """A server that listens on a Unix socket only, in a directory of its own."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._data = directory / "data"
        self._user = _server_user()
        if self._user is not None:
            shutil.chown(directory, self._user)
        self._run("initdb", "--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{CONFIGURATION}unix_socket_directories = '{directory}'\n")

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """Return what names a database of this server."""
        return f"postgresql://{user}@/{database}?host={self._directory}"

    def start(self) -> None:
        """Start it, and wait until it can be used."""
        # Not as our child: its own children come and go, and tests look for what is left.
        log = self._directory / "log"
        self._run("pg_ctl", "start", "-w", "-t", str(WAIT_S), "-l", str(log))

    def stop(self, mode: str = "fast") -> None:
        """End it, and wait; `immediate`: as a crash would."""
        self._run("pg_ctl", "stop", "-w", "-t", str(WAIT_S), "-m", mode)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return (self._data / "postmaster.pid").exists()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._data), *arguments]
        if program == "initdb":
            command += ["-U", SUPERUSER]
        done = subprocess.run(
            command,
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            timeout=2 * WAIT_S,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stdout}"


def find_programs() -> Path | None:
    """Return the directory of the newest server's programs; None: there is no server."""
    found = shutil.which("initdb")
    if found is not None:
        directory = Path(found).resolve().parent
        if (directory / "pg_ctl").exists():
            return directory
    versions = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    newest = max(versions, key=lambda path: float(path.parts[-3]), default=None)
    return None if newest is None else newest.parent


@contextlib.contextmanager
def running_server(programs: Path) -> Iterator[PostgresServer]:
    """Start a server in a new directory; stop it and remove that at the end."""
    # Beside the directory of the tests: that is closed to the user who runs the server.
    parent = Path(tempfile.gettempdir()).parent
    directory = Path(tempfile.mkdtemp(prefix="pz-pg-", dir=parent))
    try:
        server = PostgresServer(programs, directory)
        server.start()
        try:
            yield server
        finally:
            if server.is_running:
                server.stop("immediate")
    finally:
        shutil.rmtree(directory)


def _server_user() -> str | None:
    """Return who the server is to run as; None: as we do."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in SERVER_USERS if name in known)


@contextlib.contextmanager
def new_database(server: PostgresServer, options: str = "") -> Iterator[str]:
    """Make a database of its own for a test; give its URL."""
    import psycopg  # not at the top: tests without it must run where it is not installed

    name = f"test_{secrets.token_hex(4)}"

    def execute(statement: str) -> None:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(statement.encode())

    execute(f"CREATE DATABASE {name} {options}")
    try:
        yield server.url(name)
    finally:
        execute(f"DROP DATABASE {name} WITH (FORCE)")
