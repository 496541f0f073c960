"""Where users' callbacks run: on a thread of their own, which nothing else waits for.

So a callback may itself wait for results: the connections are driven elsewhere, or by it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)


class CallbackThread:
    """Calls what it is given, one after the other; started when first needed."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called soon; what it raises is logged."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="parallelz-callbacks", daemon=True
                )
                self._thread.start()
        self._calls.put(function)

    def close(self) -> None:
        """Call what was given, then end."""
        thread = self._thread
        if thread is not None:
            self._calls.put(None)
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                function()
            except Exception:
                logger.exception("a callback of a result failed")
