"""The processes of one cluster: started, written down, changed and stopped together."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from parallelz import settings
from parallelz.engine_options import EngineOptions
from parallelz.errors import ClusterError
from parallelz.launch import cluster_file
from parallelz.launch.awaited import awaited
from parallelz.launch.cluster_file import ClusterRunning
from parallelz.launch.configured import launcher_options_for
from parallelz.launch.launcher import (
    ControllerOptions,
    EngineSet,
    LaunchedController,
    LaunchedFacts,
    Place,
)
from parallelz.launch.local import LocalWatcher
from parallelz.launch.registry import controller_launcher, engine_launcher
from parallelz.transport.security import read_connection_file


class ClusterProcesses:
    """A controller and sets of engines, and the file that names them.

    Parameters
    ----------
    profile_dir, cluster_id
        Which cluster; None: the usual id, or another one if that runs.
    n
        Engines to start when no number is given later; None: one per usable core.
    controller, controller_launcher_options
        Short name of the launcher of controllers, and what it is told.
    controller_options, engine_options
        What they are started with.
    engines
        Short name of the launcher of engines.
    launcher_options
        What that launcher is told.
    configured
        What configuration files say, for other launchers.
    start_timeout_s
        Until the controller must be ready.
    stop_grace_s
        From asking a controller to end to ending it by force; sets of engines know theirs.
    shutdown_atexit
        Whether all ends with this process, be it by SIGKILL.
    """

    def __init__(
        self,
        profile_dir: Path,
        cluster_id: str | None,
        *,
        n: int | None,
        controller: str,
        controller_launcher_options: Mapping[str, Any],
        controller_options: ControllerOptions,
        engines: str,
        engine_options: EngineOptions,
        launcher_options: Mapping[str, Any],
        configured: Mapping[str, Mapping[str, Any]],
        start_timeout_s: float,
        stop_grace_s: float,
        shutdown_atexit: bool,
    ) -> None:
        self.n = n
        self.profile_dir = profile_dir
        self.cluster_id = cluster_id or ""
        self.shutdown_atexit = shutdown_atexit
        self.engine_timeout = start_timeout_s
        self._stop_grace_s = stop_grace_s
        self._may_rename = cluster_id is None
        self._options = controller_options
        self._engines = engines
        self._engine_options = engine_options
        self._launcher_options = dict(launcher_options)
        self._configured = configured
        self._socket_dir = ""  # "": nothing is ours to stop
        self._owner_pid = os.getpid()
        self._controller: LaunchedController | None = None
        self._controller_launcher = controller
        self._controller_launcher_options = dict(controller_launcher_options)
        self._engine_sets: dict[str, EngineSet] = {}

    @property
    def controller(self) -> LaunchedController | None:
        """The controller's launcher, None before the start and after the stop.

        That of a cluster from a file is another one after the controller was started again.
        """
        controller = self._controller
        if controller is not None and controller.is_taken_up and controller.state == "after":
            self._take_up_others()
        return self._controller

    @property
    def engine_sets(self) -> dict[str, EngineSet]:
        """The launchers of engines, by the ids of the sets."""
        return dict(self._engine_sets)

    @property
    def engine_set(self) -> EngineSet:
        """The launcher of engines if there is one set of them.

        Raises
        ------
        ClusterError
            If there is none, or several.
        """
        if len(self._engine_sets) != 1:
            known = ", ".join(self._engine_sets) or "none"
            raise ClusterError(f"there is not one set of engines, but: {known}")
        return next(iter(self._engine_sets.values()))

    def __repr__(self) -> str:
        name = self.profile_dir.name.removeprefix("profile_")
        if self.profile_dir == settings.profile_dir(name):
            where = f"profile={name!r}"
        else:
            home = f"{Path.home()}{os.sep}"
            where = f"profile_dir={str(self.profile_dir).replace(home, '~/', 1)!r}"
        parts = [f"cluster_id={self.cluster_id!r}", where]
        if (controller := self.controller) is not None:
            parts.append(f"controller=<{controller.state}>")
        if self._engine_sets:
            parts.append(f"engine_sets={list(self._engine_sets)}")
        return f"<Cluster({', '.join(parts)})>"

    def to_dict(self) -> dict[str, object]:
        """Return what the cluster file says; {} if the cluster does not run."""
        facts = self._facts()
        return {} if facts is None else dict(msgspec.to_builtins(facts))

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
        startup_file: str | os.PathLike[str] | None = None,
        startup_code: str | None = None,
        engines: str | None = None,
        launcher_options: Mapping[str, Any] | None = None,
    ) -> str:
        """Start more engines, without waiting until they are ready.

        Options that are None are as the cluster was given them. With another launcher
        (`engines`), `launcher_options` are its own, by default as configured.

        Returns
        -------
        str
            The id of the set they form, by which they can be stopped.
        """
        options = self._engine_options.but(
            labels=labels,
            resources=resources,
            memory_limit=memory_limit,
            restart=restart,
            startup_file=startup_file,
            startup_code=startup_code,
        )
        if launcher_options is None and engines in (None, self._engines):
            launcher_options = self._launcher_options
        else:
            launcher_options = launcher_options_for(
                self._configured, engines or self._engines, launcher_options
            )
        if n is None and engines is not None:
            n = engine_launcher(engines).default_count(launcher_options)
        return self._launch_engines(
            self._engine_count(n),
            engine_set_id,
            options,
            launcher=engines or self._engines,
            launcher_options=launcher_options,
        )

    def _launch_engines(
        self,
        engine_count: int,
        engine_set_id: str | None,
        options: EngineOptions,
        *,
        launcher: str,
        launcher_options: Mapping[str, Any],
    ) -> str:
        if self._controller is None:
            raise ClusterError("start the controller before its engines: start_cluster_sync()")
        place = self._place()
        self._check_is_reachable(launcher, launcher_options)
        with self._changing_facts() as facts:
            set_id = engine_set_id or _free_id(facts.engine_sets.keys() | self._engine_sets)
            existing = self._engine_sets.get(set_id)
            if existing is not None and existing.state == "running":
                raise ClusterError(f"engine set {set_id!r} runs already")
            engines = engine_launcher(launcher)(
                place,
                engine_count,
                set_id=set_id,
                options=options,
                launcher_options=launcher_options,
            )
            self._engine_sets[set_id] = engines
            engines.start()
            facts.engine_sets[set_id] = engines.to_facts()
        return set_id

    def _check_is_reachable(self, launcher: str, launcher_options: Mapping[str, Any]) -> None:
        if not engine_launcher(launcher).needs_network(launcher_options):
            return
        path = settings.connection_file(self.profile_dir, self.cluster_id, "engine")
        if not read_connection_file(path, "engine").tcp_urls:
            raise ClusterError(
                f"engines of the launcher {launcher} are on other hosts, for which the"
                " controller does not listen: start the cluster with --ip='*'"
                " (controller_ip='*')"
            )

    # -- stopping and changing ------------------------------------------------------------

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop one set of engines, or all, and wait for their end.

        Raises
        ------
        ClusterError
            If some cannot be stopped, such as jobs that a batch system does not cancel. All
            others were.
        """
        self._take_up_others()
        chosen = self._chosen_sets(engine_set_id)
        errors: dict[str, ClusterError] = {}
        for set_id, engines in chosen.items():
            with _noted(errors, set_id):
                engines.terminate()
        for set_id, engines in chosen.items():
            if set_id not in errors:
                with _noted(errors, set_id):
                    engines.stop(engines.options.stop_grace_s)
                    del self._engine_sets[set_id]
        with (
            contextlib.suppress(ClusterError, FileNotFoundError),  # all is stopped meanwhile
            self._changing_facts() as facts,
        ):
            for set_id, engines in chosen.items():
                is_same = facts.engine_sets.get(set_id) == engines.to_facts()
                if is_same and set_id not in errors:
                    del facts.engine_sets[set_id]
        if errors:
            first = next(iter(errors.values()))
            raise ClusterError("\n".join(map(str, errors.values()))) from first

    def stop_controller_sync(self) -> None:
        """Stop the controller, and remove the files of the cluster."""
        watcher = self._announce_stop() if self._socket_dir else None
        if self._controller is not None:
            self._controller.stop(self._stop_grace_s)
            self._controller = None
        if self._socket_dir:
            cluster_file.release(self.profile_dir, self.cluster_id, socket_dir=self._socket_dir)
            self._socket_dir = ""
        if watcher is not None and watcher.pid != os.getpid():
            _await_watcher(LocalWatcher.from_facts(watcher))
        atexit.unregister(self._at_exit)

    def _announce_stop(self) -> LaunchedFacts | None:
        """Have nobody start a controller again; return who would have."""
        try:
            with self._changing_facts() as facts:
                facts.is_stopping = True
                self._take_up_controller(facts)
                return facts.watcher
        except (ClusterError, FileNotFoundError):  # all is stopped meanwhile
            return None

    def stop_cluster_sync(self) -> None:
        """Stop all engines, then the controller; nothing of the cluster is left.

        Engines that another process added are stopped too. To stop twice does nothing.

        Raises
        ------
        ClusterError
            If some engines cannot be stopped. All else was; to stop again tries it again.
        """
        try:
            if self._socket_dir or self._engine_sets:
                self.stop_engines_sync()
        finally:
            self.stop_controller_sync()

    def mark_watcher(self, log: Path) -> None:
        """Write down that this process is there only to start a dead controller again.

        It has to end with the cluster: who stops that waits for it.

        Parameters
        ----------
        log
            Where it says what it does.
        """
        with self._changing_facts() as facts:
            me = cluster_file.ProcessId.current()
            facts.watcher = LaunchedFacts("local", me.pid, me.started, str(log))

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop one set of engines, or all, and start as many; they get new engine ids."""
        self._take_up_others()
        before = self._chosen_sets(engine_set_id)
        self.stop_engines_sync(engine_set_id)
        for set_id, engines in before.items():
            self._launch_engines(
                engines.n,
                set_id,
                engines.options,
                launcher=engines.to_facts().launcher,
                launcher_options=engines.launcher_options,
            )

    def signal_engines_sync(self, signum: int, engine_set_id: str | None = None) -> None:
        """Send a signal to each engine of one set, or of all."""
        self._take_up_others()
        for engines in self._chosen_sets(engine_set_id).values():
            engines.signal(signal.Signals(signum))

    # -- the same, awaited ----------------------------------------------------------------

    start_controller = awaited(start_controller_sync)
    start_engines = awaited(start_engines_sync)
    stop_engines = awaited(stop_engines_sync)
    stop_controller = awaited(stop_controller_sync)
    stop_cluster = awaited(stop_cluster_sync)
    restart_engines = awaited(restart_engines_sync)
    signal_engines = awaited(signal_engines_sync)

    # -- inside ---------------------------------------------------------------------------

    def _launch_controller(self) -> LaunchedController:
        if self._controller is not None:
            raise ClusterRunning(f"{self!r} was started already")
        launcher = controller_launcher(self._controller_launcher)
        self.cluster_id, self._socket_dir = cluster_file.establish_one(
            self.profile_dir,
            self.cluster_id,
            may_rename=self._may_rename,
            ip=self._options.ip,
            port=self._options.port,
            location=self._options.location,
            heartbeat=self._options.heartbeat,
            reuse=self._options.reuse,
            writes_files=not launcher.makes_files,
        )
        atexit.register(self._at_exit)
        self._controller = launcher(
            self._place(),
            self._options,
            launcher_options=self._controller_launcher_options,
            changing_facts=self._changing_facts,
        )
        with self._changing_facts() as facts:
            self._controller.start()
            facts.controller = self._controller.to_facts()
            facts.store = self._options.store
            if not self.shutdown_atexit:
                facts.owner = None
        return self._controller

    def _place(self) -> Place:
        parent_pid = os.getpid() if self.shutdown_atexit else None
        return Place(self.profile_dir, self.cluster_id, parent_pid, self._socket_dir)

    def _engine_count(self, n: int | None) -> int:
        chosen = n if n is not None else self.n
        if chosen is None:
            return engine_launcher(self._engines).default_count(self._launcher_options)
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
        self._take_up_controller(facts)
        place = self._place()
        for set_id, launched in facts.engine_sets.items():
            known = self._engine_sets.get(set_id)
            if known is None or known.to_facts() != launched:  # restarted by somebody else
                launcher = engine_launcher(launched.launcher)
                self._engine_sets[set_id] = launcher.from_facts(launched, place, set_id=set_id)

    def _take_up_controller(self, facts: cluster_file.ClusterFacts) -> None:
        known, launched = self._controller, facts.controller
        if launched is None:
            return
        if known is None or (known.is_taken_up and known.to_facts() != launched):
            launcher = controller_launcher(launched.launcher)
            self._controller = launcher.from_facts(launched, self._place())

    def _take_up_others(self) -> None:
        """Learn of processes that another process started for this cluster."""
        facts = self._facts()
        if facts is not None:
            self._take_up(facts)

    def _chosen_sets(self, engine_set_id: str | None) -> dict[str, EngineSet]:
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

    def _at_exit(self) -> None:
        if os.getpid() != self._owner_pid:
            return  # in a process that was forked from ours
        if self.shutdown_atexit:
            self.stop_cluster_sync()
        elif self._controller is not None:
            self._controller.leave()


@contextlib.contextmanager
def _noted(errors: dict[str, ClusterError], set_id: str) -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        errors[set_id] = error


def _await_watcher(watcher: LocalWatcher) -> None:
    """Wait until it has seen that its cluster was stopped."""
    if not watcher.wait(settings.STOP_GRACE_S):
        watcher.stop()


def _free_id(taken: Collection[str]) -> str:
    return next(str(number) for number in count(1) if str(number) not in taken)
