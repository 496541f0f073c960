"""The end of something that was launched: waited for, and told to whoever wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ending:
    """Comes once; from then on it is there."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()  # of the callbacks against the end

    @property
    def is_there(self) -> bool:
        """Whether it has come."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it; return whether it has come."""
        return self._event.wait(timeout_s)

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it comes, from the thread that says so or, if late, at once."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def come(self) -> None:
        """Say that it is there."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
