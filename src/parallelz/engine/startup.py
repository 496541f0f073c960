"""What an engine runs in its namespace before its first task."""

from __future__ import annotations

import linecache
import logging
import traceback
from pathlib import Path

from parallelz.engine.namespace import Main
from parallelz.engine_options import EngineOptions

logger = logging.getLogger(__name__)

CODE_NAME = "<startup>"  # of code that comes from no file, in tracebacks


EXIT_STARTUP = 78  # not one that the code of a task is likely to choose


class StartupFailed(Exception):
    """What was to run first in an engine raised, which was logged."""


def run_startup(main: Main, options: EngineOptions) -> None:
    """Run the file, then the code.

    Raises
    ------
    StartupFailed
        If that fails, after its traceback was logged: the exception itself on the last line.
    """
    try:
        if options.startup_file:
            path = Path(options.startup_file).expanduser()
            _run(main, path.read_text(), str(path))
        if options.startup_code:
            _run(main, options.startup_code, CODE_NAME)
    except (Exception, SystemExit) as error:
        # The first two frames are ours.
        frames = error.__traceback__ and error.__traceback__.tb_next
        frames = (frames and frames.tb_next) or frames
        lines = traceback.format_exception(type(error), error, frames)
        text = "".join(lines).rstrip()
        logger.error("! what was to run at the start of the engine failed\n%s", text)
        raise StartupFailed(text.splitlines()[-1]) from error


def _run(main: Main, code: str, name: str) -> None:
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), main.names)
