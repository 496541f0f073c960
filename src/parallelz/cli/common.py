"""What the commands share: which cluster is meant, and how errors are shown."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from parallelz import settings
from parallelz.core.placement import to_scheme
from parallelz.engine_options import EngineOptions, to_code, to_labels, to_resources, to_size
from parallelz.errors import ClusterError, ParallelzError
from parallelz.launch.configuration import MisusedOption
from parallelz.option_values import nearest, to_count, to_count_or_0, to_port, to_seconds
from parallelz.store.choice import (
    DATABASE_VARIABLE,
    POSTGRESQL,
    STORES,
    is_postgresql,
    to_store,
)

DONE, FAILED, MISUSED, ALREADY_STARTED, ALREADY_STOPPED = 0, 1, 2, 10, 11
INTERRUPTED = 128 + signal.SIGINT

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A parser, also of one of several commands, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where there is more, and exit."""
        self.exit(MISUSED, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Say of options that do not exist which ones were perhaps meant, and exit."""
        options = [each for each in self._option_string_actions if each.startswith("--")]
        name = unknown[0].partition("=")[0]
        hint = nearest(name, options) if name.startswith("--") else ""
        near = f"; {hint}" if hint.startswith("did you mean") else ""
        self.error(f"does not know {' '.join(unknown)}{near}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            hint = nearest(str(value), list(action.choices))
            raise argparse.ArgumentError(action, f"there is no {value!r}; {hint}")


def new_parser(prog: str, description: str, epilog: str) -> Parser:
    """Return a parser that shows texts as they are written, and knows ``--version``."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show it and exit")
    return parser


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which cluster is meant."""
    group = parser.add_argument_group("which cluster")
    profile = group.add_mutually_exclusive_group()
    profile.add_argument(
        "-p",
        "--profile",
        type=refusing(settings.to_profile),
        metavar="NAME",
        help="the IPython profile it belongs to (default: default)",
    )
    profile.add_argument(
        "--profile-dir", metavar="DIR", help="the same, as the path of any directory"
    )
    group.add_argument(
        "--cluster-id",
        type=refusing(settings.to_cluster_id),
        metavar="ID",
        default="",
        help="a name of your choice, to have several clusters in one profile (default: none)",
    )


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a controller."""
    group = parser.add_argument_group("the controller")
    group.add_argument(
        "--ip",
        help="also listen on this address, for engines and clients of other hosts; '*' is"
        " all addresses; what goes there is encrypted (default: this host only)",
    )
    group.add_argument(
        "--port",
        type=refusing(to_port),
        metavar="N",
        help="for other hosts (default: one that is free)",
    )
    group.add_argument(
        "--location",
        metavar="ADDRESS",
        help="by which other hosts reach this one, if it does not know that itself",
    )
    _add_history_options(group)
    group.add_argument(
        "--scheme",
        type=refusing(to_scheme),
        metavar="NAME",
        help="how engines are chosen for balanced tasks: leastload, lru, plainrandom, twobin,"
        " weighted, pure, or module:Class of your own (default:"
        f" {settings.DEFAULT_SCHEME})",
    )
    group.add_argument(
        "--hwm",
        type=refusing(to_count_or_0),
        metavar="N",
        help="how many tasks may be placed on an engine at once, 0: any number (default: what"
        " covers the way to it)",
    )


def _add_history_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--store",
        type=refusing(to_store),
        metavar="STORE",
        help=f"where to keep the history of tasks and results: {', '.join(STORES)} (default:"
        f" {settings.DEFAULT_STORE})",
    )
    group.add_argument(
        "--database",
        type=refusing(to_store),
        metavar="URL",
        help="of the store postgresql, without a password: that comes with the URL from the"
        f" environment variable {DATABASE_VARIABLE}, or from ~/.pgpass (default: that"
        " variable, else what psql would use)",
    )
    group.add_argument(
        "--history-max-age-s",
        type=refusing(to_seconds),
        metavar="SECONDS",
        help="forget tasks that ended longer ago (default: never)",
    )
    group.add_argument(
        "--history-max-count",
        type=refusing(to_count),
        metavar="N",
        help="forget the oldest tasks if there are more (default: no limit)",
    )
    group.add_argument(
        "--history-max-bytes",
        type=refusing(to_size),
        metavar="SIZE",
        help="the same by the size of the store, such as 500MB or 2GiB (default: no limit)",
    )


def controller_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_network_options` say, as arguments of `Cluster`."""
    same = ("scheme", "hwm", "history_max_age_s", "history_max_count", "history_max_bytes")
    return {
        "controller_ip": args.ip,
        "controller_port": args.port,
        "controller_location": args.location,
        "store": chosen_store(args),
        **{name: getattr(args, name) for name in same},
    }


def chosen_store(args: argparse.Namespace) -> str | None:
    """Return the store that the options of `add_network_options` name; None: not given."""
    store: str | None = args.store
    database = args.database
    if database is None:
        return store
    if store not in (None, POSTGRESQL) or not is_postgresql(database):
        raise ClusterError(f"--database is the URL of a database of --store {POSTGRESQL}")
    return str(database)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all engines of a set; `engine_options` returns them."""
    group = parser.add_argument_group("the engines")
    group.add_argument(
        "--labels",
        type=refusing(to_labels),
        metavar="A,B",
        help="what they are good for; tasks may ask for engines with some labels",
    )
    group.add_argument(
        "--resources",
        type=refusing(to_resources),
        metavar="NAME=N,...",
        help="how much each of them has, such as gpu=1,mem=16; tasks may ask for some",
    )
    group.add_argument(
        "--memory-limit",
        type=refusing(to_size),
        metavar="SIZE",
        help="kill and replace an engine that uses more memory than this, such as 500MB or"
        " 2GiB (default: no limit)",
    )
    group.add_argument(
        "--restart",
        action="store_true",
        default=None,
        help="replace an engine that dies; at most 5 within a minute, all together",
    )

    group.add_argument(
        "--startup",
        dest="startup_file",
        metavar="FILE",
        help="Python that each engine runs first, in its namespace; if that fails it ends",
    )
    group.add_argument(
        "-c",
        dest="startup_code",
        type=refusing(to_code),
        metavar="CODE",
        help="the same as text, after the file",
    )


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_engine_options` say, as keywords; None: not given."""
    return {name: each for name, each in vars(args).items() if name in EngineOptions._fields}


def refusing(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return the same for argparse, which shows only its own errors."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ClusterError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def chosen_profile_dir(args: argparse.Namespace) -> Path:
    """Return the profile directory that the options name."""
    return settings.profile_dir(args.profile, args.profile_dir)


def same_cluster(args: argparse.Namespace) -> str:
    """Return the options that name the same cluster, for a command to show; "" for none."""
    given = {
        "profile": args.profile,
        "profile-dir": args.profile_dir,
        "cluster-id": args.cluster_id,
    }
    options = (f" {shlex.quote(f'--{name}={text}')}" for name, text in given.items() if text)
    return "".join(options)


def end_on_signals() -> None:
    """Let SIGTERM and a closed terminal do what Ctrl-C does."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)


def ignore_signals() -> None:
    """Let nothing interrupt what stops the cluster; it takes seconds at most."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)


def run_command(
    prog: str, run: Callable[[argparse.Namespace], int], args: argparse.Namespace
) -> int:
    """Run a command; return the exit status, with an error said in its own words."""
    try:
        return run(args)
    except MisusedOption as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return MISUSED
    except (ParallelzError, TimeoutError, OSError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        # Imported only when asked for: it takes as long as the rest of the command.
        from importlib.metadata import version

        print(f"parallelz {version('parallelz')}")
        parser.exit()
