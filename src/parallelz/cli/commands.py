"""What the commands of ``ipclusterz`` do."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from parallelz import settings
from parallelz.cli import background, common, configured
from parallelz.client.client import Client
from parallelz.cluster import Cluster
from parallelz.errors import ClusterError, ParallelzError
from parallelz.launch import cluster_file, clusters
from parallelz.launch.cluster_file import ClusterFacts, ClusterRunning, NoCluster
from parallelz.launch.configuration import COMMANDS
from parallelz.launch.launcher import EngineSet, LaunchedFacts, Launcher

FOLLOW_PERIOD_S = 0.2  # files cannot be awaited everywhere
STATUS_TIMEOUT_S = 5.0
SIGNAL_CHECK_PERIOD_S = 0.5


def start(args: argparse.Namespace) -> int:
    """Start a cluster and stay with it until it ends, or leave it in the background."""
    if args.generate_config:
        return configured.generate(args)
    common.end_on_signals()
    leave = background.enter() if args.daemonize else None
    logging.basicConfig(format="ipclusterz: %(message)s")
    cluster = Cluster(
        args.n,
        profile=args.profile,
        profile_dir=args.profile_dir,
        cluster_id=args.cluster_id,
        config=configured.read(args),
        load_profile=False,
        engines=args.engines,
        controller=args.controller,
        **common.controller_arguments(args),
        **common.engine_options(args),
        shutdown_atexit=not args.daemonize,
    )
    started = False
    try:
        with cluster.start_and_connect_sync() as client:
            engine_count = len(client)
        started = True
        _tell_started(cluster, engine_count, args)
        if leave is not None:
            _leave(cluster, leave)
        return _stay(cluster)
    except ClusterRunning as error:
        print(f"ipclusterz: {error}", file=sys.stderr)
        return common.ALREADY_STARTED
    except KeyboardInterrupt:
        if not started:
            raise
        print("Stopping", flush=True)
        return common.DONE
    finally:
        common.ignore_signals()
        cluster.stop_cluster_sync()


def _leave(cluster: Cluster, leave: Callable[[Path], None]) -> None:
    """Become the watcher of a cluster in the background."""
    log = settings.log_file(cluster.profile_dir, cluster.cluster_id, "watcher")
    cluster.mark_watcher(log)
    leave(log)
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s", force=True)


def _tell_started(cluster: Cluster, engine_count: int, args: argparse.Namespace) -> None:
    print(f"Started {_title(cluster.cluster_id)} with {engine_count} engines")
    arguments = [
        f"{name}={value!r}"
        for name, value in (
            ("profile", args.profile),
            ("profile_dir", args.profile_dir),
            ("cluster_id", args.cluster_id),
        )
        if value
    ]
    print(f"Use it from Python with: parallelz.Client({', '.join(arguments)})")
    print(f"Logs are in {settings.log_dir(cluster.profile_dir)}")
    end = f"ipclusterz stop{common.same_cluster(args)}" if args.daemonize else "Ctrl-C"
    print(f"Stop it with: {end}", flush=True)


def _stay(cluster: Cluster) -> int:
    """Wait until the controller has ended and is not started again."""
    controller = cluster.controller
    assert controller is not None
    for engine_set in cluster.engine_sets.values():
        engine_set.on_stop(partial(_tell_ended, engine_set))
    _await_end(controller)
    if controller.has_failed:  # which was logged
        return common.FAILED
    print("The cluster was stopped")
    return common.DONE


def _await_end(launched: Launcher) -> None:
    """Wait until it has ended, or a signal comes."""
    # One that comes just before Python begins to wait is seen only when the wait ends.
    while not launched.wait(SIGNAL_CHECK_PERIOD_S):
        pass


def _tell_ended(engines: EngineSet) -> None:
    if engines.poll() != 0 and not engines.is_stopping:
        print(f"ipclusterz: {engines.explain_end()}", file=sys.stderr)


def engines(args: argparse.Namespace) -> int:
    """Add engines to a cluster that runs."""
    if args.generate_config:
        return configured.generate(args)
    common.end_on_signals()
    logging.basicConfig(format="ipclusterz: %(message)s")
    cluster = Cluster.from_file(
        profile_dir=common.chosen_profile_dir(args),
        cluster_id=args.cluster_id,
        config=configured.read(args),
        load_profile=False,
    )
    cluster.shutdown_atexit = not args.daemonize
    set_id = ""
    left = False
    try:
        with cluster.connect_client_sync() as client:
            ready_count = len(client)
            set_id = cluster.start_engines_sync(
                args.n, engines=args.engines, **common.engine_options(args)
            )
            added = cluster.engine_sets[set_id].n
            cluster.wait_for_engines_sync(client, ready_count + added)
        print(f"Added {added} engines as set {set_id}", flush=True)
        left = bool(args.daemonize)
        if not left:
            print("Ctrl-C stops them", flush=True)
            _await_end(cluster.engine_sets[set_id])
        return common.DONE
    finally:
        if set_id and not left:
            common.ignore_signals()
            cluster.stop_engines_sync(set_id)


def stop(args: argparse.Namespace) -> int:
    """Stop one cluster, or all of a profile."""
    directory = common.chosen_profile_dir(args)
    cluster_ids = [args.cluster_id]
    errors: list[Exception] = []
    if args.all:
        found, unreadable = clusters.find(directory)
        errors += unreadable
        cluster_ids = [each.cluster_id for each in found if each.is_local and each.is_running]
    status = common.DONE if cluster_ids else common.ALREADY_STOPPED
    for cluster_id in cluster_ids:
        try:
            cluster = Cluster.from_file(
                profile_dir=directory, cluster_id=cluster_id, load_profile=False
            )
            cluster.stop_cluster_sync()
        except NoCluster as error:
            print(f"ipclusterz: {error}", file=sys.stderr)
            status = common.ALREADY_STOPPED
            continue
        except (ParallelzError, TimeoutError, OSError) as error:
            errors.append(error)  # others are to be stopped all the same
            continue
        print(f"Stopped {_title(cluster_id)} in {directory}")
    if not cluster_ids:
        print(f"ipclusterz: no cluster runs in {directory}", file=sys.stderr)
    return _tell(errors) or status


def status(args: argparse.Namespace) -> int:
    """Show the processes of a cluster and ask its controller for the engines."""
    directory = common.chosen_profile_dir(args)
    try:
        facts = cluster_file.read_running(settings.cluster_file(directory, args.cluster_id))
    except NoCluster as error:
        print(f"ipclusterz: {error}", file=sys.stderr)
        return common.ALREADY_STOPPED
    processes = _processes(facts)
    states = {name: _state_of(facts, each) for name, each in processes.items()}
    in_order = all(state == "running" for state in states.values())
    asks = states["controller"] == "running"
    engine_ids: list[int] = []
    recorder: Mapping[str, object] = {}
    if asks:
        file = settings.connection_file(directory, args.cluster_id, "client")
        with Client(str(file), timeout=STATUS_TIMEOUT_S) as client:
            engine_ids = client.ids
            recorder = cast("Mapping[str, object]", client.dump()["recorder"])
    if args.output == "json":
        shown = {"states": states, "engine_ids": engine_ids, "recorder": dict(recorder)}
        print(json.dumps({**_as_dict(facts), **shown}, indent=1))
    else:
        print(f"{_title(facts.cluster_id).capitalize()} in {facts.profile_dir}")
        for name, launched in processes.items():
            more = f"{_identity(launched)} {launched.log}" if launched else ""
            print(f"  {name:<12} {states[name]:<8} {more}")
        if asks:
            print(f"  {len(engine_ids)} engines answer: {engine_ids}")
            print(f"  {'history':<12} {history_line(recorder, facts)}")
    in_order = in_order and asks and not recorder["trouble"]
    return common.DONE if in_order else common.FAILED


def _state_of(facts: ClusterFacts, launched: LaunchedFacts | None) -> str:
    if launched is None or "jobs" not in launched.details:
        return facts.state_of(launched)
    from parallelz.launch.batch import state_of_jobs  # the others need no batch systems

    return state_of_jobs(launched)


def _identity(launched: LaunchedFacts) -> str:
    if "jobs" in launched.details:
        return f"jobs {launched.details['jobs']:<7}"
    return f"pid {launched.pid:<8}"


def _processes(facts: ClusterFacts) -> dict[str, LaunchedFacts | None]:
    found = {"controller": facts.controller}
    if facts.watcher is not None:
        found["watcher"] = facts.watcher
    return found | {f"engines {set_id}": each for set_id, each in facts.engine_sets.items()}


def history_line(recorder: Mapping[str, object], facts: ClusterFacts) -> str:
    """Return whether the history gets written, and where to.

    Parameters
    ----------
    recorder
        What the controller says of it.
    facts
        What the cluster file says.
    """
    where = facts.store
    if where == "sqlite":
        where = f"sqlite  {settings.database_file(Path(facts.profile_dir), facts.cluster_id)}"
        if facts.controller is not None and facts.controller.launcher == "ssh":
            where = f"sqlite  on {facts.controller.launcher_options['host']}"
    if not recorder["is_kept"]:
        state = "off"
    elif trouble := recorder["trouble"]:
        return f"stuck    {where}, nothing is written: {trouble}"
    else:
        state = "written"
    lost = recorder["lost_records"]
    return f"{state:<8} {where}{f', {lost} records were lost' if lost else ''}"


def list_clusters(args: argparse.Namespace) -> int:
    """List clusters with their states."""
    if args.profile or args.profile_dir:
        directories = [common.chosen_profile_dir(args)]
    else:
        directories = sorted(settings.ipython_dir().glob("profile_*"))
    found: list[ClusterFacts] = []
    errors: list[ClusterError] = []
    for directory in directories:
        there, unreadable = clusters.find(directory)
        found += there
        errors += unreadable
    if args.output == "json":
        print(json.dumps([_as_dict(each) for each in found], indent=1))
        return _tell(errors)
    row = "{:<16} {:<20} {:<8} {:>7}  {}"
    print(row.format("PROFILE", "CLUSTER ID", "STATE", "ENGINES", "DIRECTORY"))
    for each in found:
        print(
            row.format(
                Path(each.profile_dir).name.removeprefix("profile_"),
                each.cluster_id or "''",
                _state(each),
                sum(engine_set.n for engine_set in each.engine_sets.values()),
                each.profile_dir,
            )
        )
    return _tell(errors)


def clean(args: argparse.Namespace) -> int:
    """Remove what ended clusters left behind."""
    if args.profile or args.profile_dir:
        directories = [common.chosen_profile_dir(args)]
    else:
        directories = sorted(settings.ipython_dir().glob("profile_*"))
    errors: list[ClusterError] = []
    for directory in directories:
        cleaned = clusters.clean(directory, force=args.force)
        for cluster_id in cleaned.cluster_ids:
            print(f"Removed the files of {_title(cluster_id)} in {directory}")
        errors += cleaned.errors
    return _tell(errors)


def _tell(errors: Iterable[Exception]) -> int:
    """Say what could not be done, below what could; return the exit status."""
    sys.stdout.flush()
    status = common.DONE
    for error in errors:
        print(f"ipclusterz: {error}", file=sys.stderr)
        status = common.FAILED
    return status


def create(args: argparse.Namespace) -> int:
    """Make a profile's directories, and configuration files in which all is explained."""
    directory = common.chosen_profile_dir(args)
    existed = directory.exists()
    settings.make_profile_dir(directory)
    print(f"{'There was already' if existed else 'Made'} {directory}")
    configured.write_files(directory, COMMANDS)
    return common.DONE


def logs(args: argparse.Namespace) -> int:
    """Show the ends of all logs of a profile's cluster, and follow them if asked to."""
    directory = settings.log_dir(common.chosen_profile_dir(args))
    with ExitStack() as stack:
        files: dict[Path, BinaryIO] = {}
        for path in _logs_of(directory, args.cluster_id):
            files[path] = stack.enter_context(path.open("rb"))
            lines = files[path].read().decode(errors="replace").splitlines()
            print(f"==> {path} <==")
            print("\n".join(lines[-args.lines :]), flush=True)
        if not files and not args.follow:
            print(f"ipclusterz: nothing was logged in {directory}", file=sys.stderr)
            return common.FAILED
        last = None
        while args.follow:
            for path in _logs_of(directory, args.cluster_id):
                if path not in files:  # of an engine that was started meanwhile
                    files[path] = stack.enter_context(path.open("rb"))
            for path, file in files.items():
                last = _show_more(path, file, last)
            time.sleep(FOLLOW_PERIOD_S)
    return common.DONE


def _logs_of(directory: Path, cluster_id: str) -> list[Path]:
    """Return the logs of a cluster's processes, also of those that have ended."""
    suffix = re.escape(f"-{cluster_id}" if cluster_id else "")
    ours = re.compile(rf"(controller|watcher|engines-[^-/.]+){suffix}(\.log|/.+\.log)")
    return [
        path
        for path in sorted(directory.rglob("*.log"))
        if ours.fullmatch(path.relative_to(directory).as_posix())
    ]


def _show_more(path: Path, file: BinaryIO, last: Path | None) -> Path | None:
    """Show what was added to a log; return whose text was shown last."""
    more = file.read()
    if not more:
        return last
    if path != last:
        print(f"==> {path} <==")
    print(more.decode(errors="replace"), end="", flush=True)
    return path


def _title(cluster_id: str) -> str:
    return f"cluster {cluster_id!r}" if cluster_id else "the cluster"


def _state(facts: ClusterFacts) -> str:
    if not facts.is_running:
        return "ended"
    if facts.controller is None:
        return "starting"
    return facts.state_of(facts.controller)


def _as_dict(facts: ClusterFacts) -> dict[str, object]:
    shown: dict[str, Any] = {**msgspec.to_builtins(facts), "state": _state(facts)}
    for set_id, launched in facts.engine_sets.items():
        shown["engine_sets"][set_id]["options"] = launched.options._asdict()  # by their names
    return shown
