"""What an answer means: the value it brings, or the exception to raise; and its metadata."""

from __future__ import annotations

import datetime
import operator
from collections.abc import Sequence

import msgspec

from parallelz import errors
from parallelz.client.ledger import Answer, Ledger, Submission
from parallelz.client.live import published
from parallelz.errors import SerializationError
from parallelz.ids import EngineId
from parallelz.protocol.failures import FailedItem, rebuild
from parallelz.protocol.messages import EngineInfo, ErrorInfo, TaskOptions
from parallelz.protocol.outputs import Outputs
from parallelz.protocol.payload import load
from parallelz.protocol.texts import text_of

is_told_by_its_text = operator.methodcaller("errisinstance", errors.ParallelzError)
"""As ``__tracebackhide__`` of a module: pytest leaves its frames out where they say nothing.

That is when the error is one of ours, which says itself what happened, and not one in our code.
"""

METADATA_KEYS = (
    "msg_id",
    "submitted",
    "started",
    "completed",
    "received",
    "engine_id",
    "engine_uuid",
    "host",
    "status",
    "error",
    "retries",
    "queued_s",
    "ran_s",
    "after",
    "follow",
    "label",
    "tags",
    "stdout",
    "stderr",
    "outputs",
    "execute_input",
    "execute_result",
    "data",
)


class Metadata(dict[str, object]):
    """What is known of one task; also as attributes. Unknown so far: None.

    Times are aware datetimes: ``submitted`` and ``received`` by this process's clock,
    ``started`` and ``completed`` by the engine's. ``ran_s`` and ``queued_s`` are seconds,
    ``retries`` counts the runs before the last one.
    """

    def __setitem__(self, key: str, value: object) -> None:
        if key not in METADATA_KEYS:
            raise KeyError(f"{key!r} is not among the metadata of a task: {METADATA_KEYS}")
        super().__setitem__(key, value)

    def __getattr__(self, name: str) -> object:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the metadata of a task have no {name!r}") from None


def engine_of(
    ledger: Ledger, engine_id: EngineId, engine_uuid: str | None = None
) -> EngineInfo | None:
    """Return what is known of an engine that is or was there.

    Parameters
    ----------
    engine_uuid
        Only if it is this one: in another run of the cluster its id was another's.
    """
    info = ledger.engines.get(engine_id) or ledger.past_engines.get(engine_id)
    is_other = info is not None and engine_uuid is not None and info.session_id != engine_uuid
    return None if is_other else info


class Failed:
    """In place of a value: the task failed with this."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def outcome_of(ledger: Ledger, answer: Answer, method: str) -> object:
    """Return the value of a task that has ended, or `Failed`."""
    try:
        return value_of(ledger, answer, method)
    except Exception as error:  # noqa: BLE001 - the task's, or of the user's own classes
        return Failed(error.with_traceback(None))


def value_of(ledger: Ledger, answer: Answer, method: str) -> object:
    """Return the value of a task that ended well.

    Raises
    ------
    Exception
        What the task raised, or why it has no value.
    """
    ended, buffers = answer.ended, answer.buffers
    if ended.status == "ok":
        try:
            value = load(ended.data, buffers)
        except Exception as error:
            raise SerializationError(
                f"the result of task {ended.task_id}, from engine {ended.engine_id}, cannot be"
                f" made here: {type(error).__name__}: {text_of(error)}"
            ) from error
        if type(value) is list and any(type(item) is FailedItem for item in value):
            return _with_exceptions(ledger, answer, value, method)
        return value
    raise failure_of(ledger, answer, method)


def failure_of(ledger: Ledger, answer: Answer, method: str) -> Exception:
    """Return the exception for a task that did not end well."""
    ended, buffers = answer.ended, answer.buffers
    error = ended.error or ErrorInfo("", "")
    match ended.status:
        case "aborted":
            return errors.TaskAborted(ended.task_id, error.evalue)
        case "engine-lost":
            return errors.EngineError(error.evalue)
        case "lost":
            return errors.TaskLost(f"task {ended.task_id} got lost: {error.evalue}")
        case "timeout" if error.ename == "DependencyTimeout":
            return errors.DependencyTimeout(error.evalue)
        case "timeout":
            return errors.TaskTimeout(error.evalue)
        case "impossible" if error.ename == "InvalidDependency":
            return errors.InvalidDependency(error.evalue)
        case "impossible":
            return errors.ImpossibleDependency(error.evalue)
        case "ok" | "error":
            pass
    info = engine_of(ledger, ended.engine_id, answer.engine_uuid)
    return rebuild(
        error,
        ended.data,
        buffers,
        ended.engine_id,
        method=method,
        host="" if info is None else info.peer.host,
        pid=0 if info is None else info.peer.pid,
    )


def _with_exceptions(
    ledger: Ledger, answer: Answer, values: Sequence[object], method: str
) -> list[object]:
    engine_id = answer.ended.engine_id
    info = engine_of(ledger, engine_id, answer.engine_uuid)
    host, pid = ("", 0) if info is None else (info.peer.host, info.peer.pid)
    return [
        value.rebuild(engine_id, method=method, host=host, pid=pid)
        if isinstance(value, FailedItem)
        else value
        for value in values
    ]


def metadata_of(ledger: Ledger, submission: Submission, index: int) -> Metadata:
    """Return what is known of a task by now."""
    options = submission.options or TaskOptions()
    metadata = Metadata(dict.fromkeys(METADATA_KEYS))
    metadata.update(
        msg_id=submission.task_id(index),
        submitted=moment(submission.submitted_s),
        after=None if options.after is None else list(options.after.task_ids),
        follow=None if options.follow is None else list(options.follow.task_ids),
        label=options.label,
        tags=dict(options.tags),
        stdout="",
        stderr="",
        outputs=[],
        data={},
    )
    if submission.engine_ids is not None:
        _note_engine(metadata, ledger, submission.engine_ids[index])
    answer = submission.answers[index]
    live = None if submission.live is None else submission.live.get(index)
    if answer is None and live is not None:
        _note_engine(metadata, ledger, live.engine_id)
        metadata.update(
            stdout=live.stdout,
            stderr=live.stderr,
            outputs=live.displays,
            data=published(live.data),
        )
    if answer is not None:
        _note_end(metadata, ledger, answer, submission.submitted_s)
    return metadata


def _note_engine(
    metadata: Metadata, ledger: Ledger, engine_id: EngineId, engine_uuid: str | None = None
) -> None:
    metadata["engine_id"] = engine_id
    metadata["engine_uuid"] = engine_uuid or None
    info = engine_of(ledger, engine_id, engine_uuid)
    if info is not None:
        metadata["engine_uuid"] = info.session_id
        metadata["host"] = info.peer.host


def _note_end(metadata: Metadata, ledger: Ledger, answer: Answer, submitted_s: float) -> None:
    ended = answer.ended
    if ended.engine_id >= 0:
        _note_engine(metadata, ledger, ended.engine_id, answer.engine_uuid)
    metadata["received"] = moment(answer.received_s)
    metadata["status"] = ended.status
    metadata["retries"] = ended.retries
    if ended.error is not None:
        metadata["error"] = f"{ended.error.ename}: {ended.error.evalue}"
    if ended.started_s:
        metadata["started"] = moment(ended.started_s)
        metadata["completed"] = moment(ended.completed_s)
        metadata["ran_s"] = ended.completed_s - ended.started_s
        metadata["queued_s"] = ended.started_s - submitted_s
    outputs = ended.outputs or Outputs()
    metadata["stdout"] = outputs.stdout
    metadata["stderr"] = outputs.stderr
    if outputs.data:
        metadata["data"] = published(outputs.data)
    if outputs.displays:
        metadata["outputs"] = msgspec.msgpack.decode(outputs.displays)
    if outputs.execute_result:
        metadata["execute_result"] = msgspec.msgpack.decode(outputs.execute_result)


def moment(unix_s: float) -> datetime.datetime:
    """Return a time as an aware datetime."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
