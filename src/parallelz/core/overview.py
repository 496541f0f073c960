"""How busy everything is: what someone sees who watches a cluster.

It is asked for again and again while the cluster works, so it costs by the number of engines,
lanes and clients, never by that of tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import nlargest
from typing import Literal

from parallelz.core.roster import ANY, Engine
from parallelz.core.scheduler import Scheduler
from parallelz.core.task import Task
from parallelz.ids import SessionId
from parallelz.protocol.answers import EngineLoad, Failure, Overview, Queue

QUEUES_SHOWN_MAX = 50
ONE_ENGINE = "was named alone"


def overview(
    scheduler: Scheduler,
    now_s: float,
    *,
    function_of: Callable[[Task], str],
    client_of: Callable[[SessionId], str],
    controller_pid: int,
    trouble: str,
) -> Overview:
    """Return what runs and what waits.

    Parameters
    ----------
    function_of, client_of
        What to call the function of a task, and a client.
    controller_pid, trouble
        See `Overview`.
    """
    roster, board = scheduler.roster, scheduler.board
    engines = list(roster.engines.values())
    counts: Counter[tuple[str, SessionId]] = Counter()
    for lane in roster.lanes.values():
        needs = "" if lane.needs == ANY else str(lane.needs)
        for session_id, count in lane.queue.counts().items():
            counts[needs, session_id] += count
    for engine in engines:
        for session_id, count in engine.direct.counts().items():
            counts[ONE_ENGINE, session_id] += count
    ready_count = counts.total()
    placed_count = sum(len(engine.placed) for engine in engines)
    longest = nlargest(QUEUES_SHOWN_MAX, counts.items(), key=lambda item: item[1])
    return Overview(
        controller_pid,
        [_load(engine, now_s, function_of) for engine in engines],
        [Queue(needs, who, client_of(who), count) for (needs, who), count in longest],
        ready_count,
        len(scheduler.tasks) - ready_count - placed_count,
        {str(status): count for status, count in board.ended_counts.items()},
        [
            Failure(
                now_s - failed.now_s,
                failed.name,
                failed.engine_id if failed.engine_id >= 0 else None,
                failed.cause,
            )
            for failed in reversed(board.failed)
        ],
        trouble,
    )


def _load(engine: Engine, now_s: float, function_of: Callable[[Task], str]) -> EngineLoad:
    current, peer = engine.current, engine.info.peer
    return EngineLoad(
        engine.id,
        peer.host,
        peer.host_id,
        peer.pid,
        _state(engine),
        "" if current is None else current.name,
        "" if current is None else function_of(current),
        0.0 if current is None else now_s - engine.since_s,
        len(engine.placed),
        engine.direct.count,
        engine.ended_count,
    )


def _state(engine: Engine) -> Literal["idle", "busy", "draining", "away"]:
    if engine.is_away:
        return "away"
    if engine.is_draining:
        return "draining"
    return "busy" if engine.placed else "idle"
