"""A client's end of its cluster: submits, asks, and waits for what comes back.

Submitting is the hot path: a look at the definitions of functions, one pickle, one entry in the
ledger and one in the queue of what is to be sent. All numbers are given out under one lock,
which also decides whether a function must be defined first, so that the order on the wire is
the order of the decisions.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from parallelz.client import arguments
from parallelz.client.again import Again
from parallelz.client.arguments import dump_call, dump_waiting
from parallelz.client.callbacks import CallbackThread
from parallelz.client.definitions import Definitions, Function
from parallelz.client.forks import disowned_by_forks
from parallelz.client.inbox import Inbox
from parallelz.client.ledger import Ledger, Submission
from parallelz.client.limits import OUTSTANDING_MAX, WhenFull
from parallelz.client.outgoing import marks_of, submit_message, unix_now_s, with_inputs
from parallelz.client.pump import Pump
from parallelz.errors import ClientClosed, ClusterError, QueueFull
from parallelz.ids import EngineId, TaskId, task_id_of
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.functions import Definition
from parallelz.protocol.messages import (
    AskHistory,
    Goodbye,
    LinkName,
    Message,
    Reply,
    SubmitDirect,
    SubmitMap,
    TaskOptions,
)
from parallelz.protocol.payload import Call, Payload
from parallelz.protocol.roles import ToClient
from parallelz.transport.peer import PeerLink, endpoint_for, new_session_id
from parallelz.transport.pool import Sharing
from parallelz.transport.tunnel import Tunnel

WAITING_COUNT_MAX = 200_000  # submissions that have not left: then who submits waits
MAP_ITEMS_MAX = 500  # per message: the controller sends on after each


class Job(NamedTuple):
    """A task of a batch that is ready to be numbered and sent."""

    definition: Definition
    payload: Payload
    call: arguments.Call | None  # what results it names


class Connection:
    """Everything of a client but what its user sees.

    Parameters
    ----------
    info
        Content of the client's connection file.
    timeout_s
        How long to wait until the controller has answered.
    origin
        Where `info` is from, for messages.
    tunnel
        What leads to the controller, if it is not reached directly; ours from now on.

    Attributes
    ----------
    max_outstanding
        While so many tasks are awaited, no more are submitted.
    when_full
        What a call does then: wait, or raise `QueueFull`.

    Raises
    ------
    ClusterError
        If the controller does not answer in time, or refuses.
    """

    def __init__(
        self,
        info: ConnectionInfo,
        timeout_s: float,
        origin: str,
        tunnel: Tunnel | None = None,
    ) -> None:
        self.session_id = new_session_id()
        self.ledger = Ledger(self.session_id)
        self.callbacks = CallbackThread()
        self.max_outstanding = OUTSTANDING_MAX
        self.when_full: WhenFull = "block"
        self._end = ""  # why there is nothing more to be had; "": there is
        self._lock = threading.Lock()  # guards the following, and the order of what is sent
        self._next_number = 0
        self._next_request = 0
        self._definitions = Definitions()
        self._sharing = Sharing(info, self.session_id)
        endpoint = endpoint_for(info)

        def connect(link: LinkName) -> PeerLink[ToClient]:
            return PeerLink(
                endpoint,
                link,
                session_id=self.session_id,
                role="client",
                token=info.token,
                incoming=ToClient,
                leases=self._sharing.leases,
            )

        inbox = Inbox(self.ledger, self._definitions, self._lock)
        bulk, control = connect("bulk"), connect("control")
        bulk.introduction = inbox.introduce_bulk
        control.introduction = inbox.introduce_control
        control.is_repeated = False  # what has no answer is asked again
        self.pump = Pump(bulk, control, inbox.handle, self._sharing.tick)
        inbox.pump = self.pump
        self.pump.start()
        # Refers to no part that refers to us: a client that is dropped is closed.
        self._finalizer = weakref.finalize(
            self, _close, self.pump, self.callbacks, self._sharing, tunnel
        )
        self._tunnel = tunnel
        disowned_by_forks(self)
        self._join(timeout_s, origin, endpoint.urls)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a client, and with it its views, cannot be sent to another process; make one"
            " there: Client()"
        )

    def _join(self, timeout_s: float, origin: str, urls: Sequence[str]) -> None:
        try:
            is_welcome = self.pump.wait(
                lambda: bool(self.ledger.refusal) or all(self.ledger.welcomed.values()),
                timeout_s,
            )
        except BaseException:
            self.close()
            raise
        if self.ledger.refusal or not is_welcome:
            self.close()
        if self.ledger.refusal:
            raise ClusterError(
                f"the cluster of {origin} refused this client: {self.ledger.refusal}"
            )
        if not is_welcome:
            raise ClusterError(
                f"the cluster of {origin} did not answer within {timeout_s:.3g} s at"
                f" {', '.join(urls)}; does it run? `ipclusterz start -n 4` starts one"
            )

    def close(self) -> None:
        """Send what waits, say goodbye, and end; more than once does nothing."""
        self._end = self._end or "this client was closed"
        self._finalizer()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be done with it any more."""
        return bool(self._end)

    def check_open(self) -> None:
        """Raise ClientClosed if there is nothing more to be had."""
        if self._end:
            raise ClientClosed(self._end)

    def disown(self) -> None:
        """Forget the connection, which belongs to the process that this one was forked from."""
        self._finalizer.detach()
        self._sharing.disown()
        if self._tunnel is not None:
            self._tunnel.disown()
        self._end = (
            "this client belongs to the process that this one was forked from;"
            " a forked process needs a Client() of its own"
        )

    # -- submitting ------------------------------------------------------------------------

    def submit_task(
        self, function: Function, call: Call, options: TaskOptions | None = None
    ) -> Submission:
        """Submit one task for whichever engine is free."""
        if self._end:
            raise ClientClosed(self._end)
        ledger = self.ledger
        if len(ledger.awaited) >= self.max_outstanding:
            self._make_room()
        definition = self._definitions.of(function)
        payload, found = dump_call(call, ledger)
        if payload.buffers:
            payload = self._placed(payload)
        if found is not None:
            options = with_inputs(options, found)
        now_s = unix_now_s()
        waiting = self.pump.waiting
        with self._lock:
            number = self._next_number
            self._next_number = number + 1
            submission = Submission(
                self.session_id, number, 1, now_s, None, options, definition.name
            )
            if found is not None:
                submission.inputs = tuple(found.submissions)
            if payload.buffers:
                submission.watch_sending(payload.buffers, self.pump.nudge)
            ledger.expect(submission)
            define = self._definitions.needed(definition)
            if define is not None:
                waiting.append(define)
            task_id = task_id_of(self.session_id, number)
            waiting.append(submit_message(task_id, definition, now_s, payload, options))
        self.pump.wake()
        if len(waiting) > WAITING_COUNT_MAX:
            self._push_back()
        return submission

    def submit_batch(
        self,
        jobs: Sequence[Job],
        options_of: Callable[[int, Callable[[int], TaskId]], TaskOptions | None],
    ) -> list[Submission]:
        """Submit tasks that may depend on each other, all or none, as `prepare` made them.

        Parameters
        ----------
        options_of
            Called with the index of each job and what gives the id of the job at an index.
        """
        self._check_room()
        now_s = unix_now_s()
        session_id, ledger = self.session_id, self.ledger
        submissions: list[Submission] = []
        outgoing: list[Item] = []
        with self._lock:
            first = self._next_number
            ids = [task_id_of(session_id, first + index) for index in range(len(jobs))]
            for index, (definition, payload, found) in enumerate(jobs):
                options = options_of(index, ids.__getitem__)
                if found is not None:
                    options = with_inputs(options, found)
                submission = Submission(
                    session_id, first + index, 1, now_s, None, options, definition.name
                )
                if found is not None:
                    submission.inputs = tuple(found.submissions)
                submission.watch_sending(payload.buffers, self.pump.nudge)
                submissions.append(submission)
                outgoing.append(submit_message(ids[index], definition, now_s, payload, options))
            # Nothing below fails: until here nothing was changed.
            self._next_number = first + len(jobs)
            for job, submission, message in zip(jobs, submissions, outgoing, strict=True):
                ledger.expect(submission)
                define = self._definitions.needed(job.definition)
                if define is not None:
                    self.pump.waiting.append(define)
                self.pump.waiting.append(message)
        self.pump.wake()
        return submissions

    def prepare(self, function: Function, call: Call) -> Job:
        """Return what `submit_batch` takes: the call as it is now."""
        payload, found = dump_call(call, self.ledger)
        return Job(self._definitions.of(function), self._placed(payload), found)

    def _placed(self, payload: Payload) -> Payload:
        """Return the same payload, with large buffers in shared memory if that can be."""
        if not payload.buffers:
            return payload
        return Payload(payload.data, self._sharing.place(payload.buffers))

    def submit_map(
        self, function: Function, calls: Sequence[Call], options: TaskOptions | None = None
    ) -> Submission:
        """Submit many tasks of one function, all or none, for whichever engines are free."""
        self._check_room()
        definition = self._definitions.of(function)
        payloads = [self._placed(dump_waiting(call)) for call in calls]
        now_s = unix_now_s()
        with self._lock:
            submission = self._start(len(payloads), now_s, None, options, definition)
            first = submission.first_number
            items: list[bytes] = []
            for number, (data, buffers) in enumerate(payloads, first):
                if buffers or len(items) == MAP_ITEMS_MAX:
                    self._put_map(number, items, definition, now_s, options)
                    items = []
                if buffers:
                    submission.watch_sending(buffers, self.pump.nudge)
                    task_id = task_id_of(self.session_id, number)
                    payload = Payload(data, buffers)
                    self.pump.waiting.append(
                        submit_message(task_id, definition, now_s, payload, options)
                    )
                else:
                    items.append(data)
            self._put_map(first + len(payloads), items, definition, now_s, options)
        self.pump.wake()
        return submission

    def _put_map(
        self,
        end: int,
        items: list[bytes],
        definition: Definition,
        now_s: float,
        options: TaskOptions | None,
    ) -> None:
        if items:
            first = end - len(items)
            message = SubmitMap(first, definition.digest, now_s, items, options)
            self.pump.waiting.append((message, ()))

    def submit_direct(
        self,
        function: Function,
        call: Call,
        engine_ids: Sequence[EngineId],
        options: TaskOptions | None = None,
    ) -> Submission:
        """Submit the same call to each of these engines; it is pickled once."""
        self._check_room()
        definition = self._definitions.of(function)
        data, buffers = self._placed(dump_waiting(call))
        now_s = unix_now_s()
        with self._lock:
            count = len(engine_ids)
            submission = self._start(count, now_s, engine_ids, options, definition)
            submission.watch_sending(buffers, self.pump.nudge)
            message = SubmitDirect(
                submission.first_number,
                list(engine_ids),
                definition.digest,
                now_s,
                data,
                len(buffers),
                *marks_of(options),
            )
            self.pump.waiting.append((message, buffers))
        self.pump.wake()
        return submission

    def submit_parts(
        self,
        function: Function,
        calls: Sequence[Call],
        engine_ids: Sequence[EngineId],
        options: TaskOptions | None = None,
    ) -> Submission:
        """Submit to each of these engines a call of its own, all or none."""
        self._check_room()
        definition = self._definitions.of(function)
        payloads = [self._placed(dump_waiting(call)) for call in calls]
        now_s = unix_now_s()
        with self._lock:
            count = len(payloads)
            submission = self._start(count, now_s, engine_ids, options, definition)
            for index, (data, buffers) in enumerate(payloads):
                number = submission.first_number + index
                submission.watch_sending(buffers, self.pump.nudge)
                message = SubmitDirect(
                    number,
                    [engine_ids[index]],
                    definition.digest,
                    now_s,
                    data,
                    len(buffers),
                    *marks_of(options),
                )
                self.pump.waiting.append((message, buffers))
        self.pump.wake()
        return submission

    def submit_again(self, tasks: Sequence[Again]) -> list[Submission]:
        """Submit tasks as they were recorded, all or none, each with a new id."""
        self._check_room()
        now_s = unix_now_s()
        submissions: list[Submission] = []
        with self._lock:
            for task in tasks:
                submission = self._start(
                    1, now_s, task.engine_ids, task.options, task.definition
                )
                submission.inputs = task.inputs
                submissions.append(submission)
                self.pump.waiting.append(task.outgoing(submission))
        self.pump.wake()
        return submissions

    def _start(
        self,
        count: int,
        now_s: float,
        engine_ids: Sequence[EngineId] | None,
        options: TaskOptions | None,
        definition: Definition,
    ) -> Submission:
        number = self._next_number
        self._next_number = number + count
        submission = Submission(
            self.session_id, number, count, now_s, engine_ids, options, definition.name
        )
        self.ledger.expect(submission)
        define = self._definitions.needed(definition)
        if define is not None:
            self.pump.waiting.append(define)
        return submission

    @property
    def submitted_count(self) -> int:
        """How many tasks were submitted; their numbers are those below."""
        return self._next_number

    def _check_room(self) -> None:
        self.check_open()
        if len(self.ledger.awaited) >= self.max_outstanding:
            self._make_room()

    def _make_room(self) -> None:
        """Wait until fewer tasks are awaited than may be, or say that there are too many."""
        awaited = self.ledger.awaited
        if self.when_full == "block":
            self.wait(lambda: len(awaited) < self.max_outstanding)
            return
        self.wait(lambda: len(awaited) < self.max_outstanding, 0)
        if len(awaited) >= self.max_outstanding:
            raise QueueFull(
                f"{len(awaited)} tasks of this client have not ended, and max_outstanding is"
                f" {self.max_outstanding}: wait for some of them, raise max_outstanding, or"
                ' set when_full="block"'
            )

    def _push_back(self) -> None:
        waiting = self.pump.waiting
        self.pump.wait(lambda: len(waiting) < WAITING_COUNT_MAX // 2)

    # -- asking and waiting ----------------------------------------------------------------

    def ask(self, request: Callable[[int], Message]) -> int:
        """Send the request that is made from the id it gets; return the id."""
        self.check_open()
        with self._lock:
            self._next_request += 1
            request_id = self._next_request
            message = request(request_id)
            self.ledger.wanted_replies[request_id] = message
            # What asks for the past goes behind the submissions that are to be part of it.
            if isinstance(message, AskHistory):
                self.pump.put_passing((message, ()))
            else:
                self.pump.control_waiting.append((message, ()))
        self.pump.wake()
        return request_id

    def has_reply(self, request_id: int) -> bool:
        """Whether the answer to a request is there."""
        return request_id in self.ledger.replies

    def take_reply(self, request_id: int) -> tuple[Reply, Sequence[Buffer]]:
        """Return the answer to a request, once."""
        return self.ledger.replies.pop(request_id)

    def wait(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `is_done`, which is asked when something has arrived; return whether."""
        if is_done():
            return True
        self.check_open()
        try:
            return self.pump.wait(is_done, timeout_s)
        except ClusterError:
            self.check_open()  # closed meanwhile, by another thread: say that
            raise


def _close(
    pump: Pump, callbacks: CallbackThread, sharing: Sharing, tunnel: Tunnel | None
) -> None:
    pump.close(Goodbye("the client was closed"))
    callbacks.close()
    sharing.close()
    if tunnel is not None:
        tunnel.close()
