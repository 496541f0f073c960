"""A controller and engines as threads: enough of a cluster for a client to be tested."""

from __future__ import annotations

import contextlib
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from parallelz.controller.controller import Controller
from parallelz.controller.recording import Recording
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.failures import FailedItem, describe
from parallelz.protocol.functions import FunctionTable
from parallelz.protocol.messages import (
    ClearNamespace,
    DefineFunction,
    DropTasks,
    Goodbye,
    NamespaceCleared,
    RunTask,
    StopEngine,
    TaskFinished,
    TasksDropped,
)
from parallelz.protocol.outputs import Outputs
from parallelz.protocol.payload import dump, load
from parallelz.protocol.roles import ToEngine
from parallelz.transport.peer import PeerLink, PeerPoller, Waker, endpoint_for, new_session_id
from parallelz.transport.security import ClusterSecrets, new_secrets
from parallelz.transport.sockets import term_context

TIMEOUT_S = 10.0


class Namespace(dict[str, object]):
    """Names, also as attributes."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__  # type: ignore[assignment]


class ThreadEngine(threading.Thread):
    """Runs tasks one after the other, as an engine does, in a thread of the test."""

    def __init__(self, secrets: ClusterSecrets) -> None:
        super().__init__()
        info = secrets.infos["engine"]
        session_id = new_session_id()
        self.links = [
            PeerLink(
                endpoint_for(info),
                name,
                session_id=session_id,
                role="engine",
                token=info.token,
                incoming=ToEngine,
            )
            for name in ("bulk", "control")
        ]
        self.namespace = Namespace()
        self.waker = Waker()
        self.may_run = threading.Event()  # cleared: what arrives waits
        self.may_run.set()
        self._table = FunctionTable(self.namespace)
        self._queue: list[tuple[RunTask, Sequence[Buffer]]] = []
        self._is_over = False
        self.start()

    def run(self) -> None:
        poller = PeerPoller(*self.links, self.waker)
        while not self._is_over:
            poller.poll(0.0 if self._queue and self.may_run.is_set() else 0.2)
            self.waker.drain()
            for link in self.links:
                for message, buffers in link.receive():
                    self._take(message, buffers)
                link.tick(time.monotonic())
            if self._queue and self.may_run.is_set():
                self._perform(*self._queue.pop(0))
            for link in self.links:
                link.flush()
        for link in self.links:
            link.close(1.0)
        self.waker.close()

    def hold(self) -> None:
        self.may_run.clear()

    def go_on(self) -> None:
        self.may_run.set()
        self.waker.wake()

    def stop(self) -> None:
        self._is_over = True
        self.may_run.set()
        self.waker.wake()
        self.join(TIMEOUT_S)

    def _take(self, message: object, buffers: Sequence[Buffer]) -> None:
        match message:
            case DefineFunction():
                self._table.define(message.digest, message.name, message.data, buffers)
            case RunTask():
                self._queue.append((message, buffers))
            case DropTasks():
                waiting = {task.task_id for task, _ in self._queue}
                dropped = [task_id for task_id in message.task_ids if task_id in waiting]
                kept = [task_id for task_id in message.task_ids if task_id not in waiting]
                self._queue = [item for item in self._queue if item[0].task_id not in dropped]
                self.links[0].put(TasksDropped(dropped, kept))
            case ClearNamespace():
                self.namespace.clear()
                self.links[1].put(NamespaceCleared(message.request_key))
            case StopEngine():
                self.links[1].put(Goodbye(message.reason))
                self.links[1].flush()
                self._is_over = True
            case _:
                pass

    def _perform(self, task: RunTask, buffers: Sequence[Buffer]) -> None:
        started_s = time.time()
        printed = io.StringIO()
        try:
            function = self._table.resolve(task.digest)
            kind, args, kwargs = load(task.data, buffers)  # type: ignore[misc]
            value = self._call(function, kind, args, kwargs, printed)
            data, frames = dump(value)
            error, status = None, "ok"
        except Exception as failure:  # noqa: BLE001 - the function under test
            error, pickled = describe(failure)
            data, frames = pickled or (b"", ())
            status = "error"
        self.links[0].put(
            TaskFinished(
                task.task_id,
                status,  # type: ignore[arg-type]
                started_s,
                time.time(),
                data,
                len(frames),
                error,
                Outputs(printed.getvalue()) if printed.getvalue() else None,
            ),
            frames,
        )

    def _call(
        self,
        function: Callable[..., object],
        kind: int,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        printed: io.StringIO,
    ) -> object:
        first = (self.namespace,) if kind in (1, 3) else ()
        with contextlib.redirect_stdout(printed):
            if kind < 2:
                return function(*first, *args, **kwargs)
            results: list[object] = []
            for items in zip(*args, strict=True):  # type: ignore[call-overload]
                try:
                    results.append(function(*first, *items))
                except Exception as failure:
                    if not kwargs.get("return_exceptions"):
                        raise
                    results.append(FailedItem.of(failure))
            return results


class ThreadCluster:
    """What a test has to do with."""

    def __init__(self, directory: Path, recording: Recording) -> None:
        self.secrets = new_secrets("", runtime_dir=directory)
        self.info = self.secrets.infos["client"]
        self.controller = Controller(self.secrets, recording)
        self._thread = threading.Thread(target=self.controller.run)
        self._thread.start()
        self.engines: list[ThreadEngine] = []

    def add_engine(self) -> ThreadEngine:
        engine = ThreadEngine(self.secrets)
        self.engines.append(engine)
        return engine

    def stop_controller(self) -> None:
        self.controller.stop("the test ends")
        self._thread.join(TIMEOUT_S)
        self.controller.close()

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()
        if self._thread.is_alive():
            self.stop_controller()
        term_context()


@contextlib.contextmanager
def running_cluster(engine_count: int) -> Iterator[ThreadCluster]:
    """Serve in threads, without a recorder."""
    with tempfile.TemporaryDirectory(prefix="parallelz-") as directory:
        cluster = ThreadCluster(Path(directory), Recording(None))
        try:
            for _ in range(engine_count):
                cluster.add_engine()
            yield cluster
        finally:
            cluster.stop()
