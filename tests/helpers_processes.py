"""Which processes were started for a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def words_of(process: psutil.Process) -> list[str]:
    """Return its command line: empty if it is hidden, or has ended, as it may at any moment."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def processes_of(profile_dir: Path) -> list[psutil.Process]:
    """Return all others that name this profile in their command lines."""
    processes = (each for each in psutil.process_iter() if each.pid != os.getpid())
    return [each for each in processes if str(profile_dir) in " ".join(words_of(each))]
