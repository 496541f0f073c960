"""Where the files of a cluster are, and the limits that several parts agree on.

Profile directories are those of IPython, so that an existing profile serves both::

    $IPYTHONDIR or ~/.ipython/
      profile_<name>/              the profile "default" when none is named
        security/  (0700)          connection files and the cluster file of each cluster
        log/                       one file per process
        pid/
        parallelz[-<id>].sqlite    what the recorder remembers

Several clusters share a profile when they have different cluster ids; the usual one has the
empty id. A path is worked out from the environment at each call and nothing is created but by
`make_profile_dir`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from parallelz.errors import ClusterError

ConnectionRole = Literal["client", "engine", "controller"]

DEFAULT_PROFILE = "default"

# -- limits and defaults ------------------------------------------------------------------
# What only one module needs is named there; these are known to more than one process.


CONNECTION_FILE_TIMEOUT_S = 10.0
"""How long a client waits for a cluster to appear before it says that there is none."""

FILE_WAIT_S = 60.0
"""How long engines wait for their connection file where it may come late."""

START_TIMEOUT_S = 60.0
"""How long a controller and its engines may take until all are ready."""

STOP_GRACE_S = 5.0
"""From SIGTERM to SIGKILL for a controller or a set of engines that does not end."""

LINGER_S = 1.0
"""How long a process that ends waits for what it has sent to be taken over."""

LOG_LINES_SHOWN = 15
"""How many of its last log lines are shown when a process ends unexpectedly."""

PAYLOAD_BYTES_MAX = 1024 * 1024
"""Of the arguments or the result of a task, to be recorded. What is larger is kept by its
sender for so long, and between processes of one host it goes by shared memory."""

SHARED_MEMORY_DIR_VARIABLE = "PARALLELZ_SHARED_MEMORY_DIR"
SHARED_MEMORY_VARIABLE = "PARALLELZ_SHARED_MEMORY_BYTES_MAX"

SOCKET_PATH_LENGTH_MAX = 100
"""Of an ipc socket; the system allows 103 (macOS) to 107 (Linux) bytes."""

DEFAULT_SCHEME = "leastload"
DEFAULT_STORE = "sqlite"

_CLUSTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def ipython_dir() -> Path:
    """Return IPython's directory of this user: ``$IPYTHONDIR`` or ``~/.ipython``."""
    return Path(os.environ.get("IPYTHONDIR") or "~/.ipython").expanduser()


def profile_dir(
    profile: str | None = None, profile_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Return the absolute path of a profile's directory, which need not exist.

    Parameters
    ----------
    profile
        Name of an IPython profile; None or "": ``default``.
    profile_dir
        The directory itself, which needs no particular name.

    Raises
    ------
    ClusterError
        If both are given, or the name cannot be part of a file name.
    """
    if profile_dir:
        if profile:
            raise ClusterError(
                f"give a profile ({profile!r}) or a profile directory"
                f" ({os.fspath(profile_dir)!r}), not both"
            )
        return Path(profile_dir).expanduser().absolute()
    name = to_profile(profile or DEFAULT_PROFILE)
    return (ipython_dir() / f"profile_{name}").absolute()


def to_profile(name: str) -> str:
    """Return the name of a profile; raise ClusterError if it cannot be part of a file name."""
    if "/" in name or "\0" in name or name in (".", ".."):
        raise ClusterError(
            f"{name!r} is not a profile's name; give a directory as profile_dir (--profile-dir)"
        )
    return name


def make_profile_dir(profile_dir: Path) -> None:
    """Create the directory and what belongs in it; ``security`` is for its owner only.

    Raises
    ------
    ClusterError
        If that is not possible; says why.
    """
    try:
        for name in ("log", "pid"):
            (profile_dir / name).mkdir(parents=True, exist_ok=True)
        security = profile_dir / "security"
        security.mkdir(mode=0o700, exist_ok=True)
        if security.stat().st_mode & 0o077:
            security.chmod(0o700)
    except OSError as error:
        raise ClusterError(
            f"{profile_dir} cannot be made a profile's directory: {error.strerror}"
            f" ({error.filename})"
        ) from error


def log_dir(profile_dir: Path) -> Path:
    """Return where the processes of a profile's clusters write their logs."""
    return profile_dir / "log"


def connection_file(profile_dir: Path, cluster_id: str, role: ConnectionRole) -> Path:
    """Return the path of the file that lets a `role` connect to this cluster."""
    return profile_dir / "security" / f"ipcontrollerz{_suffix(cluster_id)}-{role}.json"


def cluster_file(profile_dir: Path, cluster_id: str) -> Path:
    """Return the path of the file that says which processes are this cluster."""
    return profile_dir / "security" / f"cluster{_suffix(cluster_id)}.json"


def database_file(profile_dir: Path, cluster_id: str) -> Path:
    """Return the path of the SQLite database of this cluster."""
    return profile_dir / f"parallelz{_suffix(cluster_id)}.sqlite"


def log_file(profile_dir: Path, cluster_id: str, name: str) -> Path:
    """Return the path of the log of the process called `name`, such as ``controller``."""
    return log_dir(profile_dir) / f"{name}{_suffix(cluster_id)}.log"


def shared_memory_root() -> Path:
    """Return a file system in memory, which the environment may name; it need not exist."""
    return Path(os.environ.get(SHARED_MEMORY_DIR_VARIABLE) or "/dev/shm")


def shared_memory_dir(runtime_dir: Path) -> Path:
    """Return where the processes of a cluster share memory, by where its socket is."""
    return shared_memory_root() / runtime_dir.name


def shared_memory_bytes_max() -> int | None:
    """Return how much a process may share: what the environment says; None: half of all.

    Raises
    ------
    ClusterError
        If that is not a number.
    """
    text = os.environ.get(SHARED_MEMORY_VARIABLE, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise ClusterError(
            f"{SHARED_MEMORY_VARIABLE} must be a number of bytes, 0 for no shared memory,"
            f" not {text!r}"
        )
    return int(text)


def to_cluster_id(cluster_id: str) -> str:
    """Return a cluster's id; raise ClusterError unless "" or part of a file name."""
    if cluster_id and not _CLUSTER_ID.fullmatch(cluster_id):
        raise ClusterError(
            f"{cluster_id!r} is not a cluster id: use up to 64 letters, digits and _ . -,"
            " beginning with a letter or digit"
        )
    return cluster_id


def _suffix(cluster_id: str) -> str:
    return f"-{to_cluster_id(cluster_id)}" if cluster_id else ""
