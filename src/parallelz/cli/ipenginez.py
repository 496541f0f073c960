"""``ipenginez``: engines in the foreground."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from parallelz import settings
from parallelz.cli import common, configured
from parallelz.option_values import to_count

DESCRIPTION = """\
Run engines: the processes that do the work. They connect to a controller, for which they
wait if it does not run yet, and run until Ctrl-C or until the cluster is stopped.
"""

EPILOG = """\
example: add two engines to the cluster that runs on this host

  $ ipenginez -n 2

example: the same on another host, with a copy of the file ipcontrollerz-engine.json from
the directory security/ of the controller's profile (which listens there with --ip)

  $ ipenginez -n 2 --file=ipcontrollerz-engine.json

example: two engines for the tasks that ask for a GPU, each replaced when it dies

  $ ipenginez -n 2 --labels=cuda --resources=gpu=1 --restart

example: the controller can be reached only by logging in to its host

  $ ipenginez -n 2 --file=ipcontrollerz-engine.json --ssh=me@login1

example: with something in their namespaces before the first task

  $ ipenginez -n 2 -c 'import numpy as np'

exit status: 0 they were told to end, 1 failed, 2 misused, 77 the controller refused them,
78 what was to run at their start failed
"""


def build_parser() -> common.Parser:
    """Return the parser of the command line."""
    parser = common.new_parser("ipenginez", DESCRIPTION, EPILOG)
    parser.add_argument(
        "-n",
        type=common.refusing(to_count),
        metavar="N",
        help="how many engines (default: 1)",
    )
    common.add_cluster_options(parser)
    parser.add_argument_group("which controller").add_argument(
        "-f",
        "--file",
        type=Path,
        metavar="FILE",
        help="connection file of the controller (default: that of the profile's cluster)",
    )
    ssh = parser.add_argument_group("through SSH", "see docs/ssh.md")
    ssh.add_argument(
        "--ssh",
        metavar="[USER@]HOST[:PORT]",
        help="reach the controller from this host, to which ssh logs in without a password",
    )
    ssh.add_argument("--sshkey", type=Path, metavar="FILE", help="private key to log in with")
    common.add_engine_options(parser)
    parser.add_argument(
        "--mpi",
        metavar="MODULE",
        help="be one engine, a rank of a running MPI program, with MPI of this module:"
        " mpiexec -n 4 ipenginez --mpi=mpi4py",
    )
    parser.add_argument(
        "--log-dir", type=Path, metavar="DIR", help="where to log to (default: the terminal)"
    )
    configured.add_options(parser, "ipenginez")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run engines until they are told to end."""
    if args.generate_config:
        return configured.generate(args)
    from parallelz.engine import process
    from parallelz.launch.configured import engine_options

    configuration = configured.read(args)
    file = args.file or settings.connection_file(
        common.chosen_profile_dir(args), args.cluster_id, "engine"
    )
    if args.file and not file.exists():
        print(f"ipenginez: there is no connection file {file}", file=sys.stderr)
        return common.FAILED
    options = engine_options(configuration).but(**common.engine_options(args))
    n = args.n or configuration.get("Engine", {}).get("n", 1)
    if not file.exists():
        wait = f"{options.file_wait_s:g} s"
        print(f"Waiting up to {wait} for {file}, which a controller writes", flush=True)
    argv = ["-n", str(n), *options.arguments]
    if args.mpi:
        argv += ["--mpi", args.mpi]
    if args.log_dir:
        argv += ["--log-dir", str(args.log_dir)]
    if args.ssh is None:
        return process.main(
            ["--file", str(file), "--wait-s", f"{options.file_wait_s:g}", *argv]
        )

    from parallelz.engine import tunnelled
    from parallelz.transport.tunnel import SSHServer

    server = SSHServer.of(args.ssh, args.sshkey)
    return tunnelled.run_through(
        server, process.read_connection(file, options.file_wait_s), argv
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = configured.parse(build_parser(), argv)
    return common.run_command("ipenginez", run, args)


if __name__ == "__main__":
    sys.exit(main())
