"""Records as a controller makes them, in short."""

from __future__ import annotations

from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    EngineInfo,
    ErrorInfo,
    PeerInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskEnded,
    TaskOptions,
)
from parallelz.protocol.outputs import Outputs
from parallelz.store import record
from parallelz.store.interface import Run
from parallelz.store.record import Record

ME = SessionId("client")
E0 = SessionId("engine0")
F = Digest(b"\x01" * 16)
RUN = Run("first", "cluster")


def tid(number: int) -> TaskId:
    return TaskId(f"{ME}-{number}")


def submission(
    number: int,
    *,
    name: str = "f",
    data: bytes = b"arguments",
    submitted_s: float = 1.0,
    options: TaskOptions | None = None,
    buffers: tuple[bytes, ...] = (),
) -> Record:
    message = SubmitTask(tid(number), F, submitted_s, data, len(buffers), options)
    return record.decode(record.submitted(ME, message, name, buffers, submitted_s + 0.1))


def map_submission(
    first: int,
    items: list[bytes],
    options: TaskOptions | None = None,
    submitted_s: float = 1.0,
    times_s: tuple[float, ...] = (),
) -> Record:
    message = SubmitMap(first, F, submitted_s, items, options, list(times_s))
    return record.decode(record.submitted(ME, message, "f", (), submitted_s + 0.1))


def direct_submission(
    first: int,
    engine_ids: list[int],
    data: bytes = b"arguments",
    tags: dict[str, str | int | float] | None = None,
) -> Record:
    ids = [EngineId(i) for i in engine_ids]
    message = SubmitDirect(first, ids, F, 1.0, data, tags=tags or {})
    return record.decode(record.submitted(ME, message, "f", (), 1.1))


def end(
    number: int,
    *,
    status: str = "ok",
    data: bytes = b"result",
    ended_s: float = 4.0,
    error: ErrorInfo | None = None,
    outputs: Outputs | None = None,
    buffers: tuple[bytes, ...] = (),
    engine_id: int = 0,
) -> Record:
    message = TaskEnded(
        tid(number),
        status,  # type: ignore[arg-type]
        EngineId(engine_id),
        started_s=2.0 if engine_id >= 0 else 0.0,
        completed_s=3.0 if engine_id >= 0 else 0.0,
        data=data,
        frame_count=len(buffers),
        error=error,
        outputs=outputs,
    )
    return record.decode(record.ended(message, E0 if engine_id >= 0 else "", buffers, ended_s))


def engine_record(cause: str = "") -> Record:
    info = EngineInfo(EngineId(0), E0, PeerInfo("node7", "kernel", 42))
    return record.decode(record.engine_changed(info, cause, 1.0))
