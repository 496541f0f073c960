"""What a batch of records comes to: one row for each task that it mentions.

A row has two halves, what is known from the submission and what is known from the end. A task
that is submitted and ends within one batch is one row, written once. Both kinds of store keep
the same rows, and the names of their columns are the keys that users ask for.

Records may come again after a break (the sender cannot know what was written): of each half,
what came first holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from typing import Any, NamedTuple, assert_never

import msgspec

from parallelz.ids import Digest, task_id_of
from parallelz.protocol.messages import (
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskOptions,
)
from parallelz.store.record import (
    EndRecord,
    EngineRecord,
    FunctionRecord,
    Record,
    SubmissionRecord,
)
from parallelz.store.tags import packed

SUBMISSION_COLUMNS = (
    "msg_id",
    "client_uuid",
    "queue",
    "name",
    "digest",
    "submitted",
    "arrived",
    "label",
    "tags",
    "after",
    "follow",
    "options",
    "payload",
    "payload_frames",
    "payload_bytes",
)
END_COLUMNS = (
    "engine_id",  # of a direct task known from its submission on
    "status",
    "engine_uuid",
    "started",
    "completed",
    "received",
    "retries",
    "data",
    "frames",
    "data_bytes",
    "ename",
    "evalue",
    "traceback",
    "stdout",
    "stderr",
    "outputs",
    "execute_result",
)
COLUMNS = SUBMISSION_COLUMNS + END_COLUMNS
END = len(SUBMISSION_COLUMNS)
STATUS = COLUMNS.index("status")
PENDING = "pending"
PENDING_COLUMNS = COLUMNS[: STATUS + 1]  # all that is known of a task that has not ended

INT_MAX = 2**63 - 1  # what a database can hold

TASK_BYTES = 200  # about what a task takes beside its payload, when it is sent

Row = tuple[Any, ...]

_UNMARKED: Row = ("", None, None, None, None)
_NO_ERROR: Row = (None, None, None)
_NO_OUTPUTS: Row = ("", "", None, None)
_encode = msgspec.msgpack.Encoder().encode


class Engine(NamedTuple):
    """A row of the table of engines."""

    engine_uuid: str
    engine_id: int | None
    host: str
    pid: int | None
    changed: float
    cause: str  # "": it is there
    info: bytes  # msgpack: `messages.EngineInfo`


class Function(NamedTuple):
    """A row of the table of functions."""

    digest: Digest
    name: str
    data: bytes
    frames: bytes  # msgpack: list of buffers; b"": none


class Batch:
    """What became known, by table.

    Attributes
    ----------
    tasks
        By id, in the order of submission: rows of `COLUMNS`, or of `PENDING_COLUMNS` if the
        end did not come as well.
    ends
        By id: `END_COLUMNS` of tasks that were submitted before.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.tasks: dict[str, Row] = {}
        self.ends: dict[str, Row] = {}
        self.engines: dict[str, Engine] = {}
        self.functions: dict[bytes, Function] = {}
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        match record:
            case EndRecord():
                self._end(record)
            case SubmissionRecord():
                self._submit(record)
            case EngineRecord(engine, cause, changed_s):
                self.engines[engine.session_id] = Engine(
                    engine.session_id,
                    _valid(engine.engine_id),
                    engine.peer.host,
                    _valid(engine.peer.pid),
                    changed_s,
                    cause,
                    _encode(engine),
                )
            case FunctionRecord(digest, name, data, frames):
                self.functions.setdefault(digest, Function(digest, name, data, frames))
            case _:
                assert_never(record)

    def _submit(self, record: SubmissionRecord) -> None:
        client, message = record.client, record.message
        submitted_s = _number(message.submitted_s)
        head: Row = (record.name, message.digest, submitted_s, record.arrived_s)
        match message:
            case SubmitTask():
                self.tasks.setdefault(
                    message.task_id,
                    (
                        message.task_id,
                        client,
                        "balanced",
                        *head,
                        *_marks(message.options),
                        *_payload(message.data, record.frames, record.sizes),
                        None,
                        PENDING,
                    ),
                )
            case SubmitMap():
                self._submit_map(record, message)
            case SubmitDirect():
                payload = _payload(message.data, record.frames, record.sizes)
                tags = packed(message.tags)
                tail: Row = (*head, message.label, tags, None, None, None, *payload)
                for number, engine_id in enumerate(message.engine_ids, message.first_number):
                    task_id = task_id_of(client, number)
                    self.tasks.setdefault(
                        task_id,
                        (task_id, client, "direct", *tail, _valid(engine_id), PENDING),
                    )
            case _:
                assert_never(message)

    def _submit_map(self, record: SubmissionRecord, message: SubmitMap) -> None:
        client, sizes = record.client, record.sizes
        times_s = [_number(time_s) for time_s in message.times_s]
        if len(times_s) != len(message.items):
            times_s = [_number(message.submitted_s)] * len(message.items)
        head: Row = (record.name, message.digest)
        tail: Row = (record.arrived_s, *_marks(message.options))
        for index, data in enumerate(message.items):
            task_id = task_id_of(client, message.first_number + index)
            payload = (None, None, sizes[index]) if sizes else (data, None, len(data))
            submission: Row = (task_id, client, "balanced", *head, times_s[index], *tail)
            self.tasks.setdefault(task_id, (*submission, *payload, None, PENDING))

    def _end(self, record: EndRecord) -> None:
        ended = record.message
        task_id, error, outputs, size = ended.task_id, ended.error, ended.outputs, record.size
        if task_id in self.ends:
            return  # the first end counts, also if its submission came once more since
        started_s, completed_s, retries = ended.started_s, ended.completed_s, ended.retries
        end: Row = (
            ended.engine_id if 0 <= ended.engine_id <= INT_MAX else None,
            ended.status,
            record.engine_uuid or None,
            started_s if started_s and not isnan(started_s) else None,
            completed_s if completed_s and not isnan(completed_s) else record.ended_s,
            record.ended_s,
            retries if -INT_MAX <= retries <= INT_MAX else None,
            *_payload(ended.data, record.frames, [size] if size else []),
            *(_NO_ERROR if error is None else (error.ename, error.evalue, error.traceback)),
            *(
                _NO_OUTPUTS
                if outputs is None
                else (
                    outputs.stdout,
                    outputs.stderr,
                    outputs.displays or None,
                    outputs.execute_result or None,
                )
            ),
        )
        row = self.tasks.get(task_id)
        if row is None:
            self.ends.setdefault(task_id, end)
        else:
            self.tasks[task_id] = ended_row(row, end)


def lost_end(now_s: float, why: str, engine_id: object = None) -> Row:
    """Return the end of a task whose cluster ended before it did."""
    error: Row = ("ClusterError", why, "")
    outputs: Row = (None, None, None, None)
    return (engine_id, "lost", None, None, now_s, now_s, 0, None, None, None, *error, *outputs)


def ended_row(row: Row, end: Row) -> Row:
    """Return a task's row with its end, unless it has one."""
    return row[:END] + end if row[STATUS] == PENDING else row


def orphan_row(task_id: str, end: Row) -> Row:
    """Return what is known of a task whose submission got lost."""
    return (task_id, task_id.rpartition("-")[0], *(None,) * (END - 2), *end)


def legible(record: dict[str, object]) -> dict[str, object]:
    """Return a task's record with its lists of ids as lists, and its tags as a dictionary."""
    for key in ("after", "follow"):
        value = record.get(key)
        if isinstance(value, bytes):
            record[key] = msgspec.msgpack.decode(value)
    tags = record.get("tags")
    if isinstance(tags, bytes):
        record["tags"] = msgspec.json.decode(tags)
    return record


def _number(value: float) -> float | None:
    """Return it, None instead of NaN: databases do not agree about that."""
    return None if isnan(value) else value


def _marks(options: TaskOptions | None) -> Row:
    """Return label, tags, after, follow, options."""
    if options is None:
        return _UNMARKED
    after, follow = options.after, options.follow
    return (
        options.label,
        packed(options.tags),
        None if after is None else _encode(after.task_ids),
        None if follow is None else _encode(follow.task_ids),
        _encode(options),
    )


def _payload(data: bytes, frames: bytes, sizes: list[int]) -> Row:
    """Return data, frames and size; no data at all if it is only known how large it was."""
    if not sizes:
        return (data, None, len(data))
    if data or frames:
        return (data, frames or None, sizes[0])
    return (None, None, sizes[0])


def _valid(number: int) -> int | None:
    return number if 0 <= number <= INT_MAX else None
