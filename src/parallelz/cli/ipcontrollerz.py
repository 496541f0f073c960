"""``ipcontrollerz``: a controller in the foreground, alone or started by a launcher.

A launcher has made the cluster's files already (``--launched``). In both cases they are removed
at the end, as the launcher may be gone by then.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from parallelz.cli import common, configured

DESCRIPTION = """\
Run a controller: the process that engines and clients connect to. It runs until Ctrl-C.

Most often "ipclusterz start" is what you want: it starts a controller and engines.
"""

EPILOG = """\
example: a controller here, two engines in another terminal, or on another host to which
you have copied the engines' connection file from the profile's directory security/

  $ ipcontrollerz --ip='*'
  $ ipenginez -n 2

example: that file is to be valid for the controllers that come after this one, too

  $ ipcontrollerz --ip='*' --reuse

Engines and clients that cannot connect to this host reach it through SSH (their --ssh and
sshserver=, docs/ssh.md): nothing is to be told to the controller.

exit status: 0 it was told to end, 1 failed, 2 misused, 10 a cluster with this id runs already
"""


def build_parser() -> common.Parser:
    """Return the parser of the command line."""
    parser = common.new_parser("ipcontrollerz", DESCRIPTION, EPILOG)
    common.add_cluster_options(parser)
    common.add_network_options(parser)
    parser.add_argument(
        "-r",
        "--reuse",
        action="store_true",
        default=None,
        help="keep the connection files at the end, and use their keys, address and port"
        " again: copies on other hosts stay valid",
    )
    configured.add_options(parser, "ipcontrollerz")
    for name, kind in (("--ready-fd", int), ("--parent-pid", int), ("--log-file", str)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--limits", help=argparse.SUPPRESS)
    # Its files are there already; the directory of its socket tells which cluster that is.
    parser.add_argument("--launched", metavar="SOCKET_DIR", help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run a controller until it is told to end."""
    from parallelz.launch import cluster_file
    from parallelz.launch.configured import controller_options, overridden
    from parallelz.launch.launcher import LaunchedFacts

    profile_dir = common.chosen_profile_dir(args)
    if args.generate_config:
        return configured.generate(args)
    # What a launcher starts is told everything: it has read the configuration.
    configuration = overridden(
        {} if args.launched else configured.read(args),
        {**common.controller_arguments(args), "reuse": args.reuse},
    )
    options = controller_options(configuration)
    if args.launched:
        return _run_launched(args, profile_dir, options.arguments)
    common.end_on_signals()  # until it serves, which has its own way to end
    try:
        socket_dir = cluster_file.establish(
            profile_dir,
            args.cluster_id,
            ip=options.ip,
            port=options.port,
            location=options.location,
            heartbeat=options.heartbeat,
            reuse=options.reuse,
        )
    except cluster_file.ClusterRunning as error:
        print(f"ipcontrollerz: {error}", file=sys.stderr)
        return common.ALREADY_STARTED
    try:
        with cluster_file.changing(
            profile_dir, args.cluster_id, socket_dir=socket_dir
        ) as facts:
            me = cluster_file.ProcessId.current()
            facts.controller = LaunchedFacts("local", me.pid, me.started, args.log_file or "")
            facts.store = options.store
        print(f"Engines join with: ipenginez{common.same_cluster(args)}", flush=True)
        return _serve(args, profile_dir, options.arguments)
    finally:
        cluster_file.release(profile_dir, args.cluster_id, socket_dir=socket_dir)


def _run_launched(args: argparse.Namespace, profile_dir: Path, arguments: Sequence[str]) -> int:
    """Be the controller of the cluster that we were started for, and of no later one."""
    from parallelz.launch import cluster_file

    which = {"socket_dir": args.launched, "owner_pid": args.parent_pid}
    has_crashed = True
    try:
        if args.parent_pid in (None, os.getppid()):
            cluster_file.join_launched(profile_dir, args.cluster_id, **which)
            arguments = [*arguments, "--socket-dir", args.launched]
            status = _serve(args, profile_dir, arguments)
        else:
            status = common.DONE
        has_crashed = False
        return status
    finally:
        # After a crash the file is what engines that are left are found by, unless they
        # end like us because the launcher is gone.
        if not has_crashed or args.parent_pid not in (None, os.getppid()):
            cluster_file.release(profile_dir, args.cluster_id, **which)


def _serve(args: argparse.Namespace, profile_dir: Path, arguments: Sequence[str]) -> int:
    from parallelz.controller import process

    argv = ["--reuse", "--profile-dir", str(profile_dir), *arguments]
    if args.limits is not None:
        argv += ["--limits", args.limits]
    if args.resume:
        argv.append("--resume")
    if args.cluster_id:
        argv += ["--cluster-id", args.cluster_id]
    for name in ("ready_fd", "parent_pid", "log_file"):
        value = getattr(args, name)
        if value is not None:
            argv += [f"--{name.replace('_', '-')}", str(value)]
    return process.main(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = configured.parse(build_parser(), argv)
    return common.run_command("ipcontrollerz", run, args)


if __name__ == "__main__":
    sys.exit(main())
