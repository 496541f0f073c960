"""What a profile's configuration files, and options such as ``--Cluster.n=4``, have set.

Files are Python, ``c.Cluster.n = 4``, or JSON, as IPython has them. They are read by traitlets,
which is imported only if there is something to read: most profiles have no such files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from parallelz.errors import ClusterError

Command = Literal["ipclusterz", "ipcontrollerz", "ipenginez"]

COMMANDS: tuple[Command, ...] = ("ipcontrollerz", "ipenginez", "ipclusterz")
"""In the order in which their files are read for a cluster: what comes later counts."""

ENDINGS = (".py", ".json")  # in the order in which they are read

Configuration = dict[str, dict[str, Any]]
"""Values by section and option: only what was set."""

NOTHING: Mapping[str, Mapping[str, Any]] = {}

_TRAIT = re.compile(
    r"--(?P<section>[A-Za-z]\w*)\.(?P<option>\w+)(?:=(?P<value>.*))?", re.DOTALL
)


class ConfigurationError(ClusterError):
    """A configuration file cannot be read, or sets what cannot be."""


class MisusedOption(ConfigurationError):
    """An option such as ``--Cluster.n=4`` does not exist or cannot have this value."""


class Setting(NamedTuple):
    """One option such as ``--Cluster.n=4`` of a command line."""

    section: str
    option: str
    value: str


def config_file(profile_dir: Path, command: Command) -> Path:
    """Return the path of the Python file that configures a command."""
    return profile_dir / f"{command}_config.py"


def config_files(profile_dir: Path, commands: Sequence[Command]) -> list[tuple[Path, Command]]:
    """Return the files of these commands that are there, in the order of reading."""
    return [
        (path, command)
        for command in commands
        for ending in ENDINGS
        if (path := config_file(profile_dir, command).with_suffix(ending)).exists()
    ]


def read_configuration(
    profile_dir: Path | None,
    commands: Sequence[Command] = COMMANDS,
    *,
    more_files: Sequence[Path] = (),
    given: Mapping[str, Mapping[str, Any]] = NOTHING,
    settings: Sequence[Setting] = (),
) -> Configuration:
    """Return what is set for some commands; what comes later in this list counts.

    Parameters
    ----------
    profile_dir
        Whose files are read, those that are there; None: none.
    commands
        Whose files; and all that a program may set by the others.
    more_files
        That must be there.
    given
        By section and option, from a program.
    settings
        From a command line.

    Raises
    ------
    ConfigurationError
        If a file cannot be read or raises, or a value is none that the option may have. What
        does not exist in a file is only warned of: it may be for another version.
    MisusedOption
        If one of `given` or `settings` does not exist, or cannot have this value.
    """
    files = [] if profile_dir is None else config_files(profile_dir, commands)
    files += [(path, commands[-1]) for path in more_files]
    if not (files or given or settings):
        return {}
    from parallelz.launch import configuration_loading as loading

    parts = [loading.read_file(path, command) for path, command in files]
    parts.append(loading.read_given(given, commands[-1]))
    parts.append(loading.read_settings(settings, commands[-1]))
    whole: Configuration = {}
    for part in parts:
        for section, values in part.items():
            whole.setdefault(section, {}).update(values)
    return whole


def split_settings(argv: Sequence[str]) -> tuple[list[str], list[Setting]]:
    """Return a command line without options such as ``--Cluster.n=4``, and these.

    Raises
    ------
    MisusedOption
        If one has no value.
    """
    others: list[str] = []
    found: list[Setting] = []
    rest = iter(argv)
    for text in rest:
        if text == "--":
            return [*others, text, *rest], found
        matched = _TRAIT.fullmatch(text)
        if matched is None:
            others.append(text)
            continue
        value = matched["value"]
        if value is None:
            value = next(rest, None)
        if value is None:
            raise MisusedOption(f"{text} needs a value: {text}=...")
        found.append(Setting(matched["section"], matched["option"], value))
    return others, found
