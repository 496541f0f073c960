"""A controller, its engines and a client as one thing.

::

    with Cluster(n=4) as rc:
        rc[:].map_sync(f, items)

Each method that waits exists twice: `start_cluster_sync` blocks, ``await start_cluster()``
does the same in a thread. What was started ends with this process, however that ends, unless
`shutdown_atexit` is false; then `Cluster.from_file` takes it up again.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from parallelz import settings
from parallelz.client.client import Client
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch import cluster_file
from parallelz.launch.awaited import awaited
from parallelz.launch.cluster_file import ClusterRunning, NoCluster
from parallelz.launch.launcher import (
    ControllerOptions,
    Place,
    check_launcher,
    usable_core_count,
)
from parallelz.launch.local import LocalController, LocalEngines
from parallelz.store.choice import to_store

__all__ = ["Cluster", "ClusterRunning", "NoCluster"]

_DEATH_CHECK_PERIOD_S = 0.1  # of the launched, while we wait for engines to join


class Cluster:
    """Starts, watches and stops one cluster.

    Parameters
    ----------
    n
        Engines to start when no number is given later; None: one per usable core.
    profile, profile_dir
        Name of the IPython profile, or its directory itself; made if it is not there.
    cluster_id
        Tells clusters of one profile apart. "": the usual one, which `Client()` finds; to
        start it while it runs is an error. None: the usual one, or, if that runs, the first
        of ``2``, ``3``, ... that is free.
    engines, controller
        Short names of the launchers. ``local``: processes of this host.
    controller_ip
        Address to listen on for engines and clients of other hosts, ``"0.0.0.0"`` for all,
        always encrypted; None: this host only.
    controller_port
        For other hosts; 0: one that is free.
    controller_location
        Address by which other hosts reach this one, if none of its interfaces has it.
    store
        Where the history goes: ``sqlite``, ``memory``, ``none``, ``postgresql`` (a database
        that ``PARALLELZ_DATABASE_URL`` or libpq's own settings name) or the URL of such a
        database, without a password.
    scheme, hwm
        How an engine is chosen, and how many tasks it may hold: see docs/scheduling.md.
    labels
        What the engines are good for, such as ``["cuda"]``; tasks may ask for some labels.
    resources
        How much each engine has, such as ``{"gpu": 1}``; tasks may ask for so much.
    memory_limit
        Bytes, or a text such as ``"2GB"``: an engine that uses more is killed and replaced.
        Its tasks end with `EngineError` or are run again. None: no limit.
    restart
        Whether an engine that dies is replaced: at most 5 within a minute.
    engine_timeout
        Seconds until controller and engines must be ready.
    shutdown_atexit
        Whether the cluster ends with this process, be it by SIGKILL.

    Attributes
    ----------
    cluster_id
        What was chosen if it was None; "" before the start.
    profile_dir
        Absolute path.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str | None = None,
        engines: str = "local",
        controller: str = "local",
        controller_ip: str | None = None,
        controller_port: int = 0,
        controller_location: str = "",
        store: str = settings.DEFAULT_STORE,
        scheme: str = settings.DEFAULT_SCHEME,
        hwm: int | None = None,
        labels: Sequence[str] | str | None = None,
        resources: Mapping[str, float] | str | None = None,
        memory_limit: int | str | None = None,
        restart: bool = False,
        engine_timeout: float = settings.START_TIMEOUT_S,
        shutdown_atexit: bool = True,
    ) -> None:
        check_launcher(engines)
        check_launcher(controller)
        settings.check_cluster_id(cluster_id or "")
        to_store(store)
        self.n = n
        self.profile_dir = settings.profile_dir(profile, profile_dir)
        self.cluster_id = cluster_id or ""
        self.shutdown_atexit = shutdown_atexit
        self.engine_timeout = engine_timeout
        self._may_rename = cluster_id is None
        ip = controller_ip or ""
        self._options = ControllerOptions(ip, controller_port, store, scheme, hwm)
        self._location = controller_location
        self._engine_options = EngineOptions().but(
            labels=labels, resources=resources, memory_limit=memory_limit, restart=restart
        )
        self._socket_dir = ""  # "": nothing is ours to stop
        self._owner_pid = os.getpid()
        self._controller: LocalController | None = None
        self._engine_sets: dict[str, LocalEngines] = {}
        self._client: Client | None = None  # the one of `with`

    @classmethod
    def from_file(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str = "",
    ) -> Cluster:
        """Take up a cluster that another process started. It does not end with this one.

        Parameters
        ----------
        file
            Its cluster file; None: that of `profile` (or `profile_dir`) and `cluster_id`.

        Raises
        ------
        NoCluster
            If there is none, or all of it has ended.
        ClusterError
            If its processes are on another host.
        """
        directory = settings.profile_dir(profile, profile_dir)
        path = Path(file) if file else settings.cluster_file(directory, cluster_id)
        facts = cluster_file.read_running(path)
        cluster = cls(
            profile_dir=facts.profile_dir, cluster_id=facts.cluster_id, shutdown_atexit=False
        )
        cluster._socket_dir = facts.socket_dir
        cluster._take_up(facts)
        return cluster

    @property
    def controller(self) -> LocalController | None:
        """The controller's launcher, None before the start and after the stop."""
        return self._controller

    @property
    def engine_sets(self) -> dict[str, LocalEngines]:
        """The launchers of engines, by the ids of the sets."""
        return dict(self._engine_sets)

    @property
    def client_connection_file(self) -> Path:
        """What a client needs in order to connect."""
        return settings.connection_file(self.profile_dir, self.cluster_id, "client")

    def __repr__(self) -> str:
        name = self.profile_dir.name.removeprefix("profile_")
        if self.profile_dir == settings.profile_dir(name):
            where = f"profile={name!r}"
        else:
            home = f"{Path.home()}{os.sep}"
            where = f"profile_dir={str(self.profile_dir).replace(home, '~/', 1)!r}"
        parts = [f"cluster_id={self.cluster_id!r}", where]
        if self._controller is not None:
            parts.append(f"controller=<{self._controller.state}>")
        if self._engine_sets:
            parts.append(f"engine_sets={list(self._engine_sets)}")
        return f"<Cluster({', '.join(parts)})>"

    def to_dict(self) -> dict[str, object]:
        """Return what the cluster file says; {} if the cluster does not run."""
        facts = self._facts()
        return {} if facts is None else dict(msgspec.to_builtins(facts))

    # -- starting -------------------------------------------------------------------------

    def start_controller_sync(self) -> None:
        """Start the controller and wait until it listens.

        Raises
        ------
        ClusterRunning
            If a cluster with this id runs in this profile.
        ClusterError
            If it ends or does not get ready. Nothing is left of it then.
        """
        with self._stopped_on_failure():
            self._launch_controller().wait_ready(self.engine_timeout)

    def start_engines_sync(
        self,
        n: int | None = None,
        engine_set_id: str | None = None,
        *,
        labels: Sequence[str] | str | None = None,
        resources: Mapping[str, float] | str | None = None,
        memory_limit: int | str | None = None,
        restart: bool | None = None,
    ) -> str:
        """Start more engines, without waiting until they are ready.

        Options that are None are as the cluster was given them.

        Returns
        -------
        str
            The id of the set they form, by which they can be stopped.
        """
        options = self._engine_options.but(
            labels=labels, resources=resources, memory_limit=memory_limit, restart=restart
        )
        return self._launch_engines(self._engine_count(n), engine_set_id, options)

    def _launch_engines(
        self, engine_count: int, engine_set_id: str | None, options: EngineOptions
    ) -> str:
        if self._controller is None:
            raise ClusterError("start the controller before its engines: start_cluster_sync()")
        place = self._place()
        with self._changing_facts() as facts:
            set_id = engine_set_id or _free_id(facts.engine_sets.keys() | self._engine_sets)
            existing = self._engine_sets.get(set_id)
            if existing is not None and existing.state == "running":
                raise ClusterError(f"engine set {set_id!r} runs already")
            engines = self._engine_sets[set_id] = LocalEngines(
                place, engine_count, set_id=set_id, options=options
            )
            engines.start()
            facts.engine_sets[set_id] = engines.to_facts()
        return set_id

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller and `n` engines, and wait until the controller listens."""
        self._engine_count(n)
        with self._stopped_on_failure():
            controller = self._launch_controller()
            # They find its files and wait for it: both start at the same time.
            self.start_engines_sync(n)
            controller.wait_ready(self.engine_timeout)
        return self

    def connect_client_sync(self) -> Client:
        """Return a new client of this cluster. To close it is up to the caller."""
        client = Client(str(self.client_connection_file))
        client.cluster = self
        return client

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start the cluster and return a client once all engines are ready.

        Raises
        ------
        ClusterError
            If something ends instead, with its last words. Nothing is left then.
        """
        engine_count = self._engine_count(n)
        with self._stopped_on_failure():
            self.start_cluster_sync(engine_count)
            client = self.connect_client_sync()
            try:
                self.wait_for_engines_sync(client, engine_count)
            except BaseException:
                client.close()
                raise
        return client

    def wait_for_engines_sync(self, client: Client, n: int) -> None:
        """Wait until the client knows `n` engines.

        Raises
        ------
        ClusterError
            If the controller or a set of engines ends meanwhile, with its last words.
        TimeoutError
            After `engine_timeout`.
        """
        deadline_s = time.monotonic() + self.engine_timeout
        while True:
            remaining_s = deadline_s - time.monotonic()
            try:
                client.wait_for_engines(n, timeout=min(_DEATH_CHECK_PERIOD_S, remaining_s))
                return
            except TimeoutError:
                if remaining_s <= _DEATH_CHECK_PERIOD_S:
                    raise
            for launched in (self._controller, *self._engine_sets.values()):
                if launched is not None and launched.state == "after":
                    raise ClusterError(launched.explain_end())

    # -- stopping and changing ------------------------------------------------------------

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop one set of engines, or all, and wait for their end."""
        self._take_up_others()
        chosen = self._chosen_sets(engine_set_id)
        for engines in chosen.values():
            engines.terminate()
        for set_id, engines in chosen.items():
            engines.stop()
            del self._engine_sets[set_id]
        with (
            contextlib.suppress(ClusterError, FileNotFoundError),  # all is stopped meanwhile
            self._changing_facts() as facts,
        ):
            for set_id, engines in chosen.items():
                if facts.engine_sets.get(set_id) == engines.to_facts():
                    del facts.engine_sets[set_id]

    def stop_controller_sync(self) -> None:
        """Stop the controller, and remove the files of the cluster."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None
        if self._socket_dir:
            cluster_file.release(self.profile_dir, self.cluster_id, socket_dir=self._socket_dir)
            self._socket_dir = ""
        atexit.unregister(self._stop_at_exit)

    def stop_cluster_sync(self) -> None:
        """Stop all engines, then the controller; nothing of the cluster is left.

        Engines that another process added are stopped too. To stop twice does nothing.
        """
        if self._socket_dir:
            self.stop_engines_sync()
        self.stop_controller_sync()

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop one set of engines, or all, and start as many; they get new engine ids."""
        self._take_up_others()
        before = self._chosen_sets(engine_set_id)
        self.stop_engines_sync(engine_set_id)
        for set_id, engines in before.items():
            self._launch_engines(engines.n, set_id, engines.options)

    def signal_engines_sync(self, signum: int, engine_set_id: str | None = None) -> None:
        """Send a signal to each engine of one set, or of all."""
        self._take_up_others()
        for engines in self._chosen_sets(engine_set_id).values():
            engines.signal(signal.Signals(signum))

    # -- the same, awaited ----------------------------------------------------------------

    start_controller = awaited(start_controller_sync)
    start_engines = awaited(start_engines_sync)
    start_cluster = awaited(start_cluster_sync)
    connect_client = awaited(connect_client_sync)
    start_and_connect = awaited(start_and_connect_sync)
    wait_for_engines = awaited(wait_for_engines_sync)
    stop_engines = awaited(stop_engines_sync)
    stop_controller = awaited(stop_controller_sync)
    stop_cluster = awaited(stop_cluster_sync)
    restart_engines = awaited(restart_engines_sync)
    signal_engines = awaited(signal_engines_sync)

    def __enter__(self) -> Client:
        self._client = self.start_and_connect_sync()
        return self._client

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._client is not None:
                self._client.close()
        finally:
            self._client = None
            self.stop_cluster_sync()

    __aenter__ = awaited(__enter__)
    __aexit__ = awaited(__exit__)

    # -- inside ---------------------------------------------------------------------------

    def _launch_controller(self) -> LocalController:
        if self._controller is not None:
            raise ClusterRunning(f"{self!r} was started already")
        self.cluster_id, self._socket_dir = cluster_file.establish_one(
            self.profile_dir,
            self.cluster_id,
            may_rename=self._may_rename,
            ip=self._options.ip,
            port=self._options.port,
            location=self._location,
        )
        if self.shutdown_atexit:
            atexit.register(self._stop_at_exit)
        self._controller = LocalController(self._place(), self._options)
        with self._changing_facts() as facts:
            self._controller.start()
            facts.controller = self._controller.to_facts()
            if not self.shutdown_atexit:
                facts.owner = None
        return self._controller

    def _place(self) -> Place:
        parent_pid = os.getpid() if self.shutdown_atexit else None
        return Place(self.profile_dir, self.cluster_id, parent_pid)

    def _engine_count(self, n: int | None) -> int:
        chosen = n if n is not None else self.n
        if chosen is None:
            return usable_core_count()
        if chosen < 1:
            raise ClusterError(f"cannot start {chosen} engines; n must be 1 or more")
        return chosen

    def _facts(self) -> cluster_file.ClusterFacts | None:
        """Return what is written of this very cluster, not of a later one with its id."""
        facts = cluster_file.read(settings.cluster_file(self.profile_dir, self.cluster_id))
        return facts if facts is not None and facts.socket_dir == self._socket_dir else None

    def _changing_facts(self) -> AbstractContextManager[cluster_file.ClusterFacts]:
        return cluster_file.changing(
            self.profile_dir, self.cluster_id, socket_dir=self._socket_dir
        )

    def _take_up(self, facts: cluster_file.ClusterFacts) -> None:
        place = self._place()
        if facts.controller is not None and self._controller is None:
            self._controller = LocalController.from_facts(facts.controller, place)
        for set_id, launched in facts.engine_sets.items():
            known = self._engine_sets.get(set_id)
            if known is None or known.to_facts() != launched:  # restarted by somebody else
                self._engine_sets[set_id] = LocalEngines.from_facts(
                    launched, place, set_id=set_id
                )

    def _take_up_others(self) -> None:
        """Learn of engines that another process added to this cluster."""
        facts = self._facts()
        if facts is not None:
            self._take_up(facts)

    def _chosen_sets(self, engine_set_id: str | None) -> dict[str, LocalEngines]:
        if engine_set_id is None:
            return dict(self._engine_sets)
        if engine_set_id not in self._engine_sets:
            known = ", ".join(self._engine_sets) or "none"
            raise ClusterError(f"there is no engine set {engine_set_id!r}; there is: {known}")
        return {engine_set_id: self._engine_sets[engine_set_id]}

    @contextlib.contextmanager
    def _stopped_on_failure(self) -> Iterator[None]:
        was_running = bool(self._socket_dir)
        try:
            yield
        except BaseException:
            if not was_running:
                self.stop_cluster_sync()
            raise

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner_pid:  # not in a process that was forked from ours
            self.stop_cluster_sync()


def _free_id(taken: Collection[str]) -> str:
    return next(str(number) for number in count(1) if str(number) not in taken)
