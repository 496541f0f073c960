"""How a task ended, from its record back to the message that said so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import ErrorInfo, Outputs, Status, TaskEnded


def ended_from(record: Mapping[str, object]) -> tuple[TaskEnded, list[bytes]]:
    """Return what the client was or would have been told of a task that has ended.

    Parameters
    ----------
    record
        With the keys `store.restored.ENDED_KEYS`.

    Returns
    -------
    tuple
        The message and its frames. If the result was too large to be kept, the task counts as
        failed, with a LookupError that says how large it was.
    """
    status = cast("Status", record["status"])
    error = None
    if record["ename"] is not None:
        text = cast("str", record["traceback"] or "")
        error = ErrorInfo(str(record["ename"]), str(record["evalue"]), text)
    data = cast("bytes", record["data"] or b"")
    frames = cast("bytes", record["frames"] or b"")
    buffers: list[bytes] = msgspec.msgpack.decode(frames) if frames else []
    if status == "ok" and not data and not buffers:
        status = "error"
        text = f"the result, of {record['data_bytes']} bytes, is not kept in the database"
        error = ErrorInfo("LookupError", text)
    engine_id = record["engine_id"]
    outputs = Outputs(
        cast("str", record["stdout"] or ""),
        cast("str", record["stderr"] or ""),
        cast("bytes", record["outputs"] or b""),
        cast("bytes", record["execute_result"] or b""),
    )
    ended = TaskEnded(
        cast("TaskId", record["msg_id"]),
        status,
        EngineId(-1 if engine_id is None else cast("int", engine_id)),
        cast("float", record["started"] or 0.0),
        cast("float", record["completed"] or 0.0),
        data,
        len(buffers),
        error,
        outputs,
        cast("int", record["retries"] or 0),
    )
    return ended, buffers
