"""Runs one task: what arrived in, what is to be said of it out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from parallelz.engine.missing import add_hint
from parallelz.engine.namespace import Main
from parallelz.engine.output import output
from parallelz.engine.workqueue import Job
from parallelz.errors import (
    ImpossibleDependency,
    RemoteError,
    UnknownFunction,
    UnmetDependency,
)
from parallelz.ids import TaskId
from parallelz.protocol import inputs, payload
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.failures import FailedItem, describe
from parallelz.protocol.functions import (
    column_may_refer,
    may_mention_reference,
    resolve_references,
)
from parallelz.protocol.messages import ErrorInfo, TaskFinished
from parallelz.protocol.payload import BOUND_CHUNK, CHUNK, PLAIN, Call
from parallelz.protocol.texts import sendable_text

INTERRUPTS_COUNT_MAX = 1000


class Runner:
    """Runs tasks in the main thread, one after another.

    Attributes
    ----------
    running
        The task whose code an interrupt would hit now; None: it would hit ours.
    """

    def __init__(self, main: Main) -> None:
        self._main = main
        self.running: Job | None = None
        self._to_interrupt: dict[tuple[TaskId, int], None] = {}

    def run(self, job: Job) -> tuple[TaskFinished, Sequence[Buffer]]:
        """Run a task to its end; whatever the user's code raises is part of the answer."""
        started_s = time.time()
        output.begin(job.task_id, job.run)
        try:
            self.running = job
            if self._to_interrupt and self.is_to_interrupt(job):
                raise KeyboardInterrupt
            value = self._call(job)
            self.running = None
            data, buffers = payload.dump(value)
        except BaseException as error:  # noqa: BLE001 - it is the user's code, and may exit, too
            self.running = None
            return self._failed(job, error, started_s)
        completed_s = time.time()
        finished = TaskFinished(
            job.task_id,
            "ok",
            started_s,
            completed_s,
            data,
            len(buffers),
            None,
            output.end(),
            run=job.run,
        )
        return finished, buffers

    def interrupt(self, task_id: TaskId, run: int) -> None:
        """Keep in mind that a run of a task is to be interrupted; from any thread."""
        self._to_interrupt[task_id, run] = None
        if len(self._to_interrupt) > INTERRUPTS_COUNT_MAX:  # what had ended when it was wanted
            self._to_interrupt.pop(next(iter(self._to_interrupt)), None)

    def is_to_interrupt(self, job: Job) -> bool:
        """Whether this run is to be interrupted; only once."""
        key = (job.task_id, job.run)
        return self._to_interrupt.pop(key, self) is None

    def _call(self, job: Job) -> object:
        if job.function is None:
            raise UnknownFunction(f"the function of task {job.task_id} was never sent here")
        call: Call = _load_call(job)
        kind, args, kwargs = call
        function = job.function.resolve()
        may_refer = not job.data or bool(job.inputs) or may_mention_reference(job.data)
        if kind in (CHUNK, BOUND_CHUNK):
            return self._call_chunk(function, kind, args, kwargs, may_refer=may_refer)
        if may_refer:
            args, kwargs = resolve_references(args, kwargs, self._main.names)
        if kind == PLAIN:
            return function(*args, **kwargs)
        return function(self._main.namespace, *args, **kwargs)

    def _call_chunk(
        self,
        function: Callable[..., object],
        kind: int,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        may_refer: bool,
    ) -> list[object]:
        sequences = cast("tuple[Sequence[object], ...]", args)
        if kind == BOUND_CHUNK:
            namespace = self._main.namespace
            inner = function

            def function(*items: object) -> object:
                return inner(namespace, *items)

        if may_refer and any(map(column_may_refer, sequences)):
            with_values = function

            def function(*items: object) -> object:
                return with_values(*resolve_references(items, {}, self._main.names)[0])

        if not kwargs.get("return_exceptions"):
            return list(map(function, *sequences))
        results: list[object] = []
        for items in zip(*sequences, strict=False):
            try:
                results.append(function(*items))
            except UnmetDependency:
                raise  # it is about the engine, so all of the chunk goes elsewhere
            except Exception as error:  # noqa: BLE001 - the user asked for it in place of a result
                add_hint(error)
                results.append(FailedItem.of(error, _files_to_skip()))
        return results

    def _failed(
        self, job: Job, error: BaseException, started_s: float
    ) -> tuple[TaskFinished, Sequence[Buffer]]:
        add_hint(error)
        described, pickled = describe(error, _files_to_skip())
        info = ErrorInfo(
            sendable_text(described.ename),
            sendable_text(described.evalue),
            sendable_text(described.traceback),
        )
        data, buffers = (b"", ()) if pickled is None else pickled
        is_unmet = _is_unmet(error)
        finished = TaskFinished(
            job.task_id,
            "unmet" if is_unmet else "error",
            started_s,
            time.time(),
            data,
            len(buffers),
            info,
            output.end(),
            _retry_after_s(error) if is_unmet else 0.0,
            job.run,
        )
        return finished, buffers


def _load_call(job: Job) -> Any:  # noqa: ANN401 - whatever the client has pickled
    try:
        if not job.inputs:
            return payload.load(job.data, job.buffers)
        with inputs.providing(job.inputs):
            return payload.load(job.data, job.buffers)
    except Exception as error:
        error.add_note("This happened while the arguments of the task were unpickled.")
        raise


def _is_unmet(error: BaseException) -> bool:
    """Return whether the task refuses to run here, and is not to fail for good.

    One that came from another task, by a client in this one, is an error like any other.
    """
    return isinstance(error, UnmetDependency) and not isinstance(
        error, ImpossibleDependency | RemoteError
    )


def _retry_after_s(error: BaseException) -> float:
    told = getattr(error, "retry_after_s", None)  # a class of the user's may not set it
    if isinstance(told, int | float) and math.isfinite(told):
        return max(float(told), 0.0)
    return 0.0


def _files_to_skip() -> list[str]:
    """Return whose frames at the top of a traceback are not the user's."""
    ipython = sys.modules.get("IPython")
    return [] if ipython is None else [str(Path(ipython.__file__ or "").parent)]
