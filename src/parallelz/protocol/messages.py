"""Every message of parallelz.

A request is named verb-noun (`SubmitTask`), a fact noun-verb (`TaskFinished`). The class name
is the tag on the wire, and decoding is validation. Who may say what stands in `protocol.roles`.

Pickled functions, arguments and results travel as `data`, and what is too large for that in
frames of their own behind the envelope: `frame_count` of them belong to the message. The
controller forwards both and never opens either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.outputs import Outputs, Published

PROTOCOL_VERSION = 7

Role = Literal["client", "engine", "supervisor", "recorder"]
LinkName = Literal["bulk", "control"]
Question = Literal[
    "query", "history", "result", "status", "purge", "functions", "ends", "restore"
]
Status = Literal["ok", "error", "aborted", "engine-lost", "impossible", "timeout", "lost"]


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of what is part of messages."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of every message: immutable, tagged with its class name, never part of a cycle."""


# -- joining ------------------------------------------------------------------------------


class PeerInfo(Value, frozen=True):
    """What a peer says of itself when it joins."""

    host: str
    host_id: str  # the same for all processes that share a kernel and its process ids
    pid: int
    user: str = ""
    python: str = ""  # such as "3.11": functions by value travel only between equals


class EngineInfo(Value, frozen=True):
    """An engine as clients see it."""

    engine_id: EngineId
    session_id: SessionId
    peer: PeerInfo
    labels: list[str] = []
    resources: dict[str, float] = {}  # how much it has of each


class Hello(Message, frozen=True):
    """Peer to controller, first on each of its connections, and again after each break."""

    version: int
    session_id: SessionId
    role: Role
    link: LinkName
    token: str  # the secret of the role, from the connection file
    received: int  # number of the last envelope from the controller that was taken in
    controller_id: str  # the controller that was meant, "" at first
    peer: PeerInfo
    labels: list[str] = []  # of an engine
    resources: dict[str, float] = {}
    engine_id: EngineId = EngineId(-1)  # of an engine that comes back: who it was
    shares_memory: bool = False  # it can read what lies in the cluster's shared memory
    is_supervised: bool = False  # of an engine: a supervisor says how it ended when it has


class Welcome(Message, frozen=True):
    """Controller to peer, the answer to `Hello`: this link is open."""

    controller_id: str  # another than before: it was restarted, or had given the peer up
    received: int  # number of the last envelope from the peer that was taken in
    engine_id: EngineId = EngineId(-1)  # an engine learns its id
    engines: list[EngineInfo] = []  # a client learns who is there
    bytes_max: int = 2**63 - 1  # unacknowledged: then send no more


class EngineReturned(Message, frozen=True):
    """Engine to a controller that knows nothing of it any more: what it was given before.

    The first message on `control`. What it had not started by now it will not start. Results
    of what it had are sent again behind this.
    """

    started: list[TaskId]  # and the result was not acknowledged; the last one may still run
    runs: list[int]  # `RunTask.run` of each
    started_count: int = -1  # how many tasks it ever started; -1: nobody knows


class ResumeTasks(Message, frozen=True):
    """Client to a controller that knows nothing of it any more: what it waits for.

    The first message on `bulk` but for definitions of functions. Each of these tasks is
    answered: with its end if it has one, or when it has, or with the end that it is lost.
    """

    awaited: list[tuple[int, int]]  # numbers of tasks: the first and the last of each range
    envelope_count: int  # how many envelopes behind this one may have come before


class Refused(Message, frozen=True):
    """Controller to peer, the other answer to `Hello`: do not come back like this."""

    reason: str


class SayHello(Message, frozen=True):
    """Controller to an unknown connection: who are you? (The controller was restarted.)"""


# -- tasks --------------------------------------------------------------------------------


class DefineFunction(Message, frozen=True):
    """To controller or engine: from now on `digest` means this function."""

    digest: Digest
    name: str
    data: bytes = b""
    frame_count: int = 0


class Dependency(Value, frozen=True):
    """Which ends of which tasks to wait for."""

    task_ids: list[TaskId]
    all: bool = True
    success: bool = True  # a task that ended well counts
    failure: bool = False  # a task that failed counts


class TaskOptions(Value, frozen=True):
    """How a balanced task is to be placed and repeated. Most tasks have none of this."""

    after: Dependency | None = None
    follow: Dependency | None = None
    engine_ids: list[EngineId] | None = None  # only these; None: any
    retries: int = 0
    wait_timeout_s: float = 0.0  # give up when not placed by then; 0: never
    label: str = ""
    max_runtime_s: float = 0.0  # stop it when it has run for so long; 0: never
    retry_delay_s: float = 0.0  # before the first retry; twice that before the next, ...
    priority: int = 0  # higher ones first
    labels: list[str] = []  # only engines that have all of these
    resources: dict[str, float] = {}  # only engines that have at least so much of each
    inputs: list[TaskId] = []  # whose results it gets as arguments; waits for them to succeed
    tags: dict[str, str | int | float] = {}


class SubmitTask(Message, frozen=True):
    """Client to controller: run this task on whichever engine is free."""

    task_id: TaskId
    digest: Digest
    submitted_s: float  # Unix time, by the client's clock
    data: bytes = b""
    frame_count: int = 0
    options: TaskOptions | None = None


class SubmitMap(Message, frozen=True):
    """Client to controller: one function, many tasks, by one call or by many in a row."""

    first_number: int  # that of `items[i]` is this and `i`: see `task_id_of`
    digest: Digest
    submitted_s: float
    items: list[bytes]  # each is what `SubmitTask.data` is
    options: TaskOptions | None = None
    times_s: list[float] = []  # `submitted_s` of each, if it was not one call


class SubmitDirect(Message, frozen=True):
    """Client to controller: each of these engines runs this, in the order of submission.

    The tasks are ``task_id_of(session_id, first_number + i)`` for each of `engine_ids`.
    """

    first_number: int
    engine_ids: list[EngineId]
    digest: Digest
    submitted_s: float
    data: bytes = b""
    frame_count: int = 0
    label: str = ""
    tags: dict[str, str | int | float] = {}


class Input(Value, frozen=True):
    """The result of another task, for a task that has it as an argument."""

    data: bytes
    frame_count: int


class RunTask(Message, frozen=True):
    """Controller to engine: run this, after what was sent before it."""

    task_id: TaskId
    run: int  # how often the task was placed, this time included
    digest: Digest
    data: bytes = b""
    frame_count: int = 0  # its own frames first, then those of each input
    inputs: Sequence[Input] = ()  # in the order of `TaskOptions.inputs`


class ErrorInfo(Value, frozen=True):
    """Why a task has no result, as text, so that any client can show it."""

    ename: str  # class of the exception, such as "ValueError"
    evalue: str
    traceback: str = ""


class TaskFinished(Message, frozen=True):
    """Engine to controller: the task ran, well or badly.

    `data` is the pickled result, or the pickled exception; empty if that cannot be pickled.
    """

    task_id: TaskId
    status: Literal["ok", "error", "unmet"]  # unmet: it refuses to run on this engine
    started_s: float  # Unix time, by the engine's clock
    completed_s: float
    data: bytes = b""
    frame_count: int = 0
    error: ErrorInfo | None = None
    outputs: Outputs | None = None
    retry_after_s: float = 0.0  # with "unmet": here or elsewhere, but not before; 0: elsewhere
    run: int = 0  # `RunTask.run`, as this may be said twice; 0: that is not known


class LiveOutput(Message, frozen=True):
    """Engine to controller, and on to the client: what a running task has shown since the last.

    All of it comes with the result as well, so it may be dropped on its way.
    """

    task_id: TaskId
    run: int  # `RunTask.run`
    stdout: str = ""
    stderr: str = ""
    lengths: tuple[int, int] = (0, 0)  # of all that was written so far, to stdout and stderr
    displays: bytes = b""  # as in `Outputs`
    data: list[Published] = []
    engine_id: EngineId = EngineId(-1)


class FetchValues(Message, frozen=True):
    """Controller to client: which results of these do you hold? Tasks need them as inputs.

    The controller keeps no results; those that a client had already when it named them as an
    input are asked back. Answered by one `ProvideValue` each.
    """

    task_ids: list[TaskId]


class ProvideValue(Message, frozen=True):
    """Client to controller: this is the result of that task."""

    task_id: TaskId
    is_held: bool = True  # False: it failed, or nobody holds it any more
    data: bytes = b""
    frame_count: int = 0


class TaskEnded(Message, frozen=True):
    """Controller to client: the one and only answer for a submitted task."""

    task_id: TaskId
    status: Status
    engine_id: EngineId  # -1: it never ran
    started_s: float = 0.0
    completed_s: float = 0.0
    data: bytes = b""
    frame_count: int = 0
    error: ErrorInfo | None = None
    outputs: Outputs | None = None
    retries: int = 0  # runs before the last one


# -- control: past all queues -------------------------------------------------------------


class AbortTasks(Message, frozen=True):
    """Client to controller: end these if they have not started. Answered by `Reply`.

    This passes the queues, so what it names may not have been submitted yet: that ends when
    it is.
    """

    request_id: int
    task_ids: list[TaskId] | None  # None: all of this client
    engine_ids: list[EngineId] | None = None  # only what is bound for these
    number_end: int = 0  # with None: numbers below are submitted, though some are to come


class CancelTasks(Message, frozen=True):
    """Client to controller: end these also if they have started. Answered by `Reply`.

    What runs is interrupted; if it still runs after `grace_s`, its engine is killed.
    """

    request_id: int
    task_ids: list[TaskId]
    grace_s: float


class DrainEngines(Message, frozen=True):
    """Client to controller: these get nothing new, and end when they have nothing left."""

    request_id: int
    engine_ids: list[EngineId]


class AskState(Message, frozen=True):
    """Client to controller: what became of these tasks, why do they wait, or: all of it.

    The data of the reply is msgpack: list of lists of `answers.StoryLine` (story), list of
    sentences (why), one dictionary (dump), one `answers.Overview`, which costs no more with
    more tasks (overview).
    """

    request_id: int
    question: Literal["story", "why", "dump", "overview"]
    task_ids: list[TaskId] = []


class InterruptEngines(Message, frozen=True):
    """Client to controller: raise KeyboardInterrupt in what runs there now."""

    request_id: int
    engine_ids: list[EngineId]


class ClearEngines(Message, frozen=True):
    """Client to controller: forget all user names there."""

    request_id: int
    engine_ids: list[EngineId]


class ShutdownEngines(Message, frozen=True):
    """Client to controller: these engines end; with `hub`, the controller too."""

    request_id: int
    engine_ids: list[EngineId]
    hub: bool = False
    restart: bool = False


class AskQueues(Message, frozen=True):
    """Client to controller: what waits and runs where? The answer: `answers.QueueStatus`."""

    request_id: int
    engine_ids: list[EngineId]
    verbose: bool = False


class AskHistory(Message, frozen=True):
    """Client to controller to recorder: look something up. Answered after all before it."""

    request_id: int
    question: Question
    data: bytes  # msgpack, by `question`; see store/recorder.py


class Reply(Message, frozen=True):
    """To a client, or from the recorder: the answer to its request."""

    request_id: int
    data: bytes = b""  # msgpack, by request
    error: ErrorInfo | None = None
    frame_count: int = 0


class EngineJoined(Message, frozen=True):
    """Controller to clients: there is one more engine."""

    engine: EngineInfo


class EngineLeft(Message, frozen=True):
    """Controller to clients: that engine is gone, and why."""

    engine_id: EngineId
    cause: str


class Notice(Message, frozen=True):
    """Controller to a client: something its user should read, once."""

    text: str


class Goodbye(Message, frozen=True):
    """Any peer or the controller: I end now, on purpose."""

    reason: str


class DropTasks(Message, frozen=True):
    """Controller to engine: give back those of these that have not started.

    They may not even have arrived: `runs` tells what was sent before from what comes later.
    """

    task_ids: list[TaskId]
    runs: list[int]  # `RunTask.run` of each


class TasksDropped(Message, frozen=True):
    """Engine to controller: these will not run here. The others have started."""

    task_ids: list[TaskId]
    kept: list[TaskId] = []


class InterruptTask(Message, frozen=True):
    """Controller to engine: raise KeyboardInterrupt in what runs now."""

    task_id: TaskId = TaskId("")  # only if it is this one; "": whatever it is
    run: int = 0  # `RunTask.run` of it; one that is about to start is interrupted when it does


class ClearNamespace(Message, frozen=True):
    """Controller to engine: forget all user names; answered by `NamespaceCleared`."""

    request_key: str  # comes back unchanged


class NamespaceCleared(Message, frozen=True):
    """Engine to controller: only the names that every engine starts with are left."""

    request_key: str


class StopEngine(Message, frozen=True):
    """Controller to engine: end, also if something runs."""

    reason: str
    restart: bool = False


class EngineDied(Message, frozen=True):
    """Supervisor to controller: my child is dead, and this is why."""

    session_id: SessionId
    cause: str  # such as "killed by signal 9 (SIGKILL)"
    started_count: int = -1  # how many tasks it ever started; -1: nobody knows
    started: list[TaskId] = []  # the latest of them, oldest first


class Supervises(Message, frozen=True):
    """Supervisor to controller: these engines are my children."""

    session_ids: list[SessionId]


class DrainChildren(Message, frozen=True):
    """Supervisor to controller: do as `DrainEngines` with my children."""


class EndEngine(Message, frozen=True):
    """Controller to supervisor: end this child, and maybe start another in its place."""

    session_id: SessionId
    reason: str  # becomes the cause in `EngineDied`
    grace_s: float = 0.0  # from SIGTERM to SIGKILL; 0: SIGKILL at once
    restart: bool = False


class StoreRecords(Message, frozen=True):
    """Controller to recorder: remember this."""

    records: list[msgspec.Raw]  # store/record.py knows what they are


class StoreTrouble(Message, frozen=True):
    """Recorder to controller: the database fails, or works again.

    Meanwhile the recorder keeps what it is told and acknowledges nothing.
    """

    text: str  # what is wrong; "": it works again
    lost_count: int  # records that could not be written and will not be
