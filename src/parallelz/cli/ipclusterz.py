"""``ipclusterz``: start, look after and stop clusters."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from parallelz.cli import common, configured
from parallelz.option_values import to_count, to_seconds

DESCRIPTION = """\
Start, look after and stop clusters: a controller, and engines that do the work.
"""

EPILOG = """\
example: four engines on this host, used from Python, until Ctrl-C in the first terminal

  $ ipclusterz start -n 4

  >>> import parallelz
  >>> rc = parallelz.Client()
  >>> rc[:].map_sync(lambda x: x**2, range(8))
  [0, 1, 4, 9, 16, 25, 36, 49]

"ipclusterz demo" shows what it can do; "ipclusterz COMMAND --help" explains a command.
"""

START = """\
Start a controller and engines, and keep them until Ctrl-C; or, with --daemonize, return as
soon as all engines are ready and keep them until "ipclusterz stop".
A controller that dies is started again, with all tasks, at most 5 times within a minute.
"""
START_EPILOG = """\
example: four engines on this host, in the background

  $ ipclusterz start -n 4 --daemonize
  $ ipclusterz status
  $ ipclusterz stop

example: as jobs of a batch system, which the configuration may say as well

  $ ipclusterz start --engines=slurm -n 64 --Slurm.queue=long --Slurm.walltime=4:00:00

exit status: 0 done, 1 failed, 2 misused, 10 a cluster with this id runs already
"""
STOP = "Stop a cluster, whoever started it."
STOP_EPILOG = """\
example: stop all clusters of the default profile

  $ ipclusterz stop --all

exit status: 0 done, 1 failed, 2 misused, 11 no such cluster runs
"""
STATUS = "Show the processes of a cluster, and whether its engines answer."
STATUS_EPILOG = """\
example:

  $ ipclusterz status --cluster-id=big

exit status: 0 it runs, 1 it is out of order, 2 misused, 11 no such cluster runs
"""
LIST = "List the clusters of all profiles, or of one."
LIST_EPILOG = """\
example: for a script

  $ ipclusterz list -o json

exit status: 0 done, also if there is none, 1 a cluster file cannot be read, 2 misused
"""
ENGINES = """\
Add engines to a cluster that runs, and keep them until Ctrl-C; or, with --daemonize, until
the cluster is stopped.
"""
ENGINES_EPILOG = """\
example: two more in the background

  $ ipclusterz engines -n 2 --daemonize

exit status: 0 done, 1 failed, such as that no cluster runs, 2 misused
"""
CLEAN = """\
Remove the files of clusters that were killed or whose host was switched off. Those of
clusters that run are not touched, nor is a file that cannot be read.
"""
CLEAN_EPILOG = """\
example: also forget clusters on other hosts, of which nobody can tell if they run

  $ ipclusterz clean --force

exit status: 0 done, also if there was nothing to do, 1 a cluster file cannot be read, 2 misused
"""
LOGS = "Show what the processes of a cluster logged last."
LOGS_EPILOG = """\
example: the last 100 lines of each, and what comes from now on, until Ctrl-C

  $ ipclusterz logs -n 100 --follow

exit status: 0 done, 1 nothing was logged, 2 misused
"""
TOP = "Watch what a cluster does: engines, queues, tasks per second, errors."
TOP_EPILOG = """\
In a terminal q or Ctrl-C ends it. CPU% and MEMORY are of engines on this host.

example: watch it, or take one look for a script

  $ ipclusterz top
  $ ipclusterz top --once -o json

exit status: 0 done, also if the cluster ended, 1 failed, 2 misused, 11 no such cluster runs
"""
CREATE = """\
Make a profile: a directory for the files of its clusters, and configuration files in which
everything is explained and commented out. Files that are there stay as they are.
"""
CREATE_EPILOG = """\
example:

  $ ipclusterz create -p mycluster
  $ ipclusterz start -p mycluster -n 4

exit status: 0 done, 1 failed, 2 misused
"""
DEMO = "Start a cluster, let it analyse Python's own library, show how, and stop it."
DEMO_EPILOG = """\
example:

  $ ipclusterz demo -n 2

exit status: 0 done, 1 failed, 2 misused
"""


def build_parser() -> common.Parser:
    """Return the parser of the command line."""
    parser = common.new_parser("ipclusterz", DESCRIPTION, EPILOG)
    configured.add_help_all(parser, "ipclusterz")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _add(commands, "start", START, START_EPILOG)
    _add_engine_options(command, "how many engines (default: one per core)")
    command.add_argument(
        "--controller",
        type=common.refusing(_to_controller_launcher),
        metavar="LAUNCHER",
        help="what starts the controller: local, ssh, slurm, pbs, sge, lsf, htcondor; what it"
        " is told: --help-all (default: local, on this host)",
    )
    common.add_network_options(command)

    command = _add(commands, "stop", STOP, STOP_EPILOG)
    command.add_argument(
        "-a", "--all", action="store_true", help="stop all clusters of the profile"
    )

    _add_output(_add(commands, "status", STATUS, STATUS_EPILOG))
    _add_output(_add(commands, "list", LIST, LIST_EPILOG))

    _add_top(commands)

    command = _add(commands, "engines", ENGINES, ENGINES_EPILOG)
    _add_engine_options(command, "how many engines to add (default: one per core)")

    command = _add(commands, "clean", CLEAN, CLEAN_EPILOG)
    command.add_argument(
        "-f", "--force", action="store_true", help="also of clusters on other hosts"
    )

    command = _add(commands, "logs", LOGS, LOGS_EPILOG)
    command.add_argument(
        "-n",
        "--lines",
        type=common.refusing(to_count),
        default=20,
        metavar="N",
        help="lines of each log (default: %(default)s)",
    )
    command.add_argument(
        "-f", "--follow", action="store_true", help="go on with what is logged from now on"
    )

    _add(commands, "create", CREATE, CREATE_EPILOG)

    _add_demo(commands)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the chosen command."""
    if args.command == "demo":
        from parallelz.cli import demo

        return demo.main(args)
    if args.command == "top":
        from parallelz.cli import top

        return top.top(args)
    from parallelz.cli import commands

    command = {
        "start": commands.start,
        "stop": commands.stop,
        "status": commands.status,
        "list": commands.list_clusters,
        "engines": commands.engines,
        "clean": commands.clean,
        "logs": commands.logs,
        "create": commands.create,
    }[args.command]
    return command(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    args = configured.parse(build_parser(), argv)
    return common.run_command("ipclusterz", run, args)


def _add(
    commands: argparse._SubParsersAction[common.Parser],
    name: str,
    description: str,
    epilog: str,
) -> common.Parser:
    command = commands.add_parser(
        name,
        help=description.partition(";")[0].partition(". ")[0].rstrip(".\n").replace("\n", " "),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=name, parser=command)
    if name != "demo":
        common.add_cluster_options(command)
    return command


def _add_output(command: argparse.ArgumentParser, more_help: str = "") -> None:
    command.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help=f"for people, or for a program (default: %(default)s){more_help}",
    )


def _add_top(commands: argparse._SubParsersAction[common.Parser]) -> None:
    command = _add(commands, "top", TOP, TOP_EPILOG)
    command.add_argument(
        "--refresh",
        type=common.refusing(to_seconds),
        default=2.0,
        metavar="SECONDS",
        help="how often to look (default: %(default)g)",
    )
    command.add_argument("--once", action="store_true", help="show it once, then end")
    _add_output(command, "; json is shown once")


def _add_demo(commands: argparse._SubParsersAction[common.Parser]) -> None:
    command = _add(commands, "demo", DEMO, DEMO_EPILOG)
    command.add_argument(
        "-n",
        type=common.refusing(to_count),
        default=4,
        metavar="N",
        help="how many engines (default: 4)",
    )
    command.add_argument(
        "--output",
        metavar="DIR",
        help="where to save a picture and the database (default: ./parallelz-demo)",
    )
    command.add_argument(
        "--files",
        type=common.refusing(to_count),
        metavar="N",
        help="how many files of Python's library to take (default: all of them)",
    )


def _add_engine_options(command: argparse.ArgumentParser, n_help: str) -> None:
    command.add_argument("-n", type=common.refusing(to_count), metavar="N", help=n_help)
    command.add_argument(
        "--daemonize", action="store_true", help="run in the background, survive this terminal"
    )
    command.add_argument(
        "--engines",
        type=common.refusing(_to_engine_launcher),
        metavar="LAUNCHER",
        help="what starts engines: local, mpi, ssh, slurm, pbs, sge, lsf, htcondor; what they"
        " are told: --help-all (default: local, on this host)",
    )
    common.add_engine_options(command)
    configured.add_options(command, "ipclusterz")


def _to_engine_launcher(name: str) -> str:
    # Not at the top: help need not wait for it.
    from parallelz.launch.registry import to_engine_launcher

    return to_engine_launcher(name)


def _to_controller_launcher(name: str) -> str:
    from parallelz.launch.registry import to_controller_launcher

    return to_controller_launcher(name)


if __name__ == "__main__":
    sys.exit(main())
