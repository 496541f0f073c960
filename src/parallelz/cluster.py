"""A controller, its engines and a client as one thing.

::

    with Cluster(n=4) as rc:
        rc[:].map_sync(f, items)

Each method that waits exists twice: `start_cluster_sync` blocks, ``await start_cluster()``
does the same in a thread. What was started ends with this process, however that ends, unless
`shutdown_atexit` is false; then `Cluster.from_file` takes it up again. As long as this process
is there, it starts a controller again that was killed or has crashed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from parallelz import settings
from parallelz.client.client import Client
from parallelz.errors import ClusterError
from parallelz.ids import EngineId
from parallelz.launch import cluster_file
from parallelz.launch.awaited import awaited
from parallelz.launch.cluster_file import ClusterRunning, NoCluster
from parallelz.launch.configuration import read_configuration
from parallelz.launch.configured import (
    controller_launcher_options_for,
    controller_options,
    engine_options,
    launcher_options_for,
    overridden,
)
from parallelz.launch.launcher import Launcher
from parallelz.launch.processes import ClusterProcesses
from parallelz.launch.registry import controller_launcher, engine_launcher
from parallelz.transport.sockets import host_id

__all__ = ["Cluster", "ClusterRunning", "NoCluster"]

ALL_ADDRESSES = "0.0.0.0"

_DEATH_CHECK_PERIOD_S = 0.1  # of the launched, while we wait for engines to join


class Cluster(ClusterProcesses):
    """Starts, watches and stops one cluster.

    What is not given is as the configuration files of the profile say
    (docs/configuration.md), else as said here.

    A controller that dies is started again, at most 5 times within a minute, and a warning is
    logged; engines keep their ids and names, and no task is lost.

    Parameters
    ----------
    n
        Engines to start when no number is given later; None: one per usable core, or as the
        options of the launcher say.
    profile, profile_dir
        Name of the IPython profile, or its directory itself; made if it is not there.
    cluster_id
        Tells clusters of one profile apart. "": the usual one, which `Client()` finds; to
        start it while it runs is an error. None: the usual one, or, if that runs, the first
        of ``2``, ``3``, ... that is free.
    engines, controller
        Short names of the launchers. ``local``: processes of this host.
    launcher_options
        What the launcher of engines is told, by the names that its page in the documentation
        lists. ``local`` has none.
    controller_launcher_options
        The same for the launcher of the controller, such as ``{"host": "login1"}`` for
        ``ssh``.
    controller_ip
        Address to listen on for engines and clients of other hosts, ``"0.0.0.0"`` for all,
        always encrypted; None: this host only, or all if the engines may be on other hosts.
    controller_port
        For other hosts; 0: one that is free.
    controller_location
        Address by which other hosts reach this one, if none of its interfaces has it.
    store
        Where the history goes: ``sqlite``, ``memory``, ``none``, ``postgresql`` (a database
        that ``PARALLELZ_DATABASE_URL`` or libpq's own settings name) or the URL of such a
        database, without a password.
    history_max_age_s, history_max_count, history_max_bytes
        How much of the history is kept: seconds since the end of a task, tasks, and bytes (or a
        text such as ``"2GB"``) of the store. The oldest go first. None: all is kept.
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
    startup_file, startup_code
        Python that each engine runs first, in its namespace, be it one that takes the place of
        another: a file of its host, then code. If that fails, the engine ends.
    engine_timeout
        Seconds until controller and engines must be ready.
    shutdown_atexit
        Whether the cluster ends with this process, be it by SIGKILL. If not, nobody starts a
        controller again that dies after this process; ``ipclusterz start --daemonize`` leaves
        a process behind that does.
    config
        What the configuration files might say, such as ``{"Slurm": {"queue": "long"}}``;
        counts more than they do.
    load_profile
        Whether these files are read.

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
        engines: str | None = None,
        controller: str | None = None,
        launcher_options: Mapping[str, Any] | None = None,
        controller_launcher_options: Mapping[str, Any] | None = None,
        controller_ip: str | None = None,
        controller_port: int | None = None,
        controller_location: str | None = None,
        store: str | None = None,
        history_max_age_s: float | None = None,
        history_max_count: int | None = None,
        history_max_bytes: int | str | None = None,
        scheme: str | None = None,
        hwm: int | None = None,
        labels: Sequence[str] | str | None = None,
        resources: Mapping[str, float] | str | None = None,
        memory_limit: int | str | None = None,
        restart: bool | None = None,
        startup_file: str | os.PathLike[str] | None = None,
        startup_code: str | None = None,
        engine_timeout: float | None = None,
        shutdown_atexit: bool = True,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        load_profile: bool = True,
    ) -> None:
        directory = settings.profile_dir(profile, profile_dir)
        configured = overridden(
            read_configuration(directory if load_profile else None, given=config or {}),
            {
                "n": n,
                "engines": engines,
                "controller": controller,
                "engine_timeout": engine_timeout,
                "controller_ip": controller_ip,
                "controller_port": controller_port,
                "controller_location": controller_location,
                "store": store,
                "history_max_age_s": history_max_age_s,
                "history_max_count": history_max_count,
                "history_max_bytes": history_max_bytes,
                "scheme": scheme,
                "hwm": hwm,
            },
        )
        of_cluster = configured.get("Cluster", {})
        engines = of_cluster.get("engines", "local")
        options = launcher_options_for(configured, engines, launcher_options)
        controller = of_cluster.get("controller", "local")
        at_controller = controller_launcher_options_for(
            configured, controller, controller_launcher_options
        )
        controller_launcher(controller).check(at_controller)
        needs_network = engine_launcher(engines).needs_network(options)
        needs_network |= controller_launcher(controller).needs_network(at_controller)
        chosen = controller_options(configured)
        if needs_network and controller_ip is None and not chosen.ip:
            chosen = chosen._replace(ip=ALL_ADDRESSES)
        settings.to_cluster_id(cluster_id or "")
        stop_grace_s = of_cluster.get("stop_grace_s", settings.STOP_GRACE_S)
        super().__init__(
            directory,
            cluster_id,
            n=of_cluster.get("n"),
            controller=controller,
            controller_launcher_options=at_controller,
            controller_options=chosen,
            engines=engines,
            launcher_options=options,
            configured=configured,
            engine_options=engine_options(configured).but(
                labels=labels,
                resources=resources,
                memory_limit=memory_limit,
                restart=restart,
                startup_file=startup_file,
                startup_code=startup_code,
                stop_grace_s=stop_grace_s,
            ),
            start_timeout_s=of_cluster.get("engine_timeout", settings.START_TIMEOUT_S),
            stop_grace_s=stop_grace_s,
            shutdown_atexit=shutdown_atexit,
        )
        self._client: Client | None = None  # the one of `with`

    @classmethod
    def from_file(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | os.PathLike[str] | None = None,
        cluster_id: str = "",
        config: Mapping[str, Mapping[str, Any]] | None = None,
        load_profile: bool = True,
    ) -> Cluster:
        """Take up a cluster that another process started. It does not end with this one.

        Parameters
        ----------
        file
            Its cluster file; None: that of `profile` (or `profile_dir`) and `cluster_id`.
        config, load_profile
            As for `Cluster`; for engines that are added.

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
            profile_dir=facts.profile_dir,
            cluster_id=facts.cluster_id,
            shutdown_atexit=False,
            config=config,
            load_profile=load_profile,
        )
        cluster._socket_dir = facts.socket_dir
        cluster._take_up(facts)
        return cluster

    @property
    def client_connection_file(self) -> Path:
        """What a client needs in order to connect."""
        return settings.connection_file(self.profile_dir, self.cluster_id, "client")

    def start_cluster_sync(self, n: int | None = None) -> Self:
        """Start the controller and `n` engines, and wait until the controller listens."""
        self._engine_count(n)
        with self._stopped_on_failure():
            controller = self._launch_controller()
            if controller.makes_files:
                controller.wait_ready(self.engine_timeout)
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
            If the controller or a set of engines ends meanwhile, with its last words; or if
            some engines will not come, as their host is down. The others go on.
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
                    self._raise_why_waiting(client, n)
                    raise
            for launched in self._ends_to_see():
                if launched.state == "after":
                    raise ClusterError(launched.explain_end())
            for set_id, engines in self._engine_sets.items():
                if shortfall := engines.shortfall():
                    raise ClusterError(
                        f"some engines of set {set_id} will not come: {shortfall}"
                    )

    def stop_engine_sync(self, engine_id: int) -> None:
        """End one engine, whatever it is doing; the others of its set go on.

        Its tasks end with `EngineError` or are run again elsewhere. Returns when it is gone.

        Raises
        ------
        IndexError
            If there is no such engine.
        TimeoutError
            If it is still there after `engine_timeout`.
        """
        with self.connect_client_sync() as client:
            client.shutdown([engine_id])
            self._await_departure(client, engine_id)

    def restart_engine_sync(self, engine_id: int) -> int:
        """End one engine, and let its supervisor start another in its place.

        Returns
        -------
        int
            The id of the other one, which has joined.

        Raises
        ------
        IndexError
            If there is no such engine.
        EngineError
            If nobody can start another, as for ranks of MPI.
        TimeoutError
            If that takes longer than `engine_timeout`.
        """
        with self.connect_client_sync() as client:
            before = set(client.ids)
            client.shutdown([engine_id], restart=True)
            self._await_departure(client, engine_id)
            self.wait_for_engines_sync(client, len(before))
            return max(set(client.ids) - before)

    def signal_engine_sync(self, signum: int, engine_id: int) -> None:
        """Send a signal to one engine. To one of another host that can be SIGINT only.

        Raises
        ------
        IndexError
            If there is no such engine.
        ClusterError
            If it is on another host, and this is another signal.
        """
        number = signal.Signals(signum)
        with self.connect_client_sync() as client:
            if number == signal.SIGINT:
                client.interrupt([engine_id])
                return
            client.resolve([engine_id])
            peer = client.connection.ledger.engines[EngineId(engine_id)].peer
        if peer.host_id != host_id():
            raise ClusterError(
                f"engine {engine_id} is on {peer.host}: only SIGINT can be sent there, not"
                f" {number.name}"
            )
        os.kill(peer.pid, number)

    def _await_departure(self, client: Client, engine_id: int) -> None:
        has_gone = client.connection.wait(
            lambda: engine_id not in client.ids, self.engine_timeout
        )
        if not has_gone:
            raise TimeoutError(
                f"engine {engine_id} is still there after {self.engine_timeout:g} seconds"
            )

    def _raise_why_waiting(self, client: Client, n: int) -> None:
        waiting = [engines.why_waiting() for engines in self._engine_sets.values()]
        if why := "\n".join(filter(None, waiting)):
            raise TimeoutError(
                f"{n} engines not ready in {self.engine_timeout:g} seconds, {len(client)} are:"
                f" {why}"
            )

    def _ends_to_see(self) -> Iterator[Launcher]:
        yield from self._engine_sets.values()
        # Of what another process started nobody can tell here whether it comes again.
        if self._controller is not None and not self._controller.is_taken_up:
            yield self._controller

    # -- the same, awaited ----------------------------------------------------------------

    start_cluster = awaited(start_cluster_sync)
    connect_client = awaited(connect_client_sync)
    start_and_connect = awaited(start_and_connect_sync)
    wait_for_engines = awaited(wait_for_engines_sync)
    stop_engine = awaited(stop_engine_sync)
    restart_engine = awaited(restart_engine_sync)
    signal_engine = awaited(signal_engine_sync)

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
