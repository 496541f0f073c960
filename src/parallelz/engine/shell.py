"""IPython on the engine, for code that comes as text. Imported by the first `execute` only."""

from __future__ import annotations

import linecache
import warnings
from pathlib import Path
from typing import Any, NoReturn

import IPython
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from parallelz.engine.namespace import Main
from parallelz.engine.output import output

CELLS_COUNT_MAX = 1000  # whose text is kept

IPYTHON_FILES = str(Path(IPython.__file__).parent)


class TaskDisplayPublisher(DisplayPublisher):
    """Hands what is displayed to the task that runs."""

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: Any = None,  # noqa: ANN401 - IPython's signature
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Keep a mime bundle."""
        output.add_display({"data": data, "metadata": metadata or {}})

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's signature
        """Forget what the task has displayed."""
        output.clear_displays()


class TaskDisplayHook(DisplayHook):
    """Hands the value of the last expression to the task that runs."""

    def write_output_prompt(self) -> None:
        """Show no prompt: the client does."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:  # noqa: ANN401 - IPython's signature
        """Keep the formatted value."""
        output.execute_result = {
            "data": format_dict,
            "metadata": md_dict or {},
            "execution_count": self.prompt_count,
        }

    def finish_displayhook(self) -> None:
        """Write nothing."""


class Forgetful(dict[int, Any]):
    """Keeps nothing.

    IPython remembers all that every cell has ever printed, shown and raised; an engine may
    live for weeks, and the client has it.
    """

    def __missing__(self, key: int) -> list[object]:
        return []

    def __setitem__(self, key: int, value: Any) -> None:  # noqa: ANN401 - whatever it is
        pass


class RecentCells(CachingCompiler):
    """Keeps the lines of the last cells only, for tracebacks."""

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Name a cell and keep its lines."""
        name = super().cache(transformed_code, number, raw_code)
        self._filename_map[name] = self._filename_map.pop(name)  # last, also if it was there
        if len(self._filename_map) > CELLS_COUNT_MAX:
            oldest = next(iter(self._filename_map))
            del self._filename_map[oldest]
            linecache.cache.pop(oldest, None)
        return name


class EngineShell(InteractiveShell):
    """A shell whose errors are raised where it was called, not printed."""

    compiler_class = RecentCells

    displayhook_class = TaskDisplayHook
    display_pub_class = TaskDisplayPublisher

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - IPython's signature
        """Print nothing."""

    def ask_exit(self) -> NoReturn:
        """End the cell, as SystemExit does anywhere in a task; the engine lives on."""
        raise SystemExit

    def forget(self) -> None:
        """Let go of what earlier cells showed and raised."""
        self.displayhook.flush()  # type: ignore[no-untyped-call]
        if self.history_manager is not None:
            self.history_manager.reset(new_session=False)

    def forget_old_inputs(self) -> None:
        """Let go of the text of all but the last cells."""
        history = self.history_manager
        if history is not None:
            history.db_input_cache.clear()  # it waits for a file that is never written
            old = len(history.input_hist_parsed) - CELLS_COUNT_MAX
            if old > 0:
                history.input_hist_parsed[old - 1] = history.input_hist_raw[old - 1] = ""
                self.user_ns.pop(f"_i{old - 1}", None)

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - IPython's signature
        """Print nothing."""


def make_shell(main: Main) -> EngineShell:
    """Return a shell that works in the engine's namespace and writes no files."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell: EngineShell = EngineShell.instance(
        config=config, user_module=main.module, user_ns=main.names
    )
    if shell.history_manager is not None:
        shell.history_manager.outputs = Forgetful()
        shell.history_manager.exceptions = Forgetful()
    main.before_clear.append(shell.forget)
    # IPython's advice on SystemExit is for people at a prompt.
    warnings.filterwarnings("ignore", "To exit: use 'exit', 'quit', or Ctrl-D", UserWarning)
    return shell


def run(shell: EngineShell, code: str, *, silent: bool = False) -> None:
    """Run a cell, a `silent` one without keeping its value; raise what it raised."""
    if "_oh" not in shell.user_ns:  # since the namespace was cleared
        shell.init_user_ns()  # type: ignore[no-untyped-call]
    result = shell.run_cell(code, store_history=not silent, silent=silent)  # type: ignore[no-untyped-call]
    shell.forget_old_inputs()
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        raise error
