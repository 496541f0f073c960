"""A command in a terminal of its own, and what stands on the screen."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pyte
import pytest

TIMEOUT_S = 30


class Terminal:
    """Runs a command in a pseudo-terminal, with an emulator behind it."""

    def __init__(self, argv: Sequence[str], *, kind: str = "linux", rows: int = 24) -> None:
        self.screen = pyte.Screen(120, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._fd, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, 120))
        self.modes = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": kind},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        os.close(self._fd)
        os.close(self._theirs)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def press(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def resize(self, rows: int) -> None:
        self.screen.resize(rows, 120)
        termios.tcsetwinsize(self._fd, (rows, 120))
        self.process.send_signal(28)  # SIGWINCH, as the session has no controlling terminal

    def wait_until(self, is_seen: Callable[[str], bool]) -> str:
        """Wait until what stands there is as it should be; return it."""
        while not is_seen(self.text):
            ready, _, _ = select.select([self._fd], [], [], TIMEOUT_S)
            if not ready:
                pytest.fail(f"this is not what was waited for:\n{self.text}")
            self._stream.feed(os.read(self._fd, 10_000))
        return self.text

    def wait_end(self) -> int:
        """Return the exit status; what was said until then stands there."""
        status = self.process.wait(TIMEOUT_S)
        while select.select([self._fd], [], [], 0)[0]:
            self._stream.feed(os.read(self._fd, 10_000))
        return status

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal echoes and buffers lines as it did."""
        return termios.tcgetattr(self._theirs) == self.modes
