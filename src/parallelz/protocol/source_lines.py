"""Source lines travel with functions, so that tracebacks elsewhere can show them.

Only this touches files in `protocol`, through `linecache`.
"""

from __future__ import annotations

import linecache
from types import CodeType, FunctionType


def source_of(function: FunctionType) -> tuple[str, int, str]:
    """Return where a function was written: file name, number of the first line, the lines."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    first = code.co_firstlineno
    return (code.co_filename, first, "".join(lines[first - 1 : _last_line(code)]))


def _last_line(code: CodeType) -> int:
    last = max((line for _, _, line in code.co_lines() if line is not None), default=0)
    inner = [_last_line(const) for const in code.co_consts if isinstance(const, CodeType)]
    return max([last, *inner])


def show_source(filename: str, first: int, text: str) -> None:
    """Let tracebacks show these lines, whatever file of that name there is here."""
    if not text:
        return
    lines = list(linecache.getlines(filename))
    new = text.splitlines(keepends=True)
    lines += ["\n"] * (first - 1 + len(new) - len(lines))
    lines[first - 1 : first - 1 + len(new)] = new
    # No time of modification: `linecache.checkcache` leaves such entries alone.
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)
