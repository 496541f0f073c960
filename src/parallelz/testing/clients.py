"""A simulated client: submits, asks, and remembers what it was told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from parallelz.client.inbox import ranges
from parallelz.ids import Digest, EngineId, TaskId, task_id_of
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.functions import SentDefinitions
from parallelz.protocol.messages import (
    DefineFunction,
    EngineJoined,
    EngineLeft,
    FetchValues,
    Goodbye,
    Message,
    ProvideValue,
    Refused,
    Reply,
    ResumeTasks,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskOptions,
    Welcome,
)
from parallelz.protocol.roles import ToClient
from parallelz.testing.network import Network
from parallelz.testing.peers import SimProcess
from parallelz.testing.work import Kind, Plan, SimWork

LINGER_S = 0.3  # from the goodbye to the end of the process
DIGESTS = [Digest(bytes([n]) * 16) for n in range(4)]


class SimClient(SimProcess):
    """Submits what it is told to, and keeps every answer.

    Attributes
    ----------
    plans
        All that it submitted, by id.
    ends, replies
        Every answer that came, also those that should not have. The first one counts.
    answered_s
        When that came (Unix time).
    aborted
        Of its tasks, those that somebody asked not to be run.
    interrupts
        Whether it interrupted engines, whatever they ran.
    """

    def __init__(self, network: Network, name: str, host: str, pid: int) -> None:
        super().__init__(network, name, "client", host, pid)
        self.plans: dict[TaskId, Plan] = {}
        self.ends: dict[TaskId, list[tuple[TaskEnded, Sequence[Buffer]]]] = {}
        self.answered_s: dict[TaskId, float] = {}
        self.replies: dict[int, list[Reply]] = {}
        self.engine_ids: list[EngineId] = []
        self.aborted: dict[TaskId, None] = {}
        self.is_leaving = False
        self.interrupts = False
        self.is_given_up = False  # the controller refused it
        self._sent = SentDefinitions()
        self._defined: dict[Digest, Message] = {}
        self._requests: dict[int, Message] = {}  # without an answer
        self._sent_count = 0  # of `plans`; the rest is put and not flushed
        self._loop = self.loop(self._step)
        self.bulk = self.link("bulk", ToClient, self._loop)
        self.control = self.link("control", ToClient, self._loop)
        self.bulk.introduction = self._introduce_bulk
        self.control.introduction = self._introduce_control
        self.control.is_repeated = False

    @property
    def is_present(self) -> bool:
        """Whether it is there and means to stay."""
        return self.is_alive and not self.is_leaving

    @property
    def is_satisfied(self) -> bool:
        """Whether it has all answers, and has told so."""
        return (
            self.bulk.welcome is not None
            and self.control.welcome is not None
            and len(self.ends) == len(self.plans)
            and all(self.replies.values())
            and not (self.bulk.kept_count or self.control.kept_count)
        )

    # -- what it is told to do -------------------------------------------------------------

    def submit(
        self, work: SimWork, options: TaskOptions | None = None, frame: bytes = b""
    ) -> TaskId:
        """Submit one balanced task."""
        (task_id,) = self._plan("balanced", [work], options, frame)
        digest = self._define()
        frames = [frame] if frame else []
        data = msgspec.msgpack.encode(work)
        now_s = self.timeline.wall_clock()
        message = SubmitTask(task_id, digest, now_s, data, len(frames), options)
        self.bulk.put(message, frames)
        self._loop.wake()
        return task_id

    def submit_map(self, works: list[SimWork], options: TaskOptions | None) -> list[TaskId]:
        """Submit many balanced tasks in one message."""
        first = len(self.plans)
        task_ids = self._plan("balanced", works, options)
        items = [msgspec.msgpack.encode(work) for work in works]
        now_s = self.timeline.wall_clock()
        self.bulk.put(SubmitMap(first, self._define(), now_s, items, options))
        self._loop.wake()
        return task_ids

    def submit_direct(self, work: SimWork, engine_ids: list[EngineId]) -> list[TaskId]:
        """Submit one task to each of these engines."""
        first = len(self.plans)
        task_ids = self._plan("direct", [work] * len(engine_ids), None, b"", engine_ids)
        data = msgspec.msgpack.encode(work)
        now_s = self.timeline.wall_clock()
        self.bulk.put(SubmitDirect(first, engine_ids, self._define(), now_s, data))
        self._loop.wake()
        return task_ids

    def leave(self) -> None:
        """Say goodbye behind all that was submitted, and end; nothing is awaited."""
        self.is_leaving = True
        self.bulk.put(Goodbye("the client was closed"))
        self._loop.wake()
        self.timeline.after(LINGER_S, lambda: self.die("it was closed"))

    def next_request_id(self) -> int:
        """Return the id of the request that is about to be made."""
        return len(self.replies)

    def ask(self, request_id: int, message: Message) -> None:
        """Say something past the queue that is answered by a `Reply`."""
        self.replies[request_id] = []
        self._requests[request_id] = message
        self.control.put(message)
        self._loop.wake()

    def _plan(
        self,
        kind: Kind,
        works: list[SimWork],
        options: TaskOptions | None,
        frame: bytes = b"",
        engine_ids: Sequence[EngineId] = (),
    ) -> list[TaskId]:
        task_ids = []
        for index, work in enumerate(works):
            task_id = task_id_of(self.session_id, len(self.plans))
            engine_id = engine_ids[index] if engine_ids else EngineId(-1)
            self.plans[task_id] = Plan(task_id, kind, work, options, engine_id, frame)
            task_ids.append(task_id)
        return task_ids

    def _define(self) -> Digest:
        digest = DIGESTS[len(self.plans) % len(DIGESTS)]
        if self._sent.need(digest):
            self._defined[digest] = DefineFunction(digest, f"function_{digest[0]}")
            self.bulk.put(self._defined[digest])
        return digest

    # -- what a controller is told that knows nothing of it --------------------------------

    def _introduce_bulk(self, envelope_count: int) -> list[Item]:
        numbers = [
            number
            for number, task_id in enumerate(self.plans)
            if task_id not in self.ends and number < self._sent_count
        ]
        self.timeline.note(self.name, "comes back", f"for {len(numbers)} tasks")
        resume: Item = (ResumeTasks(ranges(numbers), envelope_count), ())
        return [*((message, ()) for message in self._defined.values()), resume]

    def _introduce_control(self, _: int) -> list[Item]:
        return [(message, ()) for message in self._requests.values()]

    # -- what it does by itself ------------------------------------------------------------

    def _step(self) -> float | None:
        for link in (self.bulk, self.control):
            for message, buffers in link.receive():
                self._take_in(message, buffers)
        if not self.is_alive:
            return None
        if self.bulk.welcome is not None:
            self._sent_count = len(self.plans)
        self.bulk.flush()
        self.control.flush()
        return self.next_tick_s(self.bulk, self.control)

    def _take_in(self, message: Message, buffers: Sequence[Buffer]) -> None:
        match message:
            case TaskEnded():
                self.timeline.note(self.name, "hears", f"{message.task_id} {message.status}")
                self.answered_s.setdefault(message.task_id, self.timeline.wall_clock())
                self.ends.setdefault(message.task_id, []).append((message, list(buffers)))
            case Reply():
                self._requests.pop(message.request_id, None)
                self.replies.setdefault(message.request_id, []).append(message)
            case FetchValues():
                for task_id in message.task_ids:
                    self._provide(task_id)
            case Refused():
                self.is_given_up = True
                self.die(f"refused: {message.reason}")
            case Goodbye():
                self.die(message.reason)
            case _:
                self._learn(message)

    def _learn(self, message: Message) -> None:
        """Take in who is there."""
        match message:
            case Welcome():
                for engine in message.engines:
                    self._meet(engine.engine_id)
            case EngineJoined():
                self._meet(message.engine.engine_id)
            case EngineLeft():
                if message.engine_id in self.engine_ids:
                    self.engine_ids.remove(message.engine_id)
            case _:
                pass

    def _meet(self, engine_id: EngineId) -> None:
        if engine_id not in self.engine_ids:
            self.engine_ids.append(engine_id)

    def _provide(self, task_id: TaskId) -> None:
        for ended, buffers in self.ends.get(task_id, ()):
            if ended.status == "ok":
                value = ProvideValue(task_id, data=ended.data, frame_count=ended.frame_count)
                self.control.put(value, buffers)
                return
        self.control.put(ProvideValue(task_id, is_held=False))
