"""What all batch systems have in common: how they are spoken to, and what they answer.

A `BatchSystem` builds command lines and reads what commands have printed; it does no I/O.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from parallelz.errors import ClusterError

JobState = Literal["waiting", "running", "ended"]

_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d{2})")


class Job(NamedTuple):
    """What is known of a job."""

    state: JobState
    why: str = ""  # it waits, or has ended; "": not told
    exit_code: int | None = None  # None: not told


class Request(NamedTuple):
    """What a job is to have; 0 or "": as the system's own defaults say."""

    name: str
    log: str  # for what it prints
    cores: int
    walltime_s: int = 0
    memory_mb: int = 0
    queue: str = ""
    account: str = ""
    parallel_environment: str = ""  # of Grid Engine


class BatchSystem(ABC):
    """One batch system. Commands are given as argument vectors."""

    name: str
    submit: tuple[str, ...]
    """The command that submits a job."""
    reads_stdin = False
    """Whether it takes the script from its standard input; else its path is added."""
    passes_signals: Literal["", "supervisor", "all"] = ""
    """Who gets a signal by `signal_command`; "": there is no such command."""

    @abstractmethod
    def directives(self, request: Request) -> list[str]:
        """Return the lines by which a script asks for what it needs.

        Raises
        ------
        ClusterError
            If the system has no such thing.
        """

    def script(self, directives: Sequence[str], body: str) -> str:
        """Return a whole script, from directives and the commands of a shell."""
        return "\n".join(["#!/bin/sh", *directives, body, ""])

    @abstractmethod
    def job_id(self, output: str) -> str | None:
        """Return the id in what the submission printed; None: there is none."""

    def advice(self, refusal: str) -> str:
        """Return what to do about a job that was refused for this; "": nobody knows."""
        return ""

    @abstractmethod
    def status_command(self, job_ids: Sequence[str], user: str) -> list[str]:
        """Return what asks for the states of jobs."""

    @abstractmethod
    def states(self, output: str) -> dict[str, Job]:
        """Return the states in what that printed. A job that is not there is unknown.

        Raises
        ------
        ValueError, KeyError
            If it is not what the system prints.
        """

    def knows_none(self, errors: str) -> bool:
        """Whether the status command failed only since jobs do not exist any more."""
        return False

    def end_command(self, job_id: str) -> list[str]:
        """Return what tells how a job ended; []: there is nothing."""
        return []

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what that printed; None: it has not, or is not known."""
        return None

    def why_command(self, job_id: str) -> list[str]:
        """Return what tells more of why a job waits; []: there is nothing."""
        return []

    def why(self, output: str) -> str:
        """Return the reason in what that printed."""
        return output.strip()

    @abstractmethod
    def cancel_command(self, job_ids: Sequence[str]) -> list[str]:
        """Return what ends jobs."""

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``."""
        raise NotImplementedError


def to_walltime_s(given: str | int) -> int:
    """Return seconds, from a number of them or a text such as ``"1-12:00:00"``, ``"30:00"``.

    Raises
    ------
    ClusterError
        If it is neither.
    """
    text = str(given).strip()
    if not text:
        return 0
    if text.isdecimal():
        return int(text)
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ClusterError(
            f"{given!r} is not a walltime: give seconds, or hours:minutes:seconds"
            " such as 12:00:00"
        )
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def clock(walltime_s: int) -> str:
    """Return a time as batch systems write it.

    >>> clock(90061)
    '25:01:01'
    """
    return f"{walltime_s // 3600}:{walltime_s // 60 % 60:02}:{walltime_s % 60:02}"


def attributes(text: str) -> Mapping[str, str]:
    """Return the pairs in lines such as ``name = value``; a later one counts."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
