"""A controller that says what a test wants, and real engines under a real supervisor."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol import payload
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.envelope import Buffer, Envelope, Frame, Receiver, Sender, pack
from parallelz.protocol.functions import named_definition
from parallelz.protocol.messages import (
    DefineFunction,
    Hello,
    Message,
    Refused,
    RunTask,
    SayHello,
    TaskFinished,
    Welcome,
)
from parallelz.protocol.roles import FromEngine, FromSupervisor
from parallelz.transport.frames import receive_frames, send_frames
from parallelz.transport.sockets import host_id

TIMEOUT_S = 20.0
PLAIN, BOUND = 0, 1

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_decode = msgspec.msgpack.Decoder(Envelope[Hello | FromEngine | FromSupervisor]).decode


class Line:
    """One connection of a peer."""

    def __init__(self, hello: Hello, routing_id: bytes) -> None:
        self.hello = hello
        self.routing_id = routing_id
        self.sender = Sender()
        self.receiver = Receiver()


class FakeController:
    """A ROUTER that welcomes (or refuses) everybody and keeps what they say."""

    def __init__(self, directory: Path, refusal: str = "") -> None:
        url = f"ipc://{directory}/socket"
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind(url)
        self._refusal = refusal
        self._controller_id = "first"
        self.is_to_wait: Callable[[Hello], bool] = lambda hello: False
        self._greeted_later: list[tuple[bytes, Hello]] = []
        self.info = ConnectionInfo(
            cluster_id="", role="engine", token="t", ipc_url=url, host="h", host_id=host_id()
        )
        self.lines: dict[bytes, Line] = {}
        self.said: list[tuple[str, Message, Sequence[Buffer]]] = []  # on which link, what

    def write_file(self, path: Path) -> None:
        path.touch(mode=0o600)
        path.write_bytes(self.info.encode())

    def close(self) -> None:
        self._router.close()
        self._context.term()

    def pump(self, find: Callable[[], T | None]) -> T:
        """Receive until `find` returns something; return that."""
        give_up_s = time.monotonic() + TIMEOUT_S
        while (found := find()) is None:
            assert time.monotonic() < give_up_s, f"it never came; what came: {self.said}"
            if self._router.poll(5):
                routing_id = self._router.recv()
                frame = self._router.recv(copy=False)
                self._take_in(routing_id, *receive_frames(self._router, frame))
        return found

    def _take_in(self, routing_id: bytes, first: Frame, buffers: Sequence[Buffer]) -> None:
        envelope = _decode(first)
        line = self.lines.get(routing_id)
        if line is not None and not line.receiver.accept(envelope.number):
            return
        start = 0
        for message in envelope.messages:
            if isinstance(message, Hello):
                self._greet(routing_id, message)
                continue
            assert line is not None
            end = start + getattr(message, "frame_count", 0)
            self.said.append((line.hello.link, message, buffers[start:end]))
            start = end
        if envelope.number:
            self._router.send_multipart([routing_id, pack(0, envelope.number, [])])

    def _greet(self, routing_id: bytes, hello: Hello) -> None:
        if self.is_to_wait(hello):
            self._greeted_later.append((routing_id, hello))
            return
        self.lines[routing_id] = Line(hello, routing_id)
        answer: Message = Welcome(self._controller_id, 0, EngineId(0))
        if self._refusal:
            answer = Refused(self._refusal)
        self._router.send_multipart([routing_id, pack(0, 0, [answer])])

    def greet_who_waits(self) -> None:
        """Welcome those that were `is_to_wait`, and everybody from now on."""
        self.is_to_wait = lambda hello: False
        for routing_id, hello in self._greeted_later:
            self._greet(routing_id, hello)

    def line(self, role: str, link: str, session_id: str = "") -> Line:
        """Wait for a connection, of a given peer or the first with this role."""

        def find() -> Line | None:
            for line in self.lines.values():
                hello = line.hello
                if (hello.role, hello.link) == (role, link) and session_id in (
                    "",
                    hello.session_id,
                ):
                    return line
            return None

        return self.pump(find)

    def tell(
        self,
        link: str,
        *messages: Message,
        buffers: Sequence[Buffer] = (),
        session_id: str = "",
    ) -> None:
        """Send messages to the engine, in one envelope; the last one with the buffers."""
        line = self.line("engine", link, session_id)
        for message in messages:
            line.sender.put(message, buffers if message is messages[-1] else ())
        self._send(line)

    def tell_supervisor(self, message: Message) -> None:
        """Send a message to the supervisor."""
        line = self.line("supervisor", "control")
        line.sender.put(message)
        self._send(line)

    def ask_supervisor_again(self) -> None:
        """Do as another one in our place: ask who it is, and know nothing."""
        self._controller_id = "second"
        line = self.line("supervisor", "control")
        self._router.send_multipart([line.routing_id, pack(0, 0, [SayHello()])])

    def _send(self, line: Line) -> None:
        frames = line.sender.take(line.receiver.tell())
        send_frames(self._router, [line.routing_id, *frames])

    def heard(self, kind: type[M]) -> M:
        """Wait for the next message of a kind."""
        return self._hear(kind, lambda message: True)[0]

    def result(self, task_id: str) -> TaskFinished:
        """Wait for the end of a task."""
        return self._hear(TaskFinished, lambda message: message.task_id == task_id)[0]

    def value(self, task_id: str) -> object:
        """Wait for the result of a task that ended well."""
        finished, buffers = self._hear(TaskFinished, lambda told: told.task_id == task_id)
        assert finished.status == "ok", finished.error
        return payload.load(finished.data, buffers)

    def _hear(self, kind: type[M], fits: Callable[[M], bool]) -> tuple[M, Sequence[Buffer]]:
        def find() -> tuple[M, Sequence[Buffer]] | None:
            for number, (_, message, buffers) in enumerate(self.said):
                if isinstance(message, kind) and fits(message):
                    del self.said[number]
                    return message, buffers
            return None

        return self.pump(find)

    def engine_session(self) -> SessionId:
        """Wait for the engine, and return who it is."""
        return self.line("engine", "bulk").hello.session_id

    def engine_pid(self) -> int:
        """Wait for the engine, and return its process id."""
        return self.line("engine", "bulk").hello.peer.pid


def call(task_id: str, name: str, *args: object, kind: int = PLAIN) -> list[Message]:
    """Return what runs an importable function, such as ``operator.add``, as a task."""
    module, _, qualname = name.partition(":")
    definition = named_definition(module, qualname)
    pickled = payload.dump((kind, args, {}))
    return [
        DefineFunction(definition.digest, qualname, definition.payload.data),
        RunTask(TaskId(task_id), 1, definition.digest, pickled.data),
    ]


class Gate:
    """A task that runs until it is let go: it reads a named pipe, and in it one space."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self._fd: int | None = None

    def task(self, task_id: str) -> list[Message]:
        return call(task_id, "pathlib:Path.read_text", self._path)

    def wait_until_it_runs(self, controller: FakeController) -> None:
        def find() -> int | None:
            try:
                return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                return None

        fd = self._fd = controller.pump(find)
        # Opened is not yet reading: a signal that comes between would be seen only afterwards.
        os.write(fd, b" ")
        controller.pump(lambda: True if _is_drained(fd) else None)

    def let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def start_engines(file: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a supervisor with one engine."""
    command = [sys.executable, "-m", "parallelz.engine.process", "--file", str(file)]
    return subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE)


def _is_drained(fd: int) -> bool:
    return not int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
