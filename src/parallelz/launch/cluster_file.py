"""The cluster file: which processes are a cluster, so that others can find and stop it.

``security/cluster[-<id>].json`` is there while the cluster is. Whoever wants to start a cluster
claims its id by writing the file first. A file whose processes have all ended is stale: it was
left behind by a kill or a crash and counts as absent. All changes are made under a lock on the
directory, each by reading what is there, as several processes add to one cluster.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

import msgspec

from parallelz import settings
from parallelz.errors import ClusterError
from parallelz.launch.launcher import LaunchedFacts
from parallelz.launch.local import is_alive, process_started
from parallelz.protocol.connection import Heartbeat
from parallelz.transport.security import (
    USUAL_HEARTBEAT,
    ClusterSecrets,
    new_secrets,
    read_secrets,
    remove_runtime_dir,
    renewed,
    runtime_dir_of,
    write_secrets,
)
from parallelz.transport.shared_memory import make_directory

SOCKET_DIR_PREFIX = "parallelz-"


class ProcessId(msgspec.Struct, frozen=True):
    """One process, not to be taken for a later one that got the same pid."""

    pid: int
    started: str

    @classmethod
    def current(cls) -> ProcessId:
        """Return that of this process."""
        return cls(os.getpid(), process_started(os.getpid()))


class ClusterFacts(msgspec.Struct):
    """What is written down of a cluster."""

    cluster_id: str
    profile_dir: str
    host: str  # its processes are on this one; from elsewhere nobody can tell if they run
    socket_dir: str  # tells this cluster from others with the same id, before and after it
    owner: ProcessId | None  # ends the cluster at its own end; None: nobody does
    controller: LaunchedFacts | None = None
    engine_sets: dict[str, LaunchedFacts] = {}
    watcher: LaunchedFacts | None = None  # stays only to start a dead controller again
    store: str = ""  # where the history goes; "": nobody said
    keeps_files: bool = False  # connection files, for a controller that comes later
    is_stopping: bool = False  # by whomever; a controller that ends now is not replaced
    version: int = 1

    @property
    def is_local(self) -> bool:
        """Whether its processes are on this host."""
        return self.host == socket.gethostname()

    @property
    def is_running(self) -> bool:
        """Whether any of its processes is alive; True if nobody can tell from here."""
        if not self.is_local:
            return True
        if self.controller is not None and not self.controller.pid:
            return True  # as long as nobody asks what it runs on, a batch system
        processes = [self.owner, self.controller, self.watcher, *self.engine_sets.values()]
        return any(is_alive(each.pid, each.started) for each in processes if each)

    def is_that_of(self, socket_dir: str, owner_pid: int | None = None) -> bool:
        """Whether this is a certain cluster, and no other with the same id.

        Parameters
        ----------
        socket_dir
            Of each cluster another one, unless it uses the connection files of before.
        owner_pid
            Who must be the owner, if there is one; None: whoever.
        """
        is_owner = owner_pid is None or self.owner is None or self.owner.pid == owner_pid
        return self.socket_dir == socket_dir and is_owner

    def state_of(self, launched: LaunchedFacts | None) -> str:
        """Return ``running``, ``ended`` or, if nobody can tell, ``unknown``, for people."""
        if not self.is_local:
            return "unknown"
        if launched is None:
            return "none"
        if not launched.pid:
            return "unknown"
        return "running" if is_alive(launched.pid, launched.started) else "ended"


ChangingFacts = Callable[[], AbstractContextManager[ClusterFacts]]
"""Locks the cluster file for a block that may change what it says."""


class ClusterRunning(ClusterError):
    """A cluster with this id runs in this profile already."""


class NoCluster(ClusterError):
    """No cluster with this id runs in this profile."""


def establish(
    profile_dir: Path,
    cluster_id: str,
    *,
    ip: str = "",
    port: int = 0,
    location: str = "",
    heartbeat: Heartbeat = USUAL_HEARTBEAT,
    reuse: bool = False,
    writes_files: bool = True,
) -> str:
    """Make all the files that a cluster needs before its first process starts.

    Parameters
    ----------
    profile_dir, cluster_id
        Which cluster.
    ip, port, location, heartbeat
        As for `new_secrets`.
    reuse
        Whether connection files that are there are used, and stay: copies of them stay valid.
    writes_files
        Whether connection files are written here. If not, a controller elsewhere does that.

    Returns
    -------
    str
        The directory of its socket, which is also what tells it from others (`release`).

    Raises
    ------
    ClusterRunning
        If a cluster with this id runs in this profile.
    """
    settings.make_profile_dir(profile_dir)
    kept = _kept_secrets(profile_dir, cluster_id) if reuse and writes_files else None
    # What is made has its name before, so that an interrupt leaves nothing, whenever it comes.
    socket_dir = _unused_socket_dir() if kept is None else str(runtime_dir_of(kept))
    is_ours = False
    try:
        if kept is None:
            Path(socket_dir).mkdir(mode=0o700)
        is_ours = claim(profile_dir, cluster_id, socket_dir=socket_dir, keeps_files=reuse)
        if is_ours and not writes_files:
            if not reuse:  # those of before would be taken for the new ones
                _remove_connection_files(profile_dir, cluster_id)
        elif is_ours:
            written = _secrets_in(
                Path(socket_dir), cluster_id, kept, ip, port, location, heartbeat
            )
            write_files(written, profile_dir, socket_dir)
    except BaseException:
        if is_ours or kept is None:
            release(profile_dir, cluster_id, socket_dir=socket_dir)
        raise
    if not is_ours:
        if kept is None:  # else it is that of the cluster which runs
            remove_runtime_dir(Path(socket_dir))
        raise _runs_already(profile_dir, cluster_id)
    return socket_dir


def _runs_already(profile_dir: Path, cluster_id: str) -> ClusterRunning:
    which = f" with the id {cluster_id!r}" if cluster_id else ""
    return ClusterRunning(
        f"a cluster{which} runs already in {profile_dir}; stop it (ipclusterz stop)"
        " or choose another cluster id (--cluster-id)"
    )


def _secrets_in(
    runtime_dir: Path,
    cluster_id: str,
    kept: ClusterSecrets | None,
    ip: str,
    port: int,
    location: str,
    heartbeat: Heartbeat,
) -> ClusterSecrets:
    if kept is None:
        return new_secrets(
            cluster_id,
            runtime_dir=runtime_dir,
            ip=ip,
            port=port,
            location=location,
            heartbeat=heartbeat,
        )
    remove_runtime_dir(runtime_dir)
    runtime_dir.mkdir(mode=0o700)
    return renewed(kept, ip=ip, port=port, location=location, heartbeat=heartbeat)


def write_files(cluster: ClusterSecrets, profile_dir: Path, socket_dir: str) -> None:
    """Write the connection files of a controller of this host, and let it share memory."""
    make_directory(settings.shared_memory_dir(Path(socket_dir)))
    write_secrets(cluster, profile_dir)


def _kept_secrets(profile_dir: Path, cluster_id: str) -> ClusterSecrets | None:
    """Return what the connection files of before say, None if there are none."""
    try:
        kept = read_secrets(profile_dir, cluster_id)
    except FileNotFoundError:
        return None
    directory = runtime_dir_of(kept)
    # It is going to be removed and made again, so it must be ours without a doubt.
    is_ours = directory.name.startswith(SOCKET_DIR_PREFIX)
    with contextlib.suppress(FileNotFoundError):
        is_ours = is_ours and directory.lstat().st_uid == os.geteuid()
    if not is_ours:
        raise ClusterError(
            f"{directory}, which the connection files to be used again name, is not of this"
            " user: leave out --reuse to begin with new files"
        )
    return kept


def establish_one(
    profile_dir: Path,
    cluster_id: str,
    *,
    may_rename: bool,
    ip: str = "",
    port: int = 0,
    location: str = "",
    heartbeat: Heartbeat = USUAL_HEARTBEAT,
    reuse: bool = False,
    writes_files: bool = True,
) -> tuple[str, str]:
    """Do as `establish`; return the cluster id, another one if that runs, and the directory.

    Parameters
    ----------
    may_rename
        Whether another cluster id will do. They are numbers, so that logs and databases are
        used again and do not add up.
    """
    spare_ids = map(str, itertools.count(2)) if may_rename else iter(())
    while True:
        try:
            return cluster_id, establish(
                profile_dir,
                cluster_id,
                ip=ip,
                port=port,
                location=location,
                heartbeat=heartbeat,
                reuse=reuse,
                writes_files=writes_files,
            )
        except ClusterRunning:
            spare_id = next(spare_ids, None)
            if spare_id is None:
                raise
            cluster_id = spare_id


def read_running(path: Path) -> ClusterFacts:
    """Return what the file of a cluster of this host says.

    Raises
    ------
    NoCluster
        If there is none, or all of it has ended.
    ClusterError
        If its processes are on another host.
    """
    facts = read(path)
    if facts is None or not facts.is_running:
        raise no_cluster(path)
    if not facts.is_local:
        raise ClusterError(f"this cluster runs on {facts.host}; go there to change it")
    return facts


def no_cluster(path: Path) -> NoCluster:
    """Return the error that says that the cluster of this file does not run."""
    return NoCluster(f"no cluster runs here ({path}); start one with: ipclusterz start")


def join_launched(
    profile_dir: Path,
    cluster_id: str,
    *,
    socket_dir: str,
    owner_pid: int | None = None,
    launcher: str = "local",
) -> None:
    """See to it that the file names this process, which was just started as the controller.

    Who started it writes that, under the same lock, unless it was killed just then. Nobody
    could find a controller that serves and is not written down.

    Raises
    ------
    NoCluster
        If that cluster was stopped meanwhile, even if there is another with its id by now.
    """
    path = settings.cluster_file(profile_dir, cluster_id)
    try:
        with changing(profile_dir, cluster_id, socket_dir=socket_dir) as facts:
            if facts.is_stopping or not facts.is_that_of(socket_dir, owner_pid):
                raise ClusterError("it was stopped, or is going to be")
            written = facts.controller
            if written is None or not is_alive(written.pid, written.started):
                me = ProcessId.current()
                log = settings.log_file(profile_dir, cluster_id, "controller")
                found = written or LaunchedFacts(launcher, 0, "", str(log))
                facts.controller = msgspec.structs.replace(
                    found, pid=me.pid, started=me.started
                )
    except (ClusterError, FileNotFoundError) as error:
        raise NoCluster(
            f"the cluster was stopped before its controller had started ({path})"
        ) from error


def read(path: Path) -> ClusterFacts | None:
    """Return what a cluster file says, None if there is none.

    Raises
    ------
    ClusterError
        If something else is written there, or it cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterFacts)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(
            f"{path} cannot be read ({error.strerror}); make it readable for its user, or"
            " remove it if its cluster has ended"
        ) from error
    except ValueError as error:  # also of a text that is not UTF-8
        raise ClusterError(
            f"{path} is not a cluster file ({error}); remove it if its cluster has ended"
        ) from error


def write(path: Path, facts: ClusterFacts) -> None:
    """Write a cluster file, at once whole, readable by its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(facts), indent=1))
    Path(name).replace(path)


@contextlib.contextmanager
def locked(profile_dir: Path) -> Iterator[None]:
    """Keep other processes from changing the cluster files of this profile."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    # A lock on the directory leaves no lock file behind and ends with its holder.
    descriptor = os.open(profile_dir / "security", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # To close it is not enough if another thread forked a process meanwhile.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def claim(
    profile_dir: Path, cluster_id: str, *, socket_dir: str, keeps_files: bool = False
) -> bool:
    """Make the id of a cluster that this process is about to start ours.

    Parameters
    ----------
    profile_dir, cluster_id, socket_dir
        Which cluster.
    keeps_files
        Whether its connection files, if there are such already, stay for later ones.

    Returns
    -------
    bool
        False if a cluster with this id is running; nothing was changed then.
    """
    path = settings.cluster_file(profile_dir, cluster_id)
    with locked(profile_dir):
        existing = read(path)
        if existing is not None:
            if existing.is_running:
                return False
            existing.keeps_files |= keeps_files
            remove_files(profile_dir, existing)
        host = socket.gethostname()
        owner = ProcessId.current()
        facts = ClusterFacts(cluster_id, str(profile_dir), host, socket_dir, owner)
        facts.keeps_files = keeps_files
        write(path, facts)
    return True


@contextlib.contextmanager
def changing(profile_dir: Path, cluster_id: str, *, socket_dir: str) -> Iterator[ClusterFacts]:
    """Change in the block what is written of a cluster; nothing is written if it fails.

    Raises
    ------
    ClusterError
        If the cluster was stopped meanwhile, even if there is another with its id by now.
    """
    path = settings.cluster_file(profile_dir, cluster_id)
    with locked(profile_dir):
        facts = read(path)
        if facts is None or facts.socket_dir != socket_dir:
            raise ClusterError(f"the cluster was stopped by someone else, as {path} shows")
        yield facts
        write(path, facts)


def release(
    profile_dir: Path, cluster_id: str, *, socket_dir: str, owner_pid: int | None = None
) -> None:
    """Remove the files of a cluster that ended, unless they are of another by now.

    Parameters
    ----------
    profile_dir, cluster_id, socket_dir, owner_pid
        Which cluster; see `ClusterFacts.is_that_of`.
    """
    with contextlib.suppress(FileNotFoundError), locked(profile_dir):
        facts = read(settings.cluster_file(profile_dir, cluster_id))
        if facts is not None and facts.is_that_of(socket_dir, owner_pid):
            remove_files(profile_dir, facts)
        elif facts is not None and facts.socket_dir == socket_dir:
            return
    remove_runtime_dir(Path(socket_dir))


def make_socket_dir() -> str:
    """Make a directory that only we may enter, with a path short enough for a socket."""
    socket_dir = _unused_socket_dir()
    Path(socket_dir).mkdir(mode=0o700)
    return socket_dir


def _unused_socket_dir() -> str:
    name = f"{SOCKET_DIR_PREFIX}{secrets.token_hex(6)}"
    socket_dir = str(Path(tempfile.gettempdir(), name))
    if len(socket_dir) > settings.SOCKET_PATH_LENGTH_MAX - len("/controller.sock"):
        socket_dir = f"/tmp/{name}"
    return socket_dir


def remove_files(profile_dir: Path, facts: ClusterFacts) -> None:
    """Remove the files of a cluster that has ended; the cluster files are locked meanwhile."""
    if not facts.keeps_files:
        _remove_connection_files(profile_dir, facts.cluster_id)
    settings.cluster_file(profile_dir, facts.cluster_id).unlink(missing_ok=True)
    # Only what is surely ours: the file could have been written by anyone who owns it.
    if facts.is_local and Path(facts.socket_dir).name.startswith(SOCKET_DIR_PREFIX):
        remove_runtime_dir(Path(facts.socket_dir))


def _remove_connection_files(profile_dir: Path, cluster_id: str) -> None:
    for role in get_args(settings.ConnectionRole):
        settings.connection_file(profile_dir, cluster_id, role).unlink(missing_ok=True)
