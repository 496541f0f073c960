"""What tasks print and display, caught and handed back with their results."""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from typing import Any, TextIO

import msgspec

from parallelz.protocol.messages import Outputs

STREAM_LENGTH_MAX = 1024 * 1024  # characters of one stream of one task: half head, half tail
DISPLAYS_COUNT_MAX = 1000


class TaskStream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`: text goes to the task that runs, else to a log.

    Parameters
    ----------
    log
        Takes what is written while no task runs.
    """

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._log = log
        self._lock = threading.Lock()
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

    def take(self) -> str:
        """Return what the task wrote, and begin anew."""
        with self._lock:
            middle = f"\n... {self._cut_length} characters ...\n" if self._cut_length else ""
            text = "".join(self._head) + middle + "".join(self._tail)
            self._head.clear()
            self._tail.clear()
            self._head_length = self._tail_length = self._cut_length = 0
            self.is_used = False
        return text


class _BytesStream(io.BufferedIOBase):
    def __init__(self, stream: TaskStream) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)


def sendable_text(text: str) -> str:
    """Return text without lone surrogates, of which no UTF-8 can be made."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


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

    Installed once for the process; `begin` and `end` are called around each task.
    """

    def __init__(self) -> None:
        self.stdout = TaskStream(sys.stdout)
        self.stderr = TaskStream(sys.stderr)
        self.displays: list[dict[str, object]] = []
        self.execute_result: dict[str, object] | None = None
        self._displays_cut = 0

    def install(self) -> None:
        """Put the streams in the place of Python's own."""
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def begin(self) -> None:
        """Catch from now on."""
        self.stdout.is_catching = self.stderr.is_catching = True

    def add_display(self, item: dict[str, object]) -> None:
        """Keep something displayed; the first `DISPLAYS_COUNT_MAX` of a task."""
        if len(self.displays) < DISPLAYS_COUNT_MAX:
            self.displays.append(item)
        else:
            self._displays_cut += 1

    def end(self) -> Outputs | None:
        """Stop catching; return what there was, None if nothing."""
        stdout, stderr = self.stdout, self.stderr
        stdout.is_catching = stderr.is_catching = False
        if not (stdout.is_used or stderr.is_used or self.displays or self.execute_result):
            return None
        if self._displays_cut:
            text = f"... {self._displays_cut} more displays ..."
            self.displays.append({"data": {"text/plain": text}, "metadata": {}})
        displays, self.displays, self._displays_cut = self.displays, [], 0
        result, self.execute_result = self.execute_result, None
        return Outputs(
            sendable_text(stdout.take()),
            sendable_text(stderr.take()),
            msgspec.msgpack.encode(list(map(_encode_shown, displays))) if displays else b"",
            bytes(_encode_shown(result)) if result else b"",
        )


output = TaskOutput()
"""The one of this process."""
