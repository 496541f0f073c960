"""What the commands share about configuration: files, ``--Cluster.n=4``, and help on both."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from parallelz.cli import common
from parallelz.launch.configuration import (
    COMMANDS,
    Command,
    Configuration,
    MisusedOption,
    config_file,
    read_configuration,
    split_settings,
)


def add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the options about configuration to a parser that knows which profile is meant."""
    group = parser.add_argument_group("configuration", "see docs/configuration.md")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="read this file too, after those of the profile",
    )
    group.add_argument(
        "--generate-config",
        action="store_true",
        help=f"write {command}_config.py, all of it commented out, into the profile and exit",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="with that: also if there is one"
    )
    add_help_all(group, command)
    parser.set_defaults(configures=command)


def add_help_all(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, command: Command
) -> None:
    """Add ``--help-all``."""
    parser.add_argument(
        "--help-all",
        action=_ShowAllHelp,
        nargs=0,
        const=command,
        help="also show what can be set in files, or as --Section.option=value, and exit",
    )


def parse(parser: common.Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line; those such as ``--Cluster.n=4`` as `settings`.

    Raises
    ------
    SystemExit
        After help or an error, which were shown.
    """
    try:
        others, settings = split_settings(_arguments(argv))
    except MisusedOption as error:
        parser.error(str(error))
    args, unknown = parser.parse_known_args(others)
    chosen: common.Parser = getattr(args, "parser", parser)
    if unknown:
        chosen.refuse(unknown)
    if settings and not hasattr(args, "configures"):
        first = settings[0]
        chosen.error(f"--{first.section}.{first.option} has no meaning here")
    args.settings = settings
    return args


def _arguments(argv: Sequence[str] | None) -> Sequence[str]:
    if argv is not None:
        return argv
    import sys

    return sys.argv[1:]


def read(args: argparse.Namespace) -> Configuration:
    """Return what is set for a command, by files and by its command line."""
    command: Command = args.configures
    return read_configuration(
        common.chosen_profile_dir(args),
        COMMANDS if command == "ipclusterz" else (command,),
        more_files=[args.config] if args.config else [],
        settings=args.settings,
    )


def generate(args: argparse.Namespace) -> int:
    """Write the commented file of a command; return the exit status."""
    from parallelz import settings

    directory = common.chosen_profile_dir(args)
    settings.make_profile_dir(directory)
    if write_files(directory, (args.configures,), overwrite=args.overwrite):
        return common.DONE
    print("To write it afresh: --generate-config --overwrite")
    return common.FAILED


def write_files(
    profile_dir: Path, commands: Sequence[Command], *, overwrite: bool = False
) -> bool:
    """Write commented files and say so; return whether all were written."""
    from parallelz.launch.configuration_classes import write_commented_file

    is_complete = True
    for command in commands:
        path = config_file(profile_dir, command)
        is_written = write_commented_file(profile_dir, command, overwrite=overwrite)
        is_complete &= is_written
        print(f"{'Wrote' if is_written else 'Kept'} {path}")
    return is_complete


class _ShowAllHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from parallelz.launch.configuration_classes import help_text

        print(parser.format_help())
        print("In configuration files c.Section.option = value, here --Section.option=value:\n")
        print(help_text(self.const))
        parser.exit()
