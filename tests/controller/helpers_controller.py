"""A controller in a thread, and raw peers that say what a test wants."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from parallelz.controller.controller import Controller
from parallelz.controller.liveness import Verdict, judge
from parallelz.controller.recording import Recording
from parallelz.protocol.messages import Message, PeerInfo, Role
from parallelz.protocol.roles import ToClient, ToEngine, ToSupervisor
from parallelz.transport.peer import PeerLink, PeerPoller, endpoint_for, new_session_id
from parallelz.transport.security import ClusterSecrets, new_secrets
from parallelz.transport.sockets import term_context

M = TypeVar("M", bound=Message)

TIMEOUT_S = 10.0
INCOMING = {"client": ToClient, "engine": ToEngine, "supervisor": ToSupervisor}


@contextlib.contextmanager
def running_controller(
    ip: str = "",
    judging: Callable[[PeerInfo, str], Verdict] = judge,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ClusterSecrets]:
    """Serve in a thread; without a recorder."""
    with tempfile.TemporaryDirectory(prefix="parallelz-") as directory:
        secrets = new_secrets("", runtime_dir=Path(directory), ip=ip)
        controller = Controller(secrets, Recording(None), judging=judging, clock=clock)
        thread = threading.Thread(target=controller.run)
        thread.start()
        try:
            yield secrets
        finally:
            controller.stop("the test ends")
            thread.join(TIMEOUT_S)
            controller.close()
            term_context()


class RawPeer:
    """A peer with both links that receives only when the test says so."""

    def __init__(
        self,
        secrets: ClusterSecrets,
        role: Role,
        *,
        token: str = "",
        is_supervised: bool = False,
    ) -> None:
        info = secrets.infos["engine" if role == "supervisor" else role]
        self.session_id = new_session_id()
        self.links = {
            name: PeerLink(
                endpoint_for(info),
                name,
                session_id=self.session_id,
                role=role,
                token=token or info.token,
                incoming=INCOMING[role],
                is_supervised=is_supervised,
            )
            for name in ("bulk", "control")
        }
        self._poller = PeerPoller(*self.links.values())
        self.left: list[object] = []

    def wait_for(self, kind: type[M]) -> M:
        """Return the next message of this kind, leaving the others."""
        deadline = threading.Event()
        timer = threading.Timer(TIMEOUT_S, deadline.set)
        timer.start()
        try:
            while not deadline.is_set():
                for index, message in enumerate(self.left):
                    if isinstance(message, kind):
                        return self.left.pop(index)
                self._poller.poll(0.1)
                self._receive()
        finally:
            timer.cancel()
            timer.join()
        raise AssertionError(f"no {kind.__name__} came, only {self.left}")

    def say(self, message: object, link: str = "bulk") -> None:
        """Send a message; what is put on a link before it is open would wait on it."""
        while self.links[link].welcome is None:
            self._poller.poll(TIMEOUT_S)
            self._receive()
        self.links[link].put(message)
        self.links[link].flush()

    def _receive(self) -> None:
        for each in self.links.values():
            self.left.extend(message for message, _ in each.receive())
            each.flush()

    def close(self) -> None:
        for link in self.links.values():
            link.close()
