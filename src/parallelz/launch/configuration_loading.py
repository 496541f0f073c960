"""Reading configuration by traitlets, with errors that say where they are."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from traitlets import TraitError
from traitlets.config.loader import (
    Config,
    DeferredConfigList,
    DeferredConfigString,
    JSONFileConfigLoader,
    LazyConfigValue,
    PyFileConfigLoader,
)

from parallelz.errors import ClusterError
from parallelz.launch.configuration import (
    Command,
    Configuration,
    ConfigurationError,
    MisusedOption,
    Setting,
)
from parallelz.launch.configuration_classes import classes_of
from parallelz.launch.configuration_sections import check_values
from parallelz.option_values import nearest

logger = logging.getLogger(__name__)

Complain = Callable[[str, str, str], None]
"""Says of a section, and an option of it or "", what is wrong."""


def read_file(path: Path, command: Command) -> Configuration:
    """Return what a file sets; warn of what does not exist."""
    config = _load(path)

    def warn(section: str, option: str, what: str) -> None:
        logger.warning("%s: %s", _place(path, section, option), what)

    def refuse(section: str, option: str, what: str) -> None:
        raise ConfigurationError(f"{_place(path, section, option)}: {what}")

    return _values(config, command, warn, refuse)


def read_given(given: Mapping[str, Mapping[str, Any]], command: Command) -> Configuration:
    """Return what a program sets, checked."""
    return _values(Config(given), command, _refuse_given, _refuse_given)


def read_settings(settings: Sequence[Setting], command: Command) -> Configuration:
    """Return what a command line sets. What is given twice makes a list, or is an error."""
    texts_of: dict[tuple[str, str], list[str]] = {}
    for setting in settings:
        texts_of.setdefault((setting.section, setting.option), []).append(setting.value)

    def refuse(section: str, option: str, what: str) -> None:
        raise MisusedOption(f"--{section}.{option}: {what}")

    config = Config()
    for (section, option), texts in texts_of.items():
        trait = _find(section, option, command, refuse)
        if len(texts) > 1 and not hasattr(trait, "from_string_list"):
            refuse(section, option, f"given {len(texts)} times, but has one value")
        is_literal = len(texts) == 1 and texts[0].startswith(("{", "["))
        config[section][option] = (
            DeferredConfigString(texts[0]) if is_literal else DeferredConfigList(texts)
        )
    return _values(config, command, refuse, refuse)


def _refuse_given(section: str, option: str, what: str) -> None:
    raise MisusedOption(f"{section}{option and f'.{option}'}: {what}")


def _find(section: str, option: str, command: Command, complain: Complain) -> object:
    """Return the trait of an option, None if there is no such; that was complained of."""
    classes = classes_of(command)
    if section not in classes:
        elsewhere = "" if command == "ipclusterz" else _elsewhere(section, command)
        hint = elsewhere or nearest(section, classes)
        complain(section, option, f"there is no section {section!r}; {hint}")
        return None
    traits = classes[section].class_traits(config=True)
    if option not in traits:
        hint = nearest(option, sorted(traits))
        complain(section, option, f"section {section} has no option {option!r}; {hint}")
        return None
    return traits[option]


def _elsewhere(section: str, command: Command) -> str:
    if section not in classes_of("ipclusterz"):
        return ""
    return f"{command} does not know it, but ipclusterz does"


def _values(
    config: Config, command: Command, unknown: Complain, refuse: Complain
) -> Configuration:
    """Return what is set in known sections, by the types that their options have."""
    found: Configuration = {}
    for section, options in config.items():
        if not isinstance(options, Config):  # such as c.cluster.n: sections begin with capitals
            what = f"{section!r} is no section; {nearest(section, classes_of('ipclusterz'))}"
            if section in classes_of(command):
                what = f"a section has options by their names, not {options!r}"
            unknown(section, "", what)
            continue
        known = Config()
        for option, value in options.items():
            if _find(section, option, command, unknown) is not None:
                known[option] = value
        if not known:
            continue
        found[section] = _converted(section, known, command, refuse)
    return found


def _converted(
    section: str, known: Config, command: Command, refuse: Complain
) -> dict[str, Any]:
    section_class = classes_of(command)[section]
    values: dict[str, Any] = {}
    for option, value in known.items():
        try:
            # One by one: an error is to be about this one.
            configured = section_class(config=Config({section: {option: value}}))
        except (TraitError, ValueError) as error:
            refuse(section, option, _brief(error, value))
        else:
            values[option] = getattr(configured, option)
            try:
                check_values(section, {option: values[option]})
            except ClusterError as error:
                refuse(section, option, str(error))
    return values


def _brief(error: Exception, value: object) -> str:
    """Return what traitlets says, without the name of an object that nobody knows of."""
    shown = value.get_value(None) if isinstance(value, LazyConfigValue) else value
    expected = re.search(r"expected (.*?), not ", str(error))
    if expected is None:
        return str(error)
    if not isinstance(shown, DeferredConfigList | DeferredConfigString):
        return f"expected {expected[1]}, not {shown!r}"
    text = ", ".join(shown) if isinstance(shown, DeferredConfigList) else str(shown)
    how = "; give it once for each item, NAME=VALUE, or as a whole, {'NAME': VALUE}"
    return f"expected {expected[1]}, not {text!r}{how if expected[1] == 'a dict' else ''}"


class _PyLoader(PyFileConfigLoader):
    """Looks for other files beside this one, and misses those that are not there."""

    def load_subconfig(self, fname: str, path: str | None = None) -> None:
        directory = Path(self.full_filename).parent if path is None else Path(path)
        file = directory / fname
        file.read_bytes()  # whose errors say more than those of traitlets
        self.config.merge(type(self)(str(file)).load_config())


def _load(path: Path) -> Config:
    path = path.absolute()
    try:
        path.read_bytes()  # as above
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    loader = (JSONFileConfigLoader if path.suffix == ".json" else _PyLoader)(str(path))
    try:
        return loader.load_config()
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ConfigurationError(f"{path}{_line_of(error, path)}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """Return an exception in one line."""
    lines = "".join(traceback.format_exception_only(error)).split("\n")
    if isinstance(error, SyntaxError):  # which shows the line first
        lines = lines[-2:]
    return " ".join(" ".join(lines).split())


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f":{lines[-1]}" if lines else ""


def _place(path: Path, section: str, option: str) -> str:
    """Return the file and, if it can be found, the line in which an option was set last."""
    if path.suffix == ".json":
        searched = re.compile(f'"{re.escape(option or section)}"')
    else:
        searched = re.compile(rf"\b{re.escape(section)}\b.*\b{re.escape(option)}\b")
    lines = path.read_text(errors="replace").splitlines()
    numbers = [
        number
        for number, line in enumerate(lines, 1)
        if not line.lstrip().startswith("#") and searched.search(line)
    ]
    return f"{path}:{numbers[-1]}" if numbers else str(path)
