"""From a record in the database back to the answer that the client of the task was sent.

Whoever did not get that answer (another client, one that comes back, a controller that starts
in the place of a dead one) gets this one instead, which is the same but for a result that was
too large to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import ErrorInfo, Status, TaskEnded
from parallelz.protocol.outputs import Outputs

NOWHERE = EngineId(-1)


def ended_from(record: Mapping[str, object]) -> tuple[TaskEnded, list[bytes]]:
    """Return how a task ended, and the frames behind that message.

    Parameters
    ----------
    record
        Of a task that has ended, with `restored.ENDED_KEYS`.

    Returns
    -------
    tuple
        A result that was too large to be kept makes it end with ``error``, a LookupError that
        says how large it was. An exception that was too large is left as its text.
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
        error = ErrorInfo(
            "LookupError",
            f"the result, of {record['data_bytes']} bytes, is not kept in the database",
        )
    engine_id = cast("int | None", record["engine_id"])
    ended = TaskEnded(
        TaskId(str(record["msg_id"])),
        status,
        NOWHERE if engine_id is None else EngineId(engine_id),
        cast("float", record["started"] or 0.0),
        cast("float", record["completed"] or 0.0),
        data,
        len(buffers),
        error,
        _outputs_from(record),
        cast("int", record["retries"] or 0),
    )
    return ended, buffers


def _outputs_from(record: Mapping[str, object]) -> Outputs | None:
    outputs = Outputs(
        cast("str", record["stdout"] or ""),
        cast("str", record["stderr"] or ""),
        cast("bytes", record["outputs"] or b""),
        cast("bytes", record["execute_result"] or b""),
    )
    return None if outputs == Outputs() else outputs
