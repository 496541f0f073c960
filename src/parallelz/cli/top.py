"""``ipclusterz top``: watch a cluster.

Terminals are driven by curses of the standard library, which knows their kinds, their size and
how to leave them as they were. Where there is none, or one that cannot move its cursor, texts
follow each other.
"""

from __future__ import annotations

import argparse
import contextlib
import curses
import json
import locale
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import msgspec
import psutil

from parallelz import settings
from parallelz.cli import common
from parallelz.cli.top_screen import ENGINE_TITLE, Moment, Usage, lines_of, rates_of
from parallelz.client.client import Client
from parallelz.client.onlooker import Onlooker
from parallelz.errors import ClusterError
from parallelz.ids import EngineId
from parallelz.launch import cluster_file
from parallelz.protocol.answers import Overview
from parallelz.protocol.texts import span_text
from parallelz.transport.sockets import host_id

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 0.5  # so that keys are heard while the controller is away
FIRST_PERIOD_S = 0.5  # rates are shown soon
QUIT_KEYS = {ord("q"), ord("Q")}
NO_USAGE = Usage(None, None)


class ClusterEnded(ClusterError):
    """There is nothing to be seen any more."""


class Meter:
    """Measures what engines of this host use."""

    def __init__(self) -> None:
        self._host_id = host_id()
        self._processes: dict[int, psutil.Process] = {}

    def measure(self, overview: Overview) -> dict[EngineId, Usage]:
        """Return what each engine of this host uses that is still there."""
        local = [each for each in overview.engines if each.host_id == self._host_id]
        before = self._processes
        self._processes = {}
        found = {}
        for each in local:
            with contextlib.suppress(psutil.Error):
                known = before.get(each.pid)
                process = known or psutil.Process(each.pid)
                # The first call has nothing to compare with, and returns 0.
                cpu = process.cpu_percent()
                memory = process.memory_info().rss
                found[each.engine_id] = Usage(None if known is None else cpu, memory)
                self._processes[each.pid] = process
        return found


class Watch:
    """Keeps the last two moments of a cluster.

    Parameters
    ----------
    client
        A client of it.
    path
        Its cluster file, which says whether it is there while nobody answers.
    """

    def __init__(self, client: Client, path: Path) -> None:
        self._onlooker = Onlooker(client)
        self._path = path
        self._meter = Meter()
        self.before: Moment | None = None
        self.now: Moment | None = None
        self.silent_since_s: float | None = None  # not None: the controller is away

    def look(self) -> None:
        """Take in how the cluster is now.

        Raises
        ------
        ClusterEnded
            If it has ended.
        """
        asked_s = time.monotonic()
        try:
            # Who waits is warned of a controller that is away; here that is seen.
            with warnings.catch_warnings(action="ignore"):
                overview = self._onlooker.look(ANSWER_TIMEOUT_S)
        except ClusterError as error:
            raise ClusterEnded(f"the cluster has ended: {error}") from error
        if overview is not None:
            self.silent_since_s = None
            usage = self._meter.measure(overview)
            self.before, self.now = self.now, Moment(time.monotonic(), overview, usage)
            return
        if self.silent_since_s is None:
            self.silent_since_s = asked_s
        facts = cluster_file.read(self._path)
        if facts is None or not facts.is_running:
            raise ClusterEnded("the cluster has ended: its processes are gone")

    def text(self, height: int | None = None) -> list[str]:
        """Return what is to be shown, in no more than so many lines."""
        lines = []
        if self.silent_since_s is not None:
            away = span_text(time.monotonic() - self.silent_since_s)
            lines.append(f"waiting for the controller, which has not answered for {away}")
        if self.now is not None:
            room = None if height is None else max(height - len(lines), 0)
            lines += lines_of(self.before, self.now, room)
        return lines


def top(args: argparse.Namespace) -> int:
    """Show what a cluster does, until told to end or the cluster ends."""
    directory = common.chosen_profile_dir(args)
    path = settings.cluster_file(directory, args.cluster_id)
    facts = cluster_file.read(path)
    if facts is None or not facts.is_running:
        print(f"ipclusterz: {cluster_file.no_cluster(path)}", file=sys.stderr)
        return common.ALREADY_STOPPED
    common.end_on_signals()
    logging.getLogger("parallelz").addHandler(logging.NullHandler())  # not onto the screen
    file = settings.connection_file(directory, args.cluster_id, "client")
    with Client(str(file), timeout=CONNECT_TIMEOUT_S) as client:
        watch = Watch(client, path)
        if args.once or args.output == "json":
            _show_once(watch, args)
            return common.DONE
        try:
            (_show_on_screen if _has_screen() else _show_as_texts)(watch, args.refresh)
        except ClusterEnded as error:
            print(error, flush=True)
        except KeyboardInterrupt:
            pass  # the usual way to end it
    return common.DONE


def _show_once(watch: Watch, args: argparse.Namespace) -> None:
    watch.look()
    time.sleep(min(args.refresh, FIRST_PERIOD_S))  # what is measured is what goes on meanwhile
    watch.look()
    if watch.now is None:
        raise TimeoutError(f"the controller does not answer within {2 * ANSWER_TIMEOUT_S:g} s")
    if args.output == "json":
        print(json.dumps(_as_dict(watch.before, watch.now), indent=1))
    else:
        print("\n".join(watch.text()))


def _as_dict(before: Moment | None, now: Moment) -> dict[str, object]:
    rates = rates_of(before, now)
    engines = [
        {
            **msgspec.to_builtins(each),
            "tasks_per_s": rates.by_engine.get(each.engine_id),
            **(now.usage.get(each.engine_id) or NO_USAGE)._asdict(),
        }
        for each in now.overview.engines
    ]
    overview = msgspec.to_builtins(now.overview)
    return {**overview, "tasks_per_s": rates.tasks, "engines": engines}


def _show_as_texts(watch: Watch, period_s: float) -> None:
    while True:
        watch.look()
        print("\n".join(watch.text()), end="\n\n", flush=True)
        time.sleep(period_s if watch.before else min(period_s, FIRST_PERIOD_S))


def _has_screen() -> bool:
    """Return whether there is a terminal whose cursor can be moved."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        curses.setupterm()
    except curses.error:
        return False
    return bool(curses.tigetstr("cup"))


def _show_on_screen(watch: Watch, period_s: float) -> None:
    locale.setlocale(locale.LC_ALL, "")  # curses encodes by it
    curses.wrapper(_draw_until_quit, watch, period_s)


def _draw_until_quit(screen: curses.window, watch: Watch, period_s: float) -> None:
    curses.use_default_colors()
    with contextlib.suppress(curses.error):  # a terminal may not be able to
        curses.curs_set(0)
    due_s = 0.0
    key = -1
    while key not in QUIT_KEYS:
        now_s = time.monotonic()
        if now_s >= due_s:
            watch.look()
            due_s = now_s + (period_s if watch.before else min(period_s, FIRST_PERIOD_S))
        _draw(screen, watch)
        screen.timeout(max(round(1000 * (due_s - time.monotonic())), 0))
        key = screen.getch()  # also returns when the size has changed


def _draw(screen: curses.window, watch: Watch) -> None:
    # Curses learns a new size by a signal, which may come when it does not look.
    size = os.get_terminal_size(sys.stdout.fileno())
    if all(size) and curses.is_term_resized(size.lines, size.columns):
        curses.resizeterm(size.lines, size.columns)
    height, _ = screen.getmaxyx()
    screen.erase()
    for row, line in enumerate(watch.text(height)):
        style = curses.A_REVERSE if line.startswith(ENGINE_TITLE) else curses.A_NORMAL
        screen.insstr(row, 0, line, style)  # what is too long is cut, not wrapped
    screen.refresh()
