"""Leaving the command itself in the background, detached from its terminal.

The command forks before it has a thread, a socket or a process: what is left behind has
imported everything already, and shares the terminal until it says that all is well. So errors
of the start appear where they are expected, and the half that waits has the right exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

READY = b"ready\n"


def enter() -> Callable[[Path], None]:
    """Go on in a new process in the background; this one waits and exits.

    Returns
    -------
    callable
        To be called when the start is done, with the log that takes up all further output:
        the process that waits exits with 0. If the new process ends without having called it,
        the waiting one exits with the same status.

    Raises
    ------
    SystemExit
        In the process that has waited.
    KeyboardInterrupt
        In the same, when it is interrupted; the new one was ended then.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writer)
        raise SystemExit(_wait_for(pid, reader))
    os.close(reader)
    os.setsid()

    def leave(log: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        _redirect(log)
        os.write(writer, READY)
        os.close(writer)

    return leave


def _wait_for(pid: int, reader: int) -> int:
    """Return the exit status: 0 once it is ready, or its own."""
    try:
        if os.read(reader, len(READY)):
            return 0
        _, status = os.waitpid(pid, 0)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _redirect(log: Path) -> None:
    """Read nothing from now on, and write to the log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
