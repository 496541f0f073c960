"""Simulated processes: what all have in common, supervisors, and the recorder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from parallelz.ids import SessionId, TaskId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    AskHistory,
    EndEngine,
    EngineDied,
    Goodbye,
    Hello,
    LinkName,
    Message,
    PeerInfo,
    Refused,
    Role,
    StopEngine,
    StoreRecords,
    Supervises,
    Welcome,
)
from parallelz.protocol.roles import ToRecorder, ToSupervisor
from parallelz.store.interface import Run, Store
from parallelz.store.recorder import Recorder
from parallelz.testing.network import Network, SimLink
from parallelz.testing.timeline import Loop, Timeline

RUN = Run("run", "cluster")
TOKEN_FORMAT = "token of the role {}"
WAKE_MAX_S = 100e-6  # from the arrival of something to the thread that waits for it
DEATH_NOTICE_MAX_S = 0.05  # until a supervisor reports, or its children see that it is gone
THAW_CHECK_S = 0.5
COMMIT_MAX_S = 0.1
PARENT_CHECK_PERIOD_S = 1.0  # as in `controller.recorder_process`
IDLE_TICK_S = 3600.0  # `LinkEnd.tick` says at least so when nothing is due


def token_of(role: Role) -> str:
    """Return the secret of a role."""
    return TOKEN_FORMAT.format("engine" if role == "supervisor" else role)


class SimProcess:
    """One life of a process: it may freeze, crash and end, but not begin again.

    Parameters
    ----------
    name
        For the journal and for the network; of this life only.
    """

    def __init__(self, network: Network, name: str, role: Role, host: str, pid: int) -> None:
        self.network = network
        self.timeline: Timeline = network.timeline
        self.name = name
        self.role: Role = role
        self.session_id = SessionId(f"{name}.{pid}")
        self.peer = PeerInfo(host, host, pid)
        self.is_alive = True
        self.is_frozen = False
        self.labels: list[str] = []
        self.resources: dict[str, float] = {}
        self.loops: list[Loop] = []
        self._loop_of: dict[LinkName, Loop] = {}

    def link(
        self, name: LinkName, incoming: object, loop: Loop, *, settle: bool = True
    ) -> SimLink:
        """Return a new link that is read by `loop`."""
        self._loop_of[name] = loop
        hello = Hello(
            PROTOCOL_VERSION,
            self.session_id,
            self.role,
            name,
            token_of(self.role),
            received=0,
            controller_id="",
            peer=self.peer,
            labels=self.labels,
            resources=self.resources,
            is_supervised=self.role == "engine",
        )
        return SimLink(self.network, self, hello, incoming, settle=settle)

    def loop(self, step: Callable[[], float | None]) -> Loop:
        """Return a new thread of this process."""
        loop = Loop(self.timeline, step)
        self.loops.append(loop)
        return loop

    def notice(self, link: SimLink) -> None:
        """Wake the thread that waits for this link."""
        if self.is_alive:
            self._loop_of[link.link].wake(self.timeline.random.random() * WAKE_MAX_S)

    def freeze(self) -> None:
        """Stop, as by SIGSTOP."""
        self.timeline.note(self.name, "freezes")
        self.is_frozen = True
        for loop in self.loops:
            loop.pause()
        self.network.cut(self.name, up=True, down=False)

    def thaw(self) -> None:
        """Go on, as by SIGCONT."""
        if not self.is_alive or not self.is_frozen:
            return
        self.timeline.note(self.name, "goes on")
        self.is_frozen = False
        self.network.heal(self.name)
        for loop in self.loops:
            loop.resume()

    def die(self, cause: str) -> None:
        """End now, whatever was going on."""
        if not self.is_alive:
            return
        self.timeline.note(self.name, "ends", cause)
        self.is_alive = False
        for loop in self.loops:
            loop.pause()
        for line in self.network.lines_of(self.name):
            line.break_there()

    def next_tick_s(self, *links: SimLink) -> float | None:
        """Let links do what is due; return when to come back, None: when woken."""
        now_s = self.timeline.now_s
        due_s = min(link.tick(now_s) for link in links)
        return None if due_s >= now_s + IDLE_TICK_S else due_s


class Child(Protocol):
    """An engine, for its supervisor."""

    session_id: SessionId
    name: str
    is_alive: bool
    is_frozen: bool
    started_count: int

    @property
    def started(self) -> list[TaskId]:
        """What it has started and whose results the controller may not have."""

    def die(self, cause: str) -> None:
        """End now."""


class SimSupervisor(SimProcess):
    """Reports deaths of the engines of its host, and ends those it is told to.

    Parameters
    ----------
    start_engine
        Starts an engine in the place of one that was ended.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        host: str,
        pid: int,
        start_engine: Callable[[str], None],
    ) -> None:
        super().__init__(network, name, "supervisor", host, pid)
        self._start_engine = start_engine
        self._children: dict[SessionId, Child] = {}
        self._loop = self.loop(self._step)
        self.control = self.link("control", ToSupervisor, self._loop)

    def adopt(self, child: Child) -> None:
        """Watch over an engine of this host from now on."""
        self._children[child.session_id] = child
        self.control.put(Supervises(list(self._children)))
        self._loop.wake()

    def lost(self, child: Child, cause: str) -> None:
        """Take in that a child is dead; tell so a moment later."""
        if self._children.pop(child.session_id, None) is not None:
            died = EngineDied(child.session_id, cause, child.started_count, child.started)
            self.control.put(died)
            self._loop.wake(self.timeline.random.random() * DEATH_NOTICE_MAX_S)

    def _step(self) -> float | None:
        for message, _ in self.control.receive():
            match message:
                case Welcome():
                    self.control.put(Supervises(list(self._children)))
                case EndEngine():
                    child = self._children.get(message.session_id)
                    if child is not None:
                        child.die(message.reason)
                        self.lost(child, message.reason)
                        if message.restart:
                            self._start_engine(self.peer.host)
                case StopEngine() | Refused():
                    self._stop(message.reason)
                    return None
                case _:
                    pass
        self.control.flush()
        return self.next_tick_s(self.control)

    def _stop(self, reason: str) -> None:
        for child in list(self._children.values()):
            child.die(reason)
        self.control.put(Goodbye("its engines have ended"))
        self.control.flush()
        self.die(reason)

    def die(self, cause: str) -> None:
        """End now; the children end when they see it."""
        if self.is_alive:
            super().die(cause)
            for child in self._children.values():
                self._orphan(child)

    def _orphan(self, child: Child) -> None:
        def end() -> None:
            if child.is_frozen:
                self.timeline.after(THAW_CHECK_S, end)
            else:
                child.die("its supervisor is gone")

        self.timeline.after(self.timeline.random.random() * DEATH_NOTICE_MAX_S, end)


class SimRecorder(SimProcess):
    """The real recorder over a store, on a simulated link.

    It is also what the controller holds of it: the interface of `subprocess.Popen`. A
    transaction takes a while; who dies in the meantime has written all of it or nothing, and
    has told nobody.
    """

    def __init__(self, network: Network, name: str, host: str, pid: int, store: Store) -> None:
        super().__init__(network, name, "recorder", host, pid)
        self.pid = pid
        self.code: int | None = None
        self._recorder = Recorder(lambda: store, RUN, wall_clock=network.timeline.wall_clock)
        self._batch: list[Message] = []  # in the transaction that is going on
        self._commit_s = 0.0
        self._is_orphan = False
        self._loop = self.loop(self._step)
        self.bulk = self.link("bulk", ToRecorder, self._loop, settle=False)

    def _step(self) -> float | None:
        if not self._batch:
            self._batch = [message for message, _ in self.bulk.receive()]
            self._commit_s = (
                self.timeline.now_s + COMMIT_MAX_S * self.timeline.random.random() ** 4
            )
            if self._batch:
                return self._commit_s
        elif self.timeline.now_s < self._commit_s:
            return self._commit_s
        messages = self._batch
        for reply, buffers in self._handle_batch():
            self.bulk.put(reply, buffers)
        if not self._recorder.is_behind:
            self.bulk.settle()
        is_over = any(isinstance(message, Goodbye) for message in messages)
        if is_over:
            self.bulk.put(Goodbye("all is written"))
        self.bulk.flush()
        if is_over or any(isinstance(message, Refused) for message in messages):
            self.code = 0 if is_over else 1
            self.die("all is written" if is_over else "it was refused")
            return None
        if messages:
            self._loop.wake()  # more may have come in the meantime
        return self.next_tick_s(self.bulk)

    def _handle_batch(self) -> Sequence[tuple[Message, Sequence[Buffer]]]:
        batch, self._batch = self._batch, []
        told = [m for m in batch if isinstance(m, StoreRecords | AskHistory)]
        return self._recorder.handle(told, self.timeline.now_s)

    def die(self, cause: str) -> None:
        """End now; what was applied stays in the store."""
        if not self.is_alive:
            return
        if self._batch and self.timeline.random.random() < 0.5:
            self._handle_batch()
        if self.code is None:
            self.code = -signal.SIGKILL
        super().die(cause)

    def controller_is_gone(self) -> None:
        """Take in that its parent is dead; it sees that when it looks the next time."""
        self._is_orphan = True
        delay_s = PARENT_CHECK_PERIOD_S * self.timeline.random.random()
        self.timeline.after(delay_s, self._end_as_orphan)

    def _end_as_orphan(self) -> None:
        if not self.is_frozen:
            self.die("the controller is gone")

    def thaw(self) -> None:
        """Go on, unless the controller is gone; then nothing is written that late."""
        super().thaw()
        if self._is_orphan:
            self._batch = []
            self._end_as_orphan()

    def poll(self) -> int | None:
        """Return the exit code; None: it lives."""
        return self.code

    def kill(self) -> None:
        """End it by force."""
        self.die("it was killed")

    def wait(self) -> int:
        """Return the exit code."""
        return -signal.SIGKILL if self.code is None else self.code
