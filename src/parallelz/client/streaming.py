"""Shows what tasks print and display while they run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from parallelz.client.callbacks import CallbackThread
from parallelz.client.display import show_bundle
from parallelz.client.ledger import Submission
from parallelz.ids import EngineId
from parallelz.protocol.outputs import Outputs, cut_mark

KINDS = ("stdout", "stderr")


class _Shown:
    """How much of a task was shown."""

    def __init__(self) -> None:
        self.lengths = [0, 0]  # of stdout and stderr
        self.displays_count = 0
        self.run = 0


class OutputStream:
    """Shows the output of tasks from its `with` to its end; it is used once.

    What arrives is written by a thread for callbacks, to `sys.stdout` and `sys.stderr` as they
    are then. At the end all that has arrived is shown.

    Parameters
    ----------
    look
        Lets a result whose tasks are in the database look for them.
    """

    def __init__(
        self,
        places: Sequence[tuple[Submission, int]],
        callbacks: CallbackThread,
        look: Callable[[], object],
        *,
        has_headings: bool,
    ) -> None:
        self._places = places
        self._callbacks = callbacks
        self._look = look
        self._has_headings = has_headings
        self._heading = ""  # of what was written last
        self._is_at_line_start = dict.fromkeys(KINDS, True)
        self._shown = [_Shown() for _ in places]
        self._watchers: list[tuple[Submission, Callable[[int], None]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        numbers = {place: number for number, place in enumerate(self._places)}
        for submission in dict.fromkeys(submission for submission, _ in self._places):
            watcher = partial(self._note, numbers, submission)
            submission.live_watchers = (*submission.live_watchers, watcher)
            self._watchers.append((submission, watcher))
        for number in range(len(self._places)):
            self._show(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for submission, watcher in self._watchers:
            kept = tuple(each for each in submission.live_watchers if each is not watcher)
            submission.live_watchers = kept
        self._look()
        for number in range(len(self._places)):
            self._show(number)

    def _note(
        self, numbers: dict[tuple[Submission, int], int], submission: Submission, index: int
    ) -> None:
        """Take in that there is something new; by the thread that drives."""
        number = numbers.get((submission, index))
        if number is not None:
            self._callbacks.call(partial(self._show, number))

    def _show(self, number: int) -> None:
        submission, index = self._places[number]
        with self._lock:
            answer = submission.answers[index]
            live = None if submission.live is None else submission.live.get(index)
            shown = self._shown[number]
            if answer is not None:
                outputs = answer.ended.outputs or Outputs()
                engine_id = answer.ended.engine_id
                texts = [
                    _rest_of(outputs.stdout, outputs.left_out[0], shown.lengths[0]),
                    _rest_of(outputs.stderr, outputs.left_out[1], shown.lengths[1]),
                ]
                displays = msgspec.msgpack.decode(outputs.displays) if outputs.displays else []
                shown.lengths = [sys.maxsize, sys.maxsize]
            elif live is not None:
                if live.run > shown.run:
                    shown.lengths, shown.displays_count, shown.run = [0, 0], 0, live.run
                engine_id = live.engine_id
                texts = [
                    _last_of(live.stdout, live.lengths[0] - shown.lengths[0]),
                    _last_of(live.stderr, live.lengths[1] - shown.lengths[1]),
                ]
                displays = live.displays
                shown.lengths = list(live.lengths)
            else:
                return
            new = displays[shown.displays_count :]
            shown.displays_count = max(shown.displays_count, len(displays))
            for kind, text in zip(KINDS, texts, strict=True):
                self._write(kind, engine_id, text)
            for display in new:
                self._begin("output", "stdout", engine_id)
                show_bundle(display.get("data", {}), "")

    def _write(self, kind: str, engine_id: EngineId, text: str) -> None:
        if text:
            self._begin(kind, kind, engine_id)
            stream = sys.stderr if kind == "stderr" else sys.stdout
            stream.write(text)
            stream.flush()
            self._is_at_line_start[kind] = text.endswith("\n")

    def _begin(self, kind: str, stream_kind: str, engine_id: EngineId) -> None:
        """Write who shows what comes now, unless that is said already."""
        heading = f"[{kind}:{engine_id}] "
        if not self._has_headings or heading == self._heading:
            return
        stream = sys.stderr if stream_kind == "stderr" else sys.stdout
        break_ = "" if self._is_at_line_start[stream_kind] else "\n"
        stream.write(f"{break_}{heading}\n")
        self._is_at_line_start[stream_kind] = True
        self._heading = heading


def _last_of(text: str, length: int) -> str:
    """Return the last `length` characters, and a word on what is not there any more."""
    if length <= 0:
        return ""
    if length > len(text):
        return cut_mark(length - len(text)) + text
    return text[-length:]


def _rest_of(text: str, left_out: int, shown_length: int) -> str:
    """Return what is behind the first `shown_length` characters of all that was written.

    Parameters
    ----------
    text
        All of it, with a mark in the place of what is left out.
    left_out
        How much that is.
    """
    if not left_out:
        return text[shown_length:]
    if not shown_length:
        return text
    mark = cut_mark(left_out)
    head, _, tail = text.partition(mark)
    return _last_of(tail, len(head) + left_out + len(tail) - shown_length)
