"""What running tasks of this client have shown so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from parallelz.errors import SerializationError
from parallelz.ids import EngineId
from parallelz.protocol.messages import LiveOutput
from parallelz.protocol.outputs import Published
from parallelz.protocol.payload import load
from parallelz.protocol.texts import text_of

TEXT_LENGTH_MAX = 1024 * 1024  # of one stream; the beginning of a longer one is left out


class LiveTask:
    """What one task has shown, as far as it has arrived; by the thread that drives.

    Attributes
    ----------
    run
        Which of its runs that was: a new one begins anew.
    stdout, stderr
        The last `TEXT_LENGTH_MAX` characters.
    lengths
        Of all that it wrote to stdout and to stderr, by then.
    """

    __slots__ = ("data", "displays", "engine_id", "lengths", "run", "stderr", "stdout")

    def __init__(self) -> None:
        self.run = 0
        self._begin()

    def _begin(self) -> None:
        self.engine_id = EngineId(-1)
        self.stdout = ""
        self.stderr = ""
        self.lengths = (0, 0)
        self.displays: list[dict[str, Any]] = []
        self.data: list[Published] = []

    def take(self, message: LiveOutput) -> None:
        """Take in more of it."""
        if message.run < self.run:
            return
        if message.run > self.run:
            self._begin()
            self.run = message.run
        self.engine_id = message.engine_id
        self.lengths = message.lengths
        self.stdout = (self.stdout + message.stdout)[-TEXT_LENGTH_MAX:]
        self.stderr = (self.stderr + message.stderr)[-TEXT_LENGTH_MAX:]
        if message.displays:
            self.displays = [*self.displays, *msgspec.msgpack.decode(message.displays)]
        self.data = [*self.data, *message.data]


def published(parts: list[Published]) -> dict[str, object] | SerializationError:
    """Return what was published in all, the latest of each name; or why that cannot be made."""
    data: dict[str, object] = {}
    for part in parts:
        try:
            loaded = load(part.data, part.frames)
        except Exception as error:  # noqa: BLE001 - runs code of the user's classes
            return SerializationError(
                "what the task published cannot be made here:"
                f" {type(error).__name__}: {text_of(error)}"
            )
        if isinstance(loaded, Mapping):
            data.update(loaded)
    return data
