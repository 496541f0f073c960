"""The controller as a process: arguments, log, signals, and the recorder beside it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from parallelz import settings
from parallelz.controller.controller import Controller
from parallelz.controller.recording import Recording
from parallelz.controller_limits import USUAL_LIMITS, ControllerLimits
from parallelz.core.placement import SCHEMES, Room, UnknownScheme, scheme_named
from parallelz.core.scheduler import Scheduler
from parallelz.errors import ClusterError
from parallelz.store.choice import to_store
from parallelz.transport.security import (
    ClusterSecrets,
    new_secrets,
    read_secrets,
    read_secrets_file,
    remove_runtime_dir,
    runtime_dir_of,
    write_secrets,
)
from parallelz.transport.shared_memory import make_directory
from parallelz.transport.sockets import term_context

logger = logging.getLogger(__name__)

GC_THRESHOLDS = (100_000, 50, 100)  # live tasks are many, and in no circle


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments that launchers give."""
    parser = argparse.ArgumentParser(prog="parallelz.controller")
    parser.add_argument("--profile-dir", type=Path, required=True)
    parser.add_argument("--cluster-id", default="")
    parser.add_argument("--ip", default="", help="also listen here, for other hosts")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--location", default="", help="address by which others reach it")
    parser.add_argument("--store", default=settings.DEFAULT_STORE, help="see store.choice")
    parser.add_argument(
        "--scheme",
        default=settings.DEFAULT_SCHEME,
        help=f"how engines are chosen: {', '.join(SCHEMES)}, or module:Class of your own",
    )
    parser.add_argument("--hwm", type=int, help="tasks placed on an engine at once; 0: any")
    parser.add_argument("--history-max-age-s", type=float, help="as the recorder's options")
    parser.add_argument("--history-max-count", type=int)
    parser.add_argument("--history-max-bytes", type=int)
    parser.add_argument("--limits", default=USUAL_LIMITS, type=ControllerLimits.decode)
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--ready-fd", type=int, help="gets a line when the controller listens")
    parser.add_argument("--parent-pid", type=int, help="end when this process has ended")
    parser.add_argument(
        "--reuse", action="store_true", help="use the connection files that are there"
    )
    parser.add_argument(
        "--socket-dir", help="only if they are of the cluster that has its socket there"
    )
    parser.add_argument("--file", type=Path, help="the same, from this file of a controller")
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a controller until it is told to end; return the exit status."""
    args = build_parser().parse_args(argv)
    try:
        find_scheme(args.scheme)
        to_store(args.store)
    except ClusterError as error:
        sys.stderr.write(f"ipcontrollerz: {error}\n")
        return 2
    logging.basicConfig(
        filename=args.log_file,
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s",
    )
    runtime_dir: Path | None = None
    written: list[Path] = []
    if args.file is not None:
        secrets = read_secrets_file(args.file)
    elif args.reuse:
        secrets = read_secrets(args.profile_dir, args.cluster_id)
    else:
        settings.make_profile_dir(args.profile_dir)
        runtime_dir = Path(tempfile.mkdtemp(prefix="parallelz-"))
        secrets = new_secrets(
            args.cluster_id,
            runtime_dir=runtime_dir,
            ip=args.ip,
            port=args.port,
            location=args.location,
        )
        make_directory(settings.shared_memory_dir(runtime_dir))
        written = write_secrets(secrets, args.profile_dir)
    if args.socket_dir not in (None, str(runtime_dir_of(secrets))):
        sys.stderr.write("ipcontrollerz: the cluster was stopped, and another one started\n")
        return 1
    _allow_many_connections()
    try:
        return _serve(args, secrets)
    finally:
        for path in written:
            path.unlink(missing_ok=True)
        if runtime_dir is not None:
            remove_runtime_dir(runtime_dir)


def _allow_many_connections() -> None:
    """Let as many files be open as the system allows: each line of a peer is one."""
    if sys.platform != "win32":
        import resource  # not at the top: Windows has no such module

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):  # macOS names a limit that it refuses
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _serve(args: argparse.Namespace, secrets: ClusterSecrets) -> int:
    limits = args.limits
    recording = Recording(_recorder_starter(args, secrets), limits=limits)
    # Runs after a restart must not be taken for those before: number them by the time.
    first_run = int(time.time() * 1000) if args.resume else 0
    scheduler = Scheduler(find_scheme(args.scheme), args.hwm, random.randrange, first_run)
    shared_memory = secrets.infos["client"].shared_memory
    controller = Controller(
        secrets,
        recording,
        args.parent_pid,
        scheduler=scheduler,
        resume=args.resume,
        shared_memory=Path(shared_memory) if shared_memory else None,
        limits=limits,
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            signum, lambda number, frame: controller.stop(signal.Signals(number).name)
        )
    logger.info("= listens on %s", ", ".join(secrets.bind_urls))
    if args.ready_fd is not None:
        os.write(args.ready_fd, b"ready\n")
        os.close(args.ready_fd)
    gc.freeze()  # what was imported lives as long as the process: never look at it again
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        controller.run()
    finally:
        controller.close()
        term_context()
    return 0


def run_key(secrets: ClusterSecrets) -> str:
    """Return what tells this run of a cluster from others: the same after a restart."""
    tokens = "".join(secrets.infos[role].token for role in sorted(secrets.infos))
    return hashlib.sha256(tokens.encode()).hexdigest()[:32]


def find_scheme(name: str) -> type[Room]:
    """Return the class of a scheme: one of ours by its name, or any by ``module:Class``.

    Raises
    ------
    UnknownScheme
        If there is no such class, or it is not a `Room`.
    """
    module_name, colon, class_name = name.partition(":")
    if not colon:
        return scheme_named(name)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UnknownScheme(f"the scheme {name!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Room)):
        raise UnknownScheme(f"the scheme {name!r} is no subclass of {Room.__module__}.Room")
    return found


def recorder_command(args: argparse.Namespace, secrets: ClusterSecrets) -> list[str]:
    """Return the command line of the recorder of a controller with these arguments."""
    database = settings.database_file(args.profile_dir, args.cluster_id)
    command = [
        *(sys.executable, "-m", "parallelz.controller.recorder_process"),
        *("--store", args.store, "--path", str(database), "--parent-pid", str(os.getpid())),
        *("--run", run_key(secrets), "--cluster", f"{args.profile_dir}:{args.cluster_id}"),
    ]
    for name in ("max_age_s", "max_count", "max_bytes"):
        limit = getattr(args, f"history_{name}")
        if limit is not None:
            command += [f"--{name.replace('_', '-')}", str(limit)]
    return command


def _recorder_starter(
    args: argparse.Namespace, secrets: ClusterSecrets
) -> Callable[[], subprocess.Popen[bytes]] | None:
    if args.store == "none":
        return None
    command = recorder_command(args, secrets)
    info = json.dumps(msgspec.to_builtins(secrets.infos["recorder"])).encode()

    def start() -> subprocess.Popen[bytes]:
        # Of a session of its own: a terminal's Ctrl-C must not hit it before the controller.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(info)
        process.stdin.close()
        return process

    return start


if __name__ == "__main__":
    sys.exit(main())
