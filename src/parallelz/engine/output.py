"""What tasks print, display and publish, caught and handed back with their results.

While a task runs for longer, what it has shown since the last look can be taken by another
thread (`TaskOutput.take_live`). All of it stays here for the result.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import msgspec

from parallelz.ids import TaskId
from parallelz.protocol import payload
from parallelz.protocol.messages import LiveOutput
from parallelz.protocol.outputs import Outputs, Published, cut_mark
from parallelz.protocol.shared import view_of
from parallelz.protocol.texts import sendable_text

STREAM_LENGTH_MAX = 1024 * 1024  # characters of one stream of one task: half head, half tail
LIVE_LENGTH_MAX = 64 * 1024  # characters of one stream that are shown at once while it runs
DISPLAYS_COUNT_MAX = 1000
PUBLISHED_BYTES_MAX = 1024 * 1024  # by one task


class TaskStream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`: text goes to the task that runs, else to a log.

    Parameters
    ----------
    log
        Takes what is written while no task runs.
    lock
        Held while something is taken out or put in.
    on_news
        Called, under the lock, after something was written.
    """

    def __init__(
        self,
        log: TextIO,
        lock: threading.RLock | None = None,
        on_news: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._log = log
        self._lock = threading.RLock() if lock is None else lock
        self._on_news = on_news
        self._live: list[str] = []  # not taken by `take_live`
        self._live_length = self._live_cut_length = 0
        self.length = 0  # of all that this task has written
        self._head: list[str] = []
        self._head_length = 0
        self._tail: deque[str] = deque()
        self._tail_length = 0
        self._cut_length = 0
        self.is_catching = False
        self.is_used = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the log."""
        return self._log.encoding

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the log's descriptor, for programs that a task starts."""
        return self._log.fileno()

    @property
    def buffer(self) -> io.BufferedIOBase:
        """A way in for bytes in UTF-8."""
        return _BytesStream(self)

    def flush(self) -> None:
        """Do nothing: text is handed back with the result."""
        if not self.is_catching and not self._log.closed:
            self._log.flush()

    def write(self, text: str) -> int:
        """Take text, whichever thread writes it."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not self.is_catching:
            return self._log.write(text)
        with self._lock:
            self.is_used = True
            self.length += len(text)
            live_room = LIVE_LENGTH_MAX - self._live_length
            if live_room > 0:
                self._live.append(text[:live_room])
                self._live_length += len(self._live[-1])
            self._live_cut_length += max(len(text) - max(live_room, 0), 0)
            self._on_news()
            room = STREAM_LENGTH_MAX // 2 - self._head_length
            if room > 0:
                self._head.append(text[:room])
                self._head_length += len(self._head[-1])
            if len(text) > room:
                self._write_tail(text[room:] if room > 0 else text)
        return len(text)

    def _write_tail(self, text: str) -> None:
        self._tail.append(text)
        self._tail_length += len(text)
        surplus = self._tail_length - STREAM_LENGTH_MAX // 2
        while surplus >= len(self._tail[0]):
            surplus -= self._drop(self._tail.popleft())
        if surplus > len(self._tail[0]) // 2:  # not for each short line that is one too many
            rest = self._tail[0][surplus:]
            self._drop(self._tail.popleft()[:surplus])
            self._tail.appendleft(rest)

    def _drop(self, text: str) -> int:
        self._tail_length -= len(text)
        self._cut_length += len(text)
        return len(text)

    def take_live(self) -> str:
        """Return what the task wrote since the last call; of very much only the beginning."""
        with self._lock:
            text = "".join(self._live)
            if self._live_cut_length:
                text += f"\n... {self._live_cut_length} characters are shown later ...\n"
            self._live.clear()
            self._live_length = self._live_cut_length = 0
        return text

    def take(self) -> tuple[str, int]:
        """Return what the task wrote, and how much is left out of it; and begin anew."""
        with self._lock:
            cut_length = self._cut_length
            middle = cut_mark(cut_length) if cut_length else ""
            text = "".join(self._head) + middle + "".join(self._tail)
            self._head.clear()
            self._tail.clear()
            self._head_length = self._tail_length = self._cut_length = self.length = 0
            self._live.clear()
            self._live_length = self._live_cut_length = 0
            self.is_used = False
        return text, cut_length


class _BytesStream(io.BufferedIOBase):
    def __init__(self, stream: TaskStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


def _encode_shown(item: dict[str, object]) -> msgspec.Raw:
    """Return something displayed as msgpack; instead of what cannot be sent, a word on it."""
    try:
        return msgspec.Raw(msgspec.msgpack.encode(item, enc_hook=repr))
    except Exception as error:  # noqa: BLE001 - holds the user's objects, of any kind
        text = sendable_text(f"<a display that cannot be sent: {error}>")
        return msgspec.Raw(
            msgspec.msgpack.encode({"data": {"text/plain": text}, "metadata": {}})
        )


class TaskOutput:
    """Everything that the running task shows.

    Installed once for the process; `begin` and `end` are called around each task, by the thread
    that runs it. Others may write at any time.

    Attributes
    ----------
    on_news
        Called, in whatever thread, when the task has shown something after a `take_live`.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.stdout = TaskStream(sys.stdout, self._lock, self._note_news)
        self.stderr = TaskStream(sys.stderr, self._lock, self._note_news)
        self.displays: list[dict[str, object]] = []
        self.execute_result: dict[str, object] | None = None
        self.on_news: Callable[[], object] = lambda: None
        self._task: tuple[TaskId, int] | None = None  # that runs, and its run
        self._has_news = False
        self._displays_cut = 0
        self._displays_shown = 0  # by `take_live`
        self._published: list[Published] = []
        self._published_bytes = 0
        self._published_shown = 0

    def install(self) -> None:
        """Put the streams in the place of Python's own."""
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def begin(self, task_id: TaskId, run: int) -> None:
        """Catch from now on, for this task."""
        with self._lock:
            self._task = (task_id, run)
            self.stdout.is_catching = self.stderr.is_catching = True

    def _note_news(self) -> None:
        if not self._has_news and self._task is not None:
            self._has_news = True
            self.on_news()

    def add_display(self, item: dict[str, object]) -> None:
        """Keep something displayed; the first `DISPLAYS_COUNT_MAX` of a task."""
        with self._lock:
            if len(self.displays) < DISPLAYS_COUNT_MAX:
                self.displays.append(item)
                self._note_news()
            else:
                self._displays_cut += 1

    def clear_displays(self) -> None:
        """Forget what was displayed."""
        with self._lock:
            self.displays.clear()
            self._displays_shown = 0

    def publish(self, data: Mapping[str, object]) -> None:
        """See `publish_data`."""
        data_part, buffers = payload.dump(dict(data))
        published = Published(data_part, [bytes(view_of(buffer)) for buffer in buffers])
        size = len(data_part) + sum(map(len, published.frames))
        with self._lock:
            if self._task is None:
                raise RuntimeError("publish_data is for tasks: none runs here")
            if self._published_bytes + size > PUBLISHED_BYTES_MAX:
                raise ValueError(
                    f"a task may publish {PUBLISHED_BYTES_MAX // 1024} kB in all; return what"
                    " is larger"
                )
            self._published_bytes += size
            self._published.append(published)
            self._note_news()

    def take_live(self) -> LiveOutput | None:
        """Return what the running task has shown since the last call; None: nothing."""
        with self._lock:
            if self._task is None or not self._has_news:
                return None
            self._has_news = False
            displays = self.displays[self._displays_shown :]
            data = self._published[self._published_shown :]
            self._displays_shown = len(self.displays)
            self._published_shown = len(self._published)
            return LiveOutput(
                *self._task,
                sendable_text(self.stdout.take_live()),
                sendable_text(self.stderr.take_live()),
                (self.stdout.length, self.stderr.length),
                _encode_displays(displays),
                data,
            )

    def end(self) -> Outputs | None:
        """Stop catching; return what there was, None if nothing."""
        stdout, stderr = self.stdout, self.stderr
        with self._lock:
            self._task = None
            self._has_news = False
            stdout.is_catching = stderr.is_catching = False
            if not (
                stdout.is_used
                or stderr.is_used
                or self.displays
                or self.execute_result
                or self._published
            ):
                return None
            if self._displays_cut:
                text = f"... {self._displays_cut} more displays ..."
                self.displays.append({"data": {"text/plain": text}, "metadata": {}})
            displays, self.displays = self.displays, []
            published, self._published = self._published, []
            self._displays_cut = self._displays_shown = 0
            self._published_shown = self._published_bytes = 0
            result, self.execute_result = self.execute_result, None
            out, out_cut = stdout.take()
            err, err_cut = stderr.take()
        return Outputs(
            sendable_text(out),
            sendable_text(err),
            _encode_displays(displays),
            bytes(_encode_shown(result)) if result else b"",
            published,
            (out_cut, err_cut),
        )


def _encode_displays(displays: list[dict[str, object]]) -> bytes:
    return msgspec.msgpack.encode(list(map(_encode_shown, displays))) if displays else b""


output = TaskOutput()
"""The one of this process."""


def publish_data(data: Mapping[str, object]) -> None:
    """Let the client know something while the task goes on: it is in ``ar.data`` there.

    Parameters
    ----------
    data
        By name; later values take the place of earlier ones.

    Raises
    ------
    SerializationError
        If it cannot be pickled.
    ValueError
        If the task has published more than 1 MiB in all.
    RuntimeError
        If it is not called by a task on an engine.
    """
    output.publish(data)
