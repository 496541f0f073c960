"""Shows what tasks printed and displayed: rich where IPython runs, as text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from parallelz.client.outcomes import Metadata

GroupBy = Literal["type", "engine", "order"]


def show_outputs(tasks: Sequence[Metadata], groupby: GroupBy, *, result_only: bool) -> None:
    """Show the outputs of tasks, each kind or each engine's below a heading of its own."""
    if groupby not in ("type", "engine", "order"):
        raise ValueError(f"groupby must be 'type', 'engine' or 'order', not {groupby!r}")
    has_headings = len(tasks) > 1
    if groupby == "type" and not result_only:
        for kind in ("stdout", "stderr"):
            for task in tasks:
                _show_stream(task, kind, has_headings)
        for task in tasks:
            _show_displays(task, has_headings)
    elif not result_only:
        for task in tasks:
            _show_stream(task, "stdout", has_headings)
            _show_stream(task, "stderr", has_headings)
            _show_displays(task, has_headings)
    for task in tasks:
        result = task["execute_result"]
        if isinstance(result, dict):
            count = result.get("execution_count", "")
            show_bundle(result.get("data", {}), f"Out[{task['engine_id']}:{count}]: ")


def _show_stream(task: Metadata, kind: str, has_headings: bool) -> None:  # noqa: FBT001
    text = str(task[kind] or "")
    if text:
        stream = sys.stderr if kind == "stderr" else sys.stdout
        heading = f"[{kind}:{task['engine_id']}] " if has_headings else ""
        stream.write(heading + text + ("" if text.endswith("\n") else "\n"))


def _show_displays(task: Metadata, has_headings: bool) -> None:  # noqa: FBT001
    displays = task["outputs"]
    assert isinstance(displays, Iterable)
    for display in displays:
        heading = f"[output:{task['engine_id']}] " if has_headings else ""
        show_bundle(display.get("data", {}), heading)


def show_bundle(bundle: dict[str, object], heading: str) -> None:
    """Show something rich, below its heading in IPython, behind it elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import display

        if heading:
            sys.stdout.write(heading.rstrip() + "\n")
        display(bundle, raw=True)  # type: ignore[no-untyped-call]
        return
    sys.stdout.write(f"{heading}{bundle.get('text/plain', '')}\n")
