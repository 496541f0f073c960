"""What waits and runs where, and why: questions to the scheduler that change nothing."""

from __future__ import annotations

from collections import Counter

from parallelz.core.alarms import Alarm
from parallelz.core.roster import Engine, Lane
from parallelz.core.scheduler import Scheduler
from parallelz.core.task import Stop, Task, TaskState
from parallelz.ids import EngineId, TaskId
from parallelz.protocol.answers import EngineQueue, QueueStatus, StoryLine
from parallelz.protocol.texts import span_text

NAMED_COUNT_MAX = 3


def queue_status(
    scheduler: Scheduler, engine_ids: list[EngineId], *, verbose: bool
) -> QueueStatus:
    """Return what waits and runs on each of these engines, and what is nowhere yet.

    Engines that are gone are left out. `EngineQueue.queue` is what was bound for the engine,
    `EngineQueue.tasks` what was placed there by the balance.
    """
    bound: dict[EngineId, list[TaskId]] = {}
    for lane in scheduler.roster.lanes.values():
        targets = lane.needs.engine_ids
        if targets is not None and len(targets) == 1:
            bound.setdefault(targets[0], []).extend(task.id for task in lane.queue.tasks())
    queues: dict[EngineId, EngineQueue] = {}
    for engine_id in engine_ids:
        engine = scheduler.roster.engines.get(engine_id)
        if engine is None:
            continue
        queue = [task.id for task in engine.placed.values() if task.engine_ids is not None]
        queue += [task.id for task in engine.direct.tasks()] + bound.get(engine_id, [])
        free = [task.id for task in engine.placed.values() if task.engine_ids is None]
        queues[engine_id] = EngineQueue(
            queue if verbose else len(queue),
            engine.ended_count,
            free if verbose else len(free),
        )
    unassigned = [
        task.id
        for task in scheduler.tasks.values()
        if task.engine_id is None and not _is_bound(task)
    ]
    return QueueStatus(queues, unassigned if verbose else len(unassigned))


def _is_bound(task: Task) -> bool:
    return (
        task.state is TaskState.READY
        and task.engine_ids is not None
        and len(task.engine_ids) == 1
    )


def story_lines(scheduler: Scheduler, task_id: TaskId, now_s: float) -> list[StoryLine]:
    """Return what happened to a task, oldest first, as far back as is remembered."""
    return [
        StoryLine(
            now_s - line.now_s, line.start.value, line.finish.value, line.cause, line.engine_id
        )
        for line in scheduler.story(task_id)
    ]


def why(scheduler: Scheduler, task_id: TaskId, now_s: float) -> str:
    """Return in one sentence why a task does not run, or where it does.

    "" if the task is not live and nothing is remembered of it.
    """
    task = scheduler.tasks.get(task_id)
    if task is None:
        return _why_over(scheduler, task_id, now_s)
    match task.state:
        case TaskState.WAITING:
            return f"{task.name} waits: {_why_waiting(scheduler, task, now_s)}"
        case TaskState.READY:
            return f"{task.name} is ready: {_why_ready(scheduler, task, now_s)}"
        case TaskState.PLACED | TaskState.ENDED:
            return f"{task.name} {_why_placed(scheduler, task, now_s)}"


def _why_over(scheduler: Scheduler, task_id: TaskId, now_s: float) -> str:
    lines = scheduler.story(task_id)
    if lines and lines[-1].finish is TaskState.ENDED:
        last = lines[-1]
        where = next(
            (f" on engine {x.engine_id}" for x in lines if x.engine_id is not None), ""
        )
        return f"{task_id} has ended {span_text(now_s - last.now_s)} ago{where}: {last.cause}"
    end = scheduler.board.ended.find(task_id)
    if end is None:
        return ""
    where = "" if end.engine_id < 0 else f" on engine {end.engine_id}"
    return f"{task_id} has {'ended well' if end.ok else 'failed'}{where}"


def _why_waiting(scheduler: Scheduler, task: Task, now_s: float) -> str:
    if held := scheduler.recovery.why(task.id):
        return held
    board = scheduler.board
    alarm = board.alarms.by_task.get(task.id)
    if alarm is not None and alarm[1] is Alarm.DELAY:
        return f"it is tried again in {span_text(alarm[0] - now_s)}"
    awaited = board.waits.awaited_by(task)
    parts: list[str] = []
    if awaited:
        named = [_standing(scheduler, other, now_s) for other in awaited[:NAMED_COUNT_MAX]]
        more = len(awaited) - len(named)
        parts.append("for " + "; ".join(named) + (f"; and {more} more" if more else ""))
    fetched = board.fetches.awaited_by(task)
    if fetched:
        parts.append(f"for its client to send the value of {', '.join(fetched)}")
    if alarm is not None:
        parts.append(f"at most {span_text(alarm[0] - now_s)} longer")
    return ", ".join(parts)


def _standing(scheduler: Scheduler, task_id: TaskId, now_s: float) -> str:
    """Return in a few words where a task stands that another waits for."""
    task = scheduler.tasks.get(task_id)
    if task is None:
        return f"the history to tell how {task_id} ended"
    if task.state is TaskState.PLACED:
        return f"{task.name}, which {_why_placed(scheduler, task, now_s)}"
    return f"{task.name}, which is {task.state.value}"


def _why_ready(scheduler: Scheduler, task: Task, now_s: float) -> str:
    roster = scheduler.roster
    if not roster.engines:
        return "there are no engines"
    if task.is_direct:
        assert task.engine_ids is not None
        engine = roster.engines[task.engine_ids[0]]
        place = _place(engine.direct.tasks(), task)
        return f"{_busy(engine, now_s)}, and {_before(place)} there"
    lane = roster.lane_of(task)
    if not lane.engines:
        return f"no engine {lane.needs}"
    return (
        f"{_lane_busy(scheduler, lane, now_s)}, and {_before(_place(lane.queue.tasks(), task))}"
    )


def _lane_busy(scheduler: Scheduler, lane: Lane, now_s: float) -> str:
    engines = list(lane.engines.values())
    draining = sum(engine.is_draining for engine in engines)
    if draining == len(engines):
        ids = ", ".join(str(engine.id) for engine in engines)
        return f"all engines that may run it ({ids}) are being drained"
    if len(engines) == 1:
        return _busy(engines[0], now_s)
    busy = [engine for engine in engines if engine.placed]
    which = "all" if lane is scheduler.roster.open else "that may run it all"
    away = [str(engine.id) for engine in engines if engine.is_away]
    if len(away) == len(engines):
        return f"all engines that may run it ({', '.join(away)}) are out of reach"
    if not busy:
        return "the engines have not answered yet what they give back"
    oldest = min(busy, key=lambda engine: engine.since_s)
    return (
        f"the {len(engines)} engines {which} have something to do,"
        f" engine {oldest.id} for {span_text(now_s - oldest.since_s)}"
    )


def _busy(engine: Engine, now_s: float) -> str:
    if engine.is_away:
        return f"engine {engine.id} is out of reach"
    if engine.current is not None:
        what, span = engine.current.name, span_text(now_s - engine.since_s)
        return f"engine {engine.id} has been running {what} for {span}"
    if engine.recall_count:
        return f"engine {engine.id} has not answered yet what it gives back"
    return f"engine {engine.id} is being drained"


def _place(tasks: list[Task], task: Task) -> int:
    return next((place for place, other in enumerate(tasks) if other is task), 0)


def _before(count: int) -> str:
    return (
        f"{count} other{'s are' if count != 1 else ' is'} before it" if count else "it is next"
    )


def _why_placed(scheduler: Scheduler, task: Task, now_s: float) -> str:
    assert task.engine_id is not None
    engine = scheduler.roster.engines[task.engine_id]
    asked = "" if task.stop is Stop.NO else f" and was asked to stop ({task.stop.value})"
    if engine.current is task:
        span = span_text(now_s - engine.since_s)
        return f"has been running on engine {engine.id} for {span}{asked}"
    place = _place(list(engine.placed.values()), task)
    return (
        f"is at engine {engine.id}, {place} {'places' if place > 1 else 'place'} behind"
        f" {engine.current.name if engine.current else '?'}, which has been running for"
        f" {span_text(now_s - engine.since_s)}{asked}"
    )


def dump(scheduler: Scheduler, now_s: float) -> dict[str, object]:
    """Return the state of everything, for a bug report; nothing of it is user data."""
    roster, board = scheduler.roster, scheduler.board
    states = Counter(task.state.value for task in scheduler.tasks.values())
    clients = Counter(task.session_id for task in scheduler.tasks.values())
    return {
        "scheme": roster.scheme.__name__,
        "hwm": roster.hwm,
        "tasks": dict(states),
        "tasks_by_client": dict(clients),
        "awaited": len(board.waits.by_task),
        "engines": {
            engine.id: _engine_state(engine, now_s) for engine in roster.engines.values()
        },
        "lanes": [
            {
                "needs": str(lane.needs),
                "tasks": len(lane.queue.tasks()),
                "engines": len(lane.engines),
            }
            for lane in roster.lanes.values()
        ],
        "story": [
            {
                "ago_s": round(now_s - line.now_s, 6),
                "task": line.task_id,
                "move": f"{line.start.value} -> {line.finish.value}",
                "cause": line.cause,
                "engine": line.engine_id,
            }
            for line in board.last_moves(1000)
        ],
    }


def _engine_state(engine: Engine, now_s: float) -> dict[str, object]:
    peer = engine.info.peer
    return {
        "host": peer.host,
        "pid": peer.pid,
        "session": engine.info.session_id,
        "labels": engine.info.labels,
        "resources": engine.info.resources,
        "runs": None if engine.current is None else engine.current.id,
        "for_s": round(now_s - engine.since_s, 6) if engine.placed else None,
        "placed": len(engine.placed),
        "direct": len(engine.direct.tasks()),
        "ended": engine.ended_count,
        "rank": engine.rank,
        "recalls": engine.recall_count,
        "draining": engine.is_draining,
        "away": engine.is_away,
        "late": engine.is_late,
    }
