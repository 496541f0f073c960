"""An engine: two threads, each with a connection of its own.

The *main* thread owns `bulk`. When idle it waits there; it takes in envelopes of tasks, runs
them in order and sends the results itself, so that a round trip has no switch of threads.
Results of short tasks travel together: they are sent when there is nothing more to run, or
`RESULTS_PERIOD_S` after the first.

The *I/O* thread owns `control` and obeys at once, whatever the main thread does: it revokes
tasks, interrupts, stops. And when the main thread has gone into a long task with results of
others still in its hands, the I/O thread sends those, on `control`. It also sends what a task
that runs for longer has printed so far.

When the controller is another one than before, the I/O thread tells it at once what has started
here. Names and modules stay as they are.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

from parallelz.engine import verbs
from parallelz.engine.namespace import Main
from parallelz.engine.output import output
from parallelz.engine.results import Results
from parallelz.engine.runner import Runner
from parallelz.engine.started import SLOTS_COUNT, StartedTasks
from parallelz.engine.startup import run_startup
from parallelz.engine.workqueue import Job, WorkQueue
from parallelz.engine_options import EngineOptions
from parallelz.errors import UnknownFunction
from parallelz.ids import SessionId
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.envelope import Buffer, Item
from parallelz.protocol.functions import FunctionTable
from parallelz.protocol.messages import (
    ClearNamespace,
    DefineFunction,
    DropTasks,
    EngineReturned,
    Goodbye,
    InterruptTask,
    LinkName,
    NamespaceCleared,
    Refused,
    RunTask,
    StopEngine,
    TasksDropped,
    Welcome,
)
from parallelz.protocol.roles import ToEngine
from parallelz.transport.peer import PeerLink, PeerPoller, Watch, endpoint_for
from parallelz.transport.pool import Sharing
from parallelz.transport.sockets import Waker, term_context

logger = logging.getLogger(__name__)

RESULTS_PERIOD_S = 0.002
LIVE_PERIOD_S = 0.1  # from the first output of a task to when it is sent, if it still runs
LIVE_KEPT_MAX = 50  # envelopes that a controller has not taken: no more are added
RESCUE_PERIOD_S = 0.005  # after which the I/O thread sends what the main thread holds
STOP_GRACE_S = 0.25  # for the main thread to come out of a task; then the process ends anyway
EXIT_REFUSED = 77  # not one that the code of a task is likely to choose
NO_OPTIONS = EngineOptions()

INTERRUPT_TASK_SIGNAL = signal.SIGURG
"""Not SIGINT, which is for whatever runs, so that one that comes late cannot be taken for that.
Nobody is hurt by it by default, and nobody uses it."""


class Engine:
    """One engine process, from its first hello to its end.

    Parameters
    ----------
    info
        Of the role ``engine``.
    session_id
        Who this is; the supervisor knows it, too.
    parent_fd
        Read end of a pipe whose other end lives as long as the supervisor does. None: nobody
        watches over this engine.
    options
        Its labels and resources are told to the controller.
    started
        Where it notes the tasks that it starts. None: nowhere.

    Raises
    ------
    StartupFailed
        By what was to run in its namespace first; the controller has not heard of it then.
    """

    def __init__(
        self,
        info: ConnectionInfo,
        session_id: SessionId,
        parent_fd: int | None = None,
        options: EngineOptions = NO_OPTIONS,
        started: StartedTasks | None = None,
    ) -> None:
        self._info = info
        self._options = options
        self._session_id = session_id
        self._main = Main()
        verbs.serve(self._main)
        run_startup(self._main, options)
        self._functions = FunctionTable(self._main.names)
        self._queue = WorkQueue()
        self._started = started
        self._runner = Runner(self._main)
        self._sharing = Sharing(info, session_id)
        self._parent = None if parent_fd is None else Watch(parent_fd)
        self._bulk = self._link("bulk")
        self._control = self._link("control")
        self._control.introduction = self._introduce
        self._main_waker = Waker()
        self._io_waker = Waker()
        self._results = Results(self._queue)
        self._bulk_controller_id = ""
        self._is_armed = False
        self._live_due_s = math.inf
        self._has_news = False
        self._clears: list[str] = []
        self._cleared: list[str] = []
        self._stop_reason = ""
        self._exit_code = 0
        self._main_is_done = threading.Event()
        self._main_thread_id = threading.get_ident()

    def _link(self, name: LinkName) -> PeerLink[ToEngine]:
        return PeerLink(
            endpoint_for(self._info),
            name,
            session_id=self._session_id,
            role="engine",
            token=self._info.token,
            incoming=ToEngine,
            labels=self._options.labels,
            resources=self._options.resources,
            is_supervised=self._parent is not None,
            leases=self._sharing.leases,
        )

    def run(self) -> int:
        """Work until told to stop; return the exit status. Call it in the main thread."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(INTERRUPT_TASK_SIGNAL, self._on_interrupt_task)
        signal.signal(signal.SIGTERM, self._on_terminate)
        output.on_news = self._note_news
        output.install()
        io_thread = threading.Thread(target=self._run_io, name="engine-io", daemon=True)
        io_thread.start()
        try:
            self._run_main()
        finally:
            self._main_is_done.set()
            self._io_waker.wake()
            io_thread.join()
            self._bulk.close(linger_s=0.5)
            self._sharing.close()
            self._main_waker.close()
            self._io_waker.close()
            term_context()
        return self._exit_code

    # -- the main thread -------------------------------------------------------------------

    def _run_main(self) -> None:
        poller = PeerPoller(self._bulk, self._main_waker)
        while not self._stop_reason:
            self._flush_results()
            now_s = time.monotonic()
            due_s = min(self._bulk.tick(now_s), self._sharing.tick(now_s))
            if self._main_waker in poller.poll(max(due_s - time.monotonic(), 0.0)):
                self._main_waker.drain()
            self._take_in_bulk()
            self._clear_if_asked()
            self._run_queue()
        self._flush_results()

    def _run_queue(self) -> None:
        queue = self._queue
        while not self._stop_reason and queue.open_count < SLOTS_COUNT:
            job = queue.start_next()
            if job is None:
                return
            self._run_job(job)

    def _run_job(self, job: Job) -> None:
        if self._started is not None:
            self._started.add(job.task_id)
        finished, buffers = self._runner.run(job)
        if buffers:
            buffers = self._sharing.place(buffers)
        self._results.add((finished, buffers))
        if self._clears:
            self._clear_if_asked()
        if len(self._queue):
            if time.monotonic() - self._results.since_s >= RESULTS_PERIOD_S:
                self._flush_results()
                self._take_in_bulk()
            elif not self._is_armed:
                self._is_armed = True
                self._io_waker.wake()

    def _take_in_bulk(self) -> None:
        jobs: list[Job] = []
        for message, buffers in self._bulk.receive():
            match message:
                case RunTask():
                    jobs.append(self._job(message, buffers))
                case DefineFunction():
                    self._functions.define(message.digest, message.name, message.data, buffers)
                case Welcome():
                    self._queue.extend(jobs, self._bulk_controller_id)
                    jobs = []
                    self._bulk_controller_id = message.controller_id
                case _:
                    pass  # greetings, which the link has dealt with; the rest is for `control`
        self._queue.extend(jobs, self._bulk_controller_id)
        if self._results.settle(self._bulk) and self._started is not None:
            self._started.settle(self._queue.settled_count)

    def _job(self, message: RunTask, buffers: Sequence[Buffer]) -> Job:
        try:
            function = self._functions.find(message.digest)
        except UnknownFunction:
            return Job(message.task_id, message.run, None, message.data, buffers)
        own, inputs = buffers, []
        if message.inputs:
            start = message.frame_count - sum(each.frame_count for each in message.inputs)
            own = buffers[:start]
            for each in message.inputs:
                end = start + each.frame_count
                inputs.append((each.data, buffers[start:end]))
                start = end
        return Job(message.task_id, message.run, function, message.data, own, inputs)

    def _flush_results(self) -> None:
        if self._bulk.has_room:
            self._results.put_on(self._bulk)
        elif not self._is_armed:
            self._is_armed = True  # the I/O thread sends them as soon as it can
            self._io_waker.wake()
        self._bulk.flush()

    def _clear_if_asked(self) -> None:
        while self._clears:
            self._main.clear()
            self._cleared.append(self._clears.pop(0))
            self._io_waker.wake()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Interrupt user code, and nothing else: an idle engine lives on."""
        if self._runner.running:
            raise KeyboardInterrupt

    def _on_interrupt_task(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the task that is meant, if it still runs.

        Nothing else runs in this thread until it is decided.
        """
        running = self._runner.running
        if running is not None and self._runner.is_to_interrupt(running):
            raise KeyboardInterrupt

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._stop(signal.Signals(number).name)

    def _stop(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason
        self._main_waker.wake()
        self._io_waker.wake()

    # -- the I/O thread --------------------------------------------------------------------

    def _run_io(self) -> None:
        watched = [] if self._parent is None else [self._parent]
        poller = PeerPoller(self._control, self._io_waker, *watched)
        while not self._stop_reason:
            timeout_s = self._control.tick(time.monotonic()) - time.monotonic()
            if self._is_armed and self._control.has_room:
                timeout_s = min(timeout_s, RESCUE_PERIOD_S)
            timeout_s = min(timeout_s, self._live_due_s - time.monotonic())
            ready = poller.poll(max(timeout_s, 0.0))
            if self._io_waker in ready:
                self._io_waker.drain()
            if self._parent in ready:
                self._stop("its supervisor is gone")
            for message, _ in self._control.receive():
                self._obey(message)
            if self._results.settle(self._control):
                self._main_waker.wake()  # it may have waited for that
            self._rescue_results()
            self._show_live()
            while self._cleared:
                self._control.put(NamespaceCleared(self._cleared.pop(0)))
            self._control.flush()
        self._leave(poller)

    def _introduce(self, _: int) -> list[Item]:
        """Return what a controller must know that is another one than before."""
        task_ids, runs = self._queue.begin(self._control.controller_id)
        count = -1 if self._started is None else self._started.count
        returned: Item = (EngineReturned(task_ids, runs, count), ())
        return [returned, *self._results.unacknowledged("bulk")]

    def _obey(self, message: ToEngine) -> None:
        match message:
            case DropTasks():
                self._control.put(
                    TasksDropped(*self._queue.revoke(message.task_ids, message.runs))
                )
            case InterruptTask(""):
                signal.pthread_kill(self._main_thread_id, signal.SIGINT)
            case InterruptTask():
                self._runner.interrupt(message.task_id, message.run)
                signal.pthread_kill(self._main_thread_id, INTERRUPT_TASK_SIGNAL)
            case ClearNamespace():
                self._clears.append(message.request_key)
                self._main_waker.wake()
            case StopEngine():
                self._stop(message.reason)
            case Goodbye():
                logger.info("= the controller said goodbye: %s", message.reason)
            case Refused():
                self._exit_code = EXIT_REFUSED
                self._stop(f"refused: {message.reason}")
            case Welcome():
                logger.info("= engine %d", message.engine_id)
            case _:
                pass  # what only `bulk` brings

    def _rescue_results(self) -> None:
        """Send what the main thread holds, if it has been in one task for a while."""
        if not (self._is_armed and self._control.has_room):
            return
        self._is_armed = bool(self._results)
        if self._is_armed and time.monotonic() - self._results.since_s >= RESCUE_PERIOD_S:
            self._is_armed = False
            self._results.put_on(self._control)

    def _note_news(self) -> None:
        """Take in that a task has begun to show something; from any thread."""
        self._has_news = True
        if self._live_due_s == math.inf:
            self._io_waker.wake()

    def _show_live(self) -> None:
        """Send what the running task has shown, a while after it began to."""
        now_s = time.monotonic()
        if self._has_news:
            self._has_news = False
            self._live_due_s = min(self._live_due_s, now_s + LIVE_PERIOD_S)
        if now_s < self._live_due_s:
            return
        self._live_due_s = math.inf
        if self._control.kept_count > LIVE_KEPT_MAX:
            return
        live = output.take_live()
        if live is not None:
            self._control.put(live)

    def _leave(self, poller: PeerPoller) -> None:
        """Say goodbye, and see to it that the process ends."""
        logger.info("= ends: %s", self._stop_reason)
        is_out = self._main_is_done.wait(STOP_GRACE_S)
        self._results.put_on(self._control)
        self._control.put(Goodbye(self._stop_reason))
        self._control.flush()
        if not is_out:
            give_up_s = time.monotonic() + STOP_GRACE_S
            while self._control.kept_count and time.monotonic() < give_up_s:
                poller.poll(give_up_s - time.monotonic())
                self._control.receive()
            logging.shutdown()
            os._exit(self._exit_code)
        with contextlib.suppress(ValueError):
            self._control.close(linger_s=0.5)
