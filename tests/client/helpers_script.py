"""A controller that says what a test tells it to, and remembers what it was told."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from parallelz import Client
from parallelz.ids import task_id_of
from parallelz.protocol.envelope import Buffer, Envelope, Sender, pack
from parallelz.protocol.messages import (
    Goodbye,
    Hello,
    Message,
    SubmitMap,
    SubmitTask,
    Welcome,
)
from parallelz.protocol.roles import FromClient
from parallelz.transport.router import Router
from parallelz.transport.security import new_secrets
from parallelz.transport.sockets import Waker, term_context

TIMEOUT_S = 10.0

Said = tuple[Message, Sequence[Buffer]]


class ScriptedController(threading.Thread):
    """Welcomes one client; answers each of its messages by `answer`, on the same link.

    Attributes
    ----------
    told
        What the client said, and the buffers of each. Tasks that were submitted one by one
        stand there one by one, also if the client has put them together.
    envelopes
        How many tasks and other messages each of its envelopes held.
    """

    def __init__(self, directory: Path, answer: Callable[[Message], list[Said]]) -> None:
        super().__init__()
        secrets = new_secrets("", runtime_dir=directory)
        self.info = secrets.infos["client"]
        self.told: list[Said] = []
        self.envelopes: list[int] = []
        self._answer = answer
        self._router = Router(secrets)
        self._waker = Waker()
        self._router.watch(self._waker)
        self._decode = msgspec.msgpack.Decoder(Envelope[FromClient | Hello]).decode
        self._senders: dict[bytes, Sender] = {}
        self._lines: dict[str, bytes] = {}
        self._to_say: list[Said] = []
        self._changed = threading.Condition()
        self._is_over = False
        self.start()

    def run(self) -> None:
        while not self._is_over:
            self._router.poll(TIMEOUT_S)
            with self._changed:
                said, self._to_say = self._to_say, []
            for each in said:
                self._say(self._lines["bulk"], [each])
            for arrival in self._router.receive(1000):
                self._take_in(arrival.routing_id, arrival.first, arrival.buffers)
        self._router.close(0)
        self._waker.close()

    def _take_in(self, line: bytes, first: Buffer, buffers: list[Buffer]) -> None:
        envelope = self._decode(first)
        answers: list[Said] = []
        for message in envelope.messages:
            if isinstance(message, Hello):
                self.told.append((message, ()))
                self._lines[message.link] = line
                self._senders[line] = Sender()
                self._router.send(line, [pack(0, 0, [Welcome("scripted", 0)])])
                continue
            count = getattr(message, "frame_count", 0)
            own, buffers = [bytes(each) for each in buffers[:count]], buffers[count:]
            for each in self._apart(message):
                with self._changed:
                    self.told.append((each, own))
                    self._changed.notify_all()
                answers += self._answer(each)
        if envelope.number:
            counts = (len(getattr(message, "items", ())) or 1 for message in envelope.messages)
            self.envelopes.append(sum(counts))
            self._say(line, answers, envelope.number)

    def _apart(self, message: Message) -> list[Message]:
        if not isinstance(message, SubmitMap) or not message.times_s:
            return [message]
        client = next(each.session_id for each, _ in self.told if isinstance(each, Hello))
        first, digest, options = message.first_number, message.digest, message.options
        return [
            SubmitTask(task_id_of(client, number), digest, time_s, data, 0, options)
            for number, (data, time_s) in enumerate(
                zip(message.items, message.times_s, strict=True), first
            )
        ]

    def _say(self, line: bytes, said: list[Said], acknowledged: int = 0) -> None:
        for message, buffers in said:
            self._senders[line].put(message, buffers)
        self._router.send(line, self._senders[line].take(acknowledged))

    def say(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Say this on the bulk link, soon."""
        with self._changed:
            self._to_say.append((message, buffers))
        self._waker.wake()

    def wait_for(self, kind: type[Message], count: int = 1) -> list[Said]:
        """Wait until the client has said so many of these; return them."""

        def find() -> list[Said]:
            return [said for said in self.told if isinstance(said[0], kind)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(find()) >= count, TIMEOUT_S)
            return find()

    def stop(self) -> None:
        self._is_over = True
        self._waker.wake()
        self.join(TIMEOUT_S)


@contextlib.contextmanager
def scripted(
    answer: Callable[[Message], list[Said]] = lambda message: [],
    **options: object,
) -> Iterator[tuple[Client, ScriptedController]]:
    """Connect a client to a controller that answers so."""
    with tempfile.TemporaryDirectory(prefix="parallelz-") as directory:
        controller = ScriptedController(Path(directory), answer)
        try:
            with Client(controller.info, **options) as rc:  # type: ignore[arg-type]
                yield rc, controller
            controller.wait_for(Goodbye)
        finally:
            controller.stop()
            term_context()
