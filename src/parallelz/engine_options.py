"""What engines have, how much memory they may use, and whether they are started again.

The same options are given on command lines, by `Cluster`, and by a supervisor to the engines
that it starts; they are read and written here, so that nonsense is refused where it is given.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from parallelz import settings
from parallelz.errors import ClusterError

STOP_MARGIN_S = 3.0
STOP_SHARE = 0.4  # where the margin would leave less

_NAME = re.compile(r"[^\s,=]+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kMGT])(i?))?B?", re.IGNORECASE)
_PREFIXES = "kMGT"


class EngineOptions(NamedTuple):
    """What is the same for all engines of a set."""

    labels: tuple[str, ...] = ()
    resources: dict[str, float] = {}  # noqa: RUF012 - how much each has; nobody changes it
    memory_limit: int = 0  # bytes that each engine may use; 0: no limit
    restart: bool = False  # whether one that died is replaced
    startup_file: str = ""  # Python that each runs first, in its namespace; "": nothing
    startup_code: str = ""  # the same as text, after that
    file_wait_s: float = settings.FILE_WAIT_S  # where the connection file may come late
    stop_grace_s: float = settings.STOP_GRACE_S  # from asking the set to end to using force

    @property
    def engine_grace_s(self) -> float:
        """What an engine gets of `stop_grace_s`; the rest is for those who use force."""
        return max(self.stop_grace_s - STOP_MARGIN_S, STOP_SHARE * self.stop_grace_s)

    def but(
        self,
        *,
        labels: Sequence[str] | str | None = None,
        resources: Mapping[str, float] | str | None = None,
        memory_limit: int | str | None = None,
        restart: bool | None = None,
        startup_file: str | os.PathLike[str] | None = None,
        startup_code: str | None = None,
        file_wait_s: float | None = None,
        stop_grace_s: float | None = None,
    ) -> EngineOptions:
        """Return the same with what is not None instead; texts are as on command lines.

        Raises
        ------
        ClusterError
            If something makes no sense; says what.
        """
        return EngineOptions(
            self.labels if labels is None else to_labels(labels),
            self.resources if resources is None else to_resources(resources),
            self.memory_limit if memory_limit is None else to_size(memory_limit),
            self.restart if restart is None else restart,
            self.startup_file if startup_file is None else os.fspath(startup_file),
            self.startup_code if startup_code is None else to_code(startup_code),
            self.file_wait_s if file_wait_s is None else file_wait_s,
            self.stop_grace_s if stop_grace_s is None else stop_grace_s,
        )

    @property
    def described(self) -> list[str]:
        """The command line options of what is an engine's own business."""
        arguments = []
        if self.labels:
            arguments.append(f"--labels={','.join(self.labels)}")
        if self.resources:
            given = ",".join(f"{name}={amount!r}" for name, amount in self.resources.items())
            arguments.append(f"--resources={given}")
        if self.startup_file:
            arguments.append(f"--startup-file={self.startup_file}")
        if self.startup_code:
            # In one line, whatever carries it there.
            arguments.append(f"--startup-code={json.dumps(self.startup_code)}")
        return arguments

    @property
    def arguments(self) -> list[str]:
        """The command line options of a supervisor."""
        arguments = self.described
        if self.memory_limit:
            arguments.append(f"--memory-limit={self.memory_limit}")
        if self.restart:
            arguments.append("--restart")
        if self.stop_grace_s != settings.STOP_GRACE_S:
            arguments.append(f"--stop-grace-s={self.stop_grace_s:g}")
        return arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a parser understand `EngineOptions.arguments`, for `from_arguments`."""
    parser.add_argument("--labels", help="what the engines are good for")
    parser.add_argument("--resources", help="how much each has of what")
    parser.add_argument("--memory-limit", help="how much memory each may use")
    parser.add_argument("--restart", action="store_true", help="replace those that died")
    parser.add_argument("--startup-file", help="Python to run first, in the namespace")
    parser.add_argument(
        "--startup-code", type=json.loads, help="the same as text, a string of JSON"
    )
    parser.add_argument(
        "--stop-grace-s", type=float, help="from asking all of them to end to using force"
    )


def from_arguments(args: argparse.Namespace) -> EngineOptions:
    """Return what the arguments say of the engines.

    Raises
    ------
    ClusterError
        If something of it makes no sense.
    """
    return EngineOptions().but(
        labels=args.labels,
        resources=args.resources,
        memory_limit=args.memory_limit,
        restart=args.restart,
        startup_file=args.startup_file,
        startup_code=args.startup_code,
        stop_grace_s=args.stop_grace_s,
    )


def to_labels(labels: Sequence[str] | str) -> tuple[str, ...]:
    """Return labels, each once, from a collection or a text such as ``"gpu,fast"``."""
    given = _parts(labels) if isinstance(labels, str) else labels
    for label in given:
        if not isinstance(label, str) or not _NAME.fullmatch(label):
            raise ClusterError(
                f"{label!r} is not a label: give words without space, comma or =,"
                " such as gpu,fast"
            )
    return tuple(dict.fromkeys(map(str.__str__, given)))  # those of numpy, too


def to_resources(resources: Mapping[str, float] | str) -> dict[str, float]:
    """Return amounts by name, from a mapping or a text such as ``"gpu=1,mem=16"``."""
    if isinstance(resources, str):
        pairs = [part.partition("=")[::2] for part in _parts(resources)]
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ClusterError(f"the resource {name!r} is given twice")
        return dict(_resource(name, amount) for name, amount in pairs)
    return dict(_resource(name, amount) for name, amount in resources.items())


def _resource(name: str, given: object) -> tuple[str, float]:
    try:
        amount = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        amount = math.nan
    if not _NAME.fullmatch(name) or not math.isfinite(amount) or amount < 0:
        raise ClusterError(
            f"{name}={given} is not a resource: give a name and a number from 0 on,"
            " such as gpu=1,mem=16"
        )
    return str.__str__(name), amount


def to_code(code: str) -> str:
    """Return Python code, checked as far as that is possible without running it."""
    try:
        compile(code, "<startup>", "exec")
    except SyntaxError as error:
        raise ClusterError(
            f"the startup code is no Python: {error.msg} (line {error.lineno})"
        ) from error
    return code


def to_size(size: int | str) -> int:
    """Return a number of bytes, from one or a text such as ``"500MB"``, ``"2GiB"``."""
    found = _SIZE.fullmatch(str(size).strip())
    count = 0
    if found is not None:
        number, prefix, binary = found.groups(default="")
        power = _PREFIXES.lower().index(prefix.lower()) + 1 if prefix else 0
        count = int(float(number) * (1024 if binary else 1000) ** power)
    if count < 1:
        raise ClusterError(
            f"{size!r} is not a size of memory: give bytes, or a number with a unit,"
            " such as 500MB, 2GB or 2GiB"
        )
    return count


def size_text(count: int) -> str:
    """Return a number of bytes for people.

    >>> size_text(2_147_483_648)
    '2.15 GB'
    """
    power = min(len(str(count)) - 1, 12) // 3
    return f"{count / 1000**power:.3g} {('', *_PREFIXES)[power]}B"


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []
