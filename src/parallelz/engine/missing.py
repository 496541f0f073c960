"""What to tell a user whose module an engine cannot find."""

from __future__ import annotations

import importlib.util
import os
import sys


def add_hint(error: BaseException) -> None:
    """Let an error about a module that is not there say where was looked, and what to do."""
    if not isinstance(error, ModuleNotFoundError) or not isinstance(error.name, str):
        return
    name = error.name.partition(".")[0]
    if not name or _is_there(name):
        return  # only a part of it is missing, which may be another version of it
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = "a directory that was deleted"
    error.add_note(
        f"This engine has no module {name!r}: it looks in {directory}, where it works, in"
        f" PYTHONPATH and in what is installed for {sys.executable}. Install it there, or start"
        " the engines where it is. A module of your own can also be sent: call"
        f" cloudpickle.register_pickle_by_value({name}) first, or make a single function"
        " @interactive."
    )


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # of a finder of the user's, or a module without a spec
        return True
