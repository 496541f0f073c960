"""What waits and runs where: questions to the scheduler that change nothing."""

from __future__ import annotations

from parallelz.core.scheduler import Scheduler
from parallelz.core.task import TaskState
from parallelz.ids import EngineId
from parallelz.protocol.answers import EngineQueue, QueueStatus


def queue_status(
    scheduler: Scheduler, engine_ids: list[EngineId], *, verbose: bool
) -> QueueStatus:
    """Return what waits and runs on each of these engines, and what is nowhere yet.

    Engines that are gone are left out. `EngineQueue.queue` is what was bound for the engine,
    `EngineQueue.tasks` what was placed there by the balance.
    """
    queues: dict[EngineId, EngineQueue] = {}
    for engine_id in engine_ids:
        engine = scheduler.roster.engines.get(engine_id)
        if engine is None:
            continue
        bound = [t.id for t in engine.placed.values() if t.engine_ids is not None]
        bound += [t.id for t in engine.bound if t.state is TaskState.READY]
        free = [t.id for t in engine.placed.values() if t.engine_ids is None]
        queues[engine_id] = EngineQueue(
            bound if verbose else len(bound),
            engine.ended_count,
            free if verbose else len(free),
        )
    unassigned = [
        t.id
        for t in scheduler.tasks.values()
        if t.engine_id is None and (t.engine_ids is None or t.state is TaskState.WAITING)
    ]
    return QueueStatus(queues, unassigned if verbose else len(unassigned))
