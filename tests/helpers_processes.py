"""Which processes were started for a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


def processes_of(profile_dir: Path) -> list[psutil.Process]:
    """Return all others that name this profile in their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(profile_dir) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return [each for each in found if each.pid != os.getpid()]
