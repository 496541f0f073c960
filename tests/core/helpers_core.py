"""Events with what a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parallelz.core.events import Action, EndTask, EngineArrived, EngineLost, PlaceTask
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    Dependency,
    EngineInfo,
    PeerInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskFinished,
    TaskOptions,
    TasksDropped,
)

ME = SessionId("me")
NOBODY = SessionId("")


def task(number: int) -> TaskId:
    return TaskId(f"me-{number}")


def engine_session(number: int) -> SessionId:
    return SessionId(f"engine{number}")


def arrive(
    number: int, labels: Sequence[str] = (), resources: Mapping[str, float] | None = None
) -> EngineArrived:
    peer = PeerInfo("host", "host-id", 100 + number)
    info = EngineInfo(
        EngineId(number), engine_session(number), peer, list(labels), dict(resources or {})
    )
    return EngineArrived(info)


def lose(number: int, cause: str = "killed", started_count: int = -1) -> EngineLost:
    return EngineLost(engine_session(number), cause, started_count)


def submit(
    number: int,
    *,
    after: list[int] | None = None,
    follow: list[int] | None = None,
    engines: list[int] | None = None,
    retries: int = 0,
    timeout_s: float = 0.0,
    every: bool = True,
    success: bool = True,
    failure: bool = False,
    digest: bytes = b"f",
) -> SubmitTask:
    def dependency(numbers: list[int] | None) -> Dependency | None:
        if numbers is None:
            return None
        return Dependency([task(n) for n in numbers], every, success, failure)

    engine_ids = None if engines is None else [EngineId(e) for e in engines]
    options = TaskOptions(dependency(after), dependency(follow), engine_ids, retries, timeout_s)
    plain = TaskOptions()
    return SubmitTask(
        task(number), Digest(digest), 0.0, options=None if options == plain else options
    )


def submit_map(first: int, count: int, digest: bytes = b"f") -> SubmitMap:
    return SubmitMap(first, Digest(digest), 0.0, [b""] * count)


def submit_direct(first: int, engines: list[int], digest: bytes = b"f") -> SubmitDirect:
    return SubmitDirect(first, [EngineId(e) for e in engines], Digest(digest), 0.0)


def finish(
    number: int,
    *,
    ok: bool = True,
    duration_s: float = 1.0,
    status: str = "",
    retry_after_s: float = 0.0,
    client: SessionId = ME,
) -> TaskFinished:
    return TaskFinished(
        TaskId(f"{client}-{number}"),
        status or ("ok" if ok else "error"),  # type: ignore[arg-type]
        10.0,
        10.0 + duration_s,
        retry_after_s=retry_after_s,
    )


def dropped(numbers: list[int]) -> TasksDropped:
    return TasksDropped([task(n) for n in numbers])


def placed(actions: list[Action]) -> list[tuple[int, int]]:
    """Return (task number, engine id) of what was placed."""
    return [
        (int(a.task_id.rpartition("-")[2]), a.engine_id)
        for a in actions
        if isinstance(a, PlaceTask)
    ]


def ended(actions: list[Action]) -> list[tuple[int, str]]:
    """Return (task number, status) of what has ended."""
    return [
        (int(a.task_id.rpartition("-")[2]), a.status) for a in actions if isinstance(a, EndTask)
    ]
