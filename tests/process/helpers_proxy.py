"""A TCP proxy that can fall silent, without anybody being told, or cut its connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal, Self

Way = Literal["there", "back"]

CHUNK_BYTES = 65_536


class Proxy:
    """Listens on a port of this host and passes on what comes to another, and back."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._is_open = threading.Event()
        self._is_open.set()
        self._is_over = False
        self._cuts: dict[Way, int] = {}  # after how many bytes on one connection
        self.cut_count = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._is_open.set()
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def fall_silent(self) -> None:
        """Pass nothing on; nobody is told."""
        self._is_open.clear()

    def go_on(self) -> None:
        """Pass everything on again."""
        self._is_open.set()

    def cut(self, way: Way, after_nbytes: int) -> None:
        """Break the first connection on which so much passes this way from now on, once."""
        self._cuts[way] = after_nbytes

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._is_open.wait()
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            self._start(self._pass_on, near, far, "there")
            self._start(self._pass_on, far, near, "back")

    def _pass_on(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        passed_nbytes = 0
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._is_open.wait()
                target.sendall(data)
                if way not in self._cuts:
                    passed_nbytes = 0
                    continue
                passed_nbytes += len(data)
                if passed_nbytes >= self._cuts[way]:
                    del self._cuts[way]
                    self.cut_count += 1
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
