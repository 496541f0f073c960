"""Engines as a process: arguments, connection file, log, supervisor."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from parallelz import settings
from parallelz.engine.children import Plan, run_engine
from parallelz.engine.orders import Orders, from_stdin
from parallelz.engine.started import StartedTasks
from parallelz.engine.supervisor import Supervisor
from parallelz.engine_options import add_arguments, from_arguments
from parallelz.errors import ConnectionFileError, ParallelzError
from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.transport.security import read_connection_file
from parallelz.transport.sockets import new_session_id

FILE_CHECK_PERIOD_S = 0.01


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments that launchers give."""
    parser = argparse.ArgumentParser(prog="parallelz.engine")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, help="the connection file")
    source.add_argument(
        "--orders", action="store_true", help="take it, and orders, from standard input"
    )
    parser.add_argument("-n", type=int, default=1, help="how many engines")
    parser.add_argument("--log-dir", type=Path, help="a log file for each engine, in there")
    parser.add_argument("--parent-pid", type=int, help="end when this process has ended")
    parser.add_argument(
        "--wait-s",
        type=float,
        default=settings.FILE_WAIT_S,
        help="how long to wait for the connection file",
    )
    add_arguments(parser)
    parser.add_argument(
        "--mpi", help="be one engine, the rank of an MPI program, with MPI of this module"
    )
    parser.add_argument(
        "--drain-after-s", type=float, help="after so long take nothing new, finish, and end"
    )
    parser.add_argument(
        "--pass-signals", action="store_true", help="signals but SIGTERM are for the engines"
    )
    parser.add_argument(
        "--leave-signals", action="store_true", help="the same, if the engines get them anyway"
    )
    # For one engine that a supervisor starts in the place of another: who it is, the end of
    # the pipe that tells when the supervisor is gone, and where it counts what it starts.
    parser.add_argument("--session-id", help=argparse.SUPPRESS)
    parser.add_argument("--alive-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--started-fd", type=int, help=argparse.SUPPRESS)
    return parser


def read_connection(path: Path, wait_s: float) -> ConnectionInfo:
    """Return what the connection file says; wait until it is there.

    Its directory may be on a network file system, which tells nobody of new files: so look.
    """
    give_up_s = time.monotonic() + wait_s
    while True:
        try:
            return read_connection_file(path, "engine")
        except FileNotFoundError:
            if time.monotonic() >= give_up_s:
                raise ConnectionFileError(
                    f"no connection file {path} after {wait_s:g} s: is the controller running?"
                    " Start one with `ipcontrollerz`"
                ) from None
            time.sleep(FILE_CHECK_PERIOD_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run engines until they are told to end; return the exit status."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s",
    )
    try:
        if not args.orders:
            return _run(args, None)
        with from_stdin() as (orders, args.file):
            return _run(args, orders)
    except ParallelzError as error:
        sys.stderr.write(f"ipenginez: {error}\n")
        return 1


def _run(args: argparse.Namespace, orders: Orders | None) -> int:
    options = from_arguments(args)
    info = read_connection(args.file, args.wait_s)
    if sys.path[0] != "":
        sys.path.insert(0, "")  # modules in the working directory, as at a prompt
    plan = Plan(info, args.file, args.log_dir, options)
    if args.session_id:
        started = StartedTasks(args.started_fd)
        return run_engine(plan, SessionId(args.session_id), args.alive_fd, started)
    if args.mpi:
        return _run_rank(plan, args.mpi)
    if not hasattr(os, "fork"):
        if args.n != 1 or options.memory_limit or options.restart:
            sys.stderr.write(
                "ipenginez: this system cannot fork: start each engine alone, without"
                " --memory-limit and --restart\n"
            )
            return 2
        return run_engine(plan, new_session_id())
    supervisor = Supervisor(
        plan,
        parent_pid=args.parent_pid,
        orders=orders,
        drain_after_s=args.drain_after_s,
        passes_signals=args.pass_signals,
        leaves_signals=args.leave_signals,
    )
    return supervisor.run(args.n)


def _run_rank(plan: Plan, module: str) -> int:
    """Be an engine of an MPI program, whose other ranks are engines, too."""
    try:
        mpi = importlib.import_module("mpi4py.MPI" if module == "mpi4py" else module)
    except ImportError as error:
        sys.stderr.write(f"ipenginez: --mpi={module} cannot be imported: {error}\n")
        return 1
    rank = mpi.COMM_WORLD.Get_rank() if module == "mpi4py" else os.getpid()
    return run_engine(plan, new_session_id(), log_name=f"rank-{rank}")


if __name__ == "__main__":
    sys.exit(main())
