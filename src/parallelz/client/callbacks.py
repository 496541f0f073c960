"""Where users' callbacks run: on a thread of their own, which nothing else waits for.

So a callback may itself wait for results: the connections are driven elsewhere, or by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)

IDLE_S = 1.0  # then the thread ends; the next call starts another


class CallbackThread:
    """Calls what it is given, one after the other."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the thread's coming and going
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called soon; what it raises is logged."""
        with self._lock:
            self._calls.put(function)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="parallelz-callbacks", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Call what was given, then end."""
        with self._lock:
            thread = self._thread
            if thread is not None:
                self._calls.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except Exception:
                logger.exception("a callback of a result failed")
            del function  # or its result would live until the next call

    def _next(self) -> Callable[[], object] | None:
        """Wait for something to call; None: it is time to end."""
        try:
            return self._calls.get(timeout=IDLE_S)
        except Empty:
            pass
        with self._lock:
            if not self._calls.empty():
                return self._calls.get()
            self._thread = None
            return None
