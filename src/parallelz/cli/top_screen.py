"""What ``ipclusterz top`` shows: two moments of a cluster as lines of text.

The second moment is shown; what went on per second is worked out from the first. Nothing here
asks anybody, so what is shown hangs only on what is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from parallelz.engine_options import size_text
from parallelz.ids import EngineId
from parallelz.protocol.answers import EngineLoad, Overview, Queue
from parallelz.protocol.texts import span_text

ENGINE_TITLE = "ENGINE"
TITLES = {  # of columns, and how they are aligned
    ENGINE_TITLE: ">",
    "HOST": "<",
    "PID": ">",
    "STATE": "<",
    "CPU%": ">",
    "MEMORY": ">",
    "AHEAD": ">",
    "DIRECT": ">",
    "ENDED": ">",
    "TASKS/S": ">",
    "FOR": ">",
    "RUNS": "<",
}
PART_LINES_MAX = 5  # of queues and of failures, if the height is limited
RAN = ("ok", "error")  # how a task ends that an engine has run to its end
UNKNOWN = "-"


class Usage(NamedTuple):
    """What an engine's process uses."""

    cpu_percent: float | None  # of one core, since the moment before; None: there was none
    memory_bytes: int | None


class Moment(NamedTuple):
    """A cluster at one time."""

    at_s: float
    overview: Overview
    usage: Mapping[EngineId, Usage]  # of engines on this host


class Rates(NamedTuple):
    """What went on per second; None if nobody can tell, as the controller is another one."""

    tasks: float | None
    by_engine: Mapping[EngineId, float]


def rates_of(before: Moment | None, now: Moment) -> Rates:
    """Return how many tasks per second have ended between two moments."""
    if (
        before is None
        or before.at_s >= now.at_s
        or before.overview.controller_pid != now.overview.controller_pid
    ):
        return Rates(None, {})
    span_s = now.at_s - before.at_s
    ended_before = {each.engine_id: each.ended_count for each in before.overview.engines}
    return Rates(
        (_ran(now.overview) - _ran(before.overview)) / span_s,
        {
            each.engine_id: (each.ended_count - ended_before[each.engine_id]) / span_s
            for each in now.overview.engines
            if each.engine_id in ended_before
        },
    )


def lines_of(before: Moment | None, now: Moment, height: int | None = None) -> list[str]:
    """Return what there is to see.

    Parameters
    ----------
    before
        An earlier moment; None: there was none.
    height
        How many lines there may be; None: as many as it takes.
    """
    overview, rates = now.overview, rates_of(before, now)
    part = None if height is None else PART_LINES_MAX
    queues = _part("WAITING", [_queue_line(each) for each in overview.queues], part)
    failures = _part("LATEST ERRORS", _failure_lines(overview), part)
    head = _head(overview, rates)
    room = None
    if height is not None:
        room = max(height - len(head) - len(queues) - len(failures) - 1, 1)
    engines = _engine_lines(now, rates, room)
    lines = [*head, "", *engines, *queues, *failures]
    return [_printable(line) for line in (lines if height is None else lines[:height])]


def _head(overview: Overview, rates: Rates) -> list[str]:
    states = [each.state for each in overview.engines]
    engines = _listed(f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states)))
    placed_count = sum(each.placed_count for each in overview.engines)
    runs_count = sum(bool(each.task) for each in overview.engines)
    ended = _listed(f"{count:,} {how}" for how, count in overview.ended_counts.items())
    rate = UNKNOWN if rates.tasks is None else _rate(rates.tasks)
    lines = [
        f"{len(states)} engines{f': {engines}' if engines else ''}",
        f"{rate} tasks/s: {runs_count:,} run, {placed_count - runs_count:,} placed ahead,"
        f" {overview.ready_count:,} ready, {overview.waiting_count:,} wait for others",
        f"ended since the controller {overview.controller_pid} was started: {ended or 'none'}",
    ]
    if overview.trouble:
        lines.append(f"the history is not written: {overview.trouble}")
    return lines


def _engine_lines(now: Moment, rates: Rates, room: int | None) -> list[str]:
    engines = now.overview.engines
    hidden_count = 0
    if room is not None and len(engines) > room - 1:
        kept = sorted(engines, key=lambda each: (each.state == "idle", each.engine_id))
        kept = kept[: max(room - 2, 0)]
        hidden_count = len(engines) - len(kept)
        engines = sorted(kept, key=lambda each: each.engine_id)
    rows = [_engine_row(each, now, rates) for each in engines]
    lines = _table(TITLES, rows)
    return [*lines, f"... and {hidden_count} more"] if hidden_count else lines


def _engine_row(each: EngineLoad, now: Moment, rates: Rates) -> list[str]:
    usage, rate = now.usage.get(each.engine_id), rates.by_engine.get(each.engine_id)
    cpu, memory = usage or (None, None)
    return [
        str(each.engine_id),
        each.host,
        str(each.pid),
        each.state,
        UNKNOWN if cpu is None else f"{cpu:.0f}",
        UNKNOWN if memory is None else size_text(memory),
        str(max(each.placed_count - 1, 0)),
        str(each.direct_count),
        f"{each.ended_count:,}",
        UNKNOWN if rate is None else _rate(rate),
        span_text(each.for_s) if each.task else "",
        " ".join(filter(None, (each.function, each.task))),
    ]


def _queue_line(queue: Queue) -> str:
    engine = f"an engine that {queue.needs}" if queue.needs else "any engine"
    who = queue.client or f"{queue.session_id}, who is away"
    return f"  {queue.count:,} for {engine}, of {who}"


def _failure_lines(overview: Overview) -> list[str]:
    lines = []
    for each in overview.failures:
        where = "" if each.engine_id is None else f" on engine {each.engine_id}"
        cause = " ".join(each.cause.split())
        lines.append(f"  {span_text(each.ago_s)} ago, {each.task}{where}: {cause}")
    return lines


def _part(title: str, lines: Sequence[str], count_max: int | None) -> list[str]:
    return ["", title, *lines[:count_max]] if lines else []


def _table(titles: Mapping[str, str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{align}{width}}"
            for cell, align, width in zip(row, titles.values(), widths, strict=True)
        ).rstrip()
        for row in [titles, *rows]
    ]


def _ran(overview: Overview) -> int:
    return sum(overview.ended_counts.get(how, 0) for how in RAN)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


def _printable(line: str) -> str:
    """Return a line that no label or message of a user can move the cursor with."""
    return "".join(c if c.isprintable() else "?" for c in line)
