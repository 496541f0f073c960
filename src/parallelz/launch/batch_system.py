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

_PLAIN_PATH = re.compile(r"[\w%+,./:=@^~-]+")
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
    submitted: str
    """Pattern of the line by which that tells the job's id, in its first group."""
    cancel: tuple[str, ...]
    """The command that ends jobs, whose ids are added."""
    passes_signals: Literal["", "supervisor", "all"] = ""
    """Who gets a signal by `signal_command`; "": there is no such command."""
    gone: tuple[str, ...] = ()
    """By what lines of errors tell that a job does not exist any more; (): by nothing."""

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

    def quoted(self, path: str) -> str:
        """Return a path as an option in a script.

        Raises
        ------
        ClusterError
            If it has characters for which systems have no rule.
        """
        if _PLAIN_PATH.fullmatch(path):
            return path
        quote = "'" if '"' in path else '"'
        if quote in path or "\\" in path or not path.isprintable():
            raise ClusterError(
                f"{self.name} cannot be told a path such as {path!r}: use a directory without"
                " quotes, backslashes and control characters"
            )
        return f"{quote}{path}{quote}"

    def job_id(self, output: str) -> str | None:
        """Return the id in what the submission printed; None: there is none."""
        told = [re.fullmatch(self.submitted, line.strip()) for line in output.splitlines()]
        found = [each[1] for each in told if each]
        return found[-1] if found else None

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
        lines = [line for line in errors.splitlines() if line.strip()]
        return bool(lines) and all(any(text in line for text in self.gone) for line in lines)

    def end_commands(self, job_id: str) -> list[list[str]]:
        """Return what tells how a job ended; each is asked if those before do not know."""
        return []

    def end(self, output: str) -> Job | None:
        """Return how it ended, from what one of them printed; None: it does not know."""
        return None

    def why_command(self, job_id: str) -> list[str]:
        """Return what tells more of why a job waits; []: there is nothing."""
        return []

    def why(self, output: str) -> str:
        """Return the reason in what that printed."""
        return output.strip()

    def signal_command(self, job_ids: Sequence[str], signame: str) -> list[str]:
        """Return what sends a signal, such as ``INT``."""
        raise NotImplementedError


def job_in(
    states: Mapping[str, JobState], state: str, why: str = "", exit_code: int | None = None
) -> Job:
    """Return a job that is in a state of a system; of one nobody has heard it has not ended."""
    if state in states:
        return Job(states[state], why, exit_code)
    return Job("waiting", "; ".join(filter(None, (f"in the state {state}", why))))


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
