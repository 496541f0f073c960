"""What must be true of the core's decisions: of orders to stop, retries, time and precedence.

Each of these can be told exactly, as they compare what was decided with what was known then
(`watch.Watch`), with what the engines saw (`work.Witness`), or with the moves of all tasks in
their order (`core.board.Board.last_moves`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from parallelz.core.board import STORY_LENGTH_MAX
from parallelz.core.scheduler import STOP_GRACE_S
from parallelz.core.task import TaskState, Transition
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import Dependency, EngineInfo, TaskOptions
from parallelz.testing.timeline import WALL_CLOCK_ORIGIN_S
from parallelz.testing.watch import Decision, Watch
from parallelz.testing.work import BUSY_S, Plan, Run, Witness

NO_OPTIONS = TaskOptions()
TOLERANCE_S = 1e-6  # of differences of times
TIMER_SLACK_S = 0.05
STOP_SLACK_S = 1.0  # for all messages that it takes to end an engine

Needs = tuple[frozenset[str], frozenset[tuple[str, float]]]


class Rules:
    """Checks them all; each method yields what is broken, in words.

    Parameters
    ----------
    plans
        All that was to be submitted.
    sound
        Engines that were always within reach, as was who could kill them; and when they ended
        (Unix time).
    late_s
        By how much the controller may come too late to what is due.
    is_forgetful
        Whether the history may not know what has ended.
    """

    def __init__(
        self,
        plans: Mapping[TaskId, Plan],
        witness: Witness,
        watch: Watch,
        sound: Mapping[SessionId, float],
        late_s: float,
        *,
        is_forgetful: bool,
    ) -> None:
        self._plans = plans
        self._witness = witness
        self._watch = watch
        self._sound = sound
        self._late_s = late_s
        self._is_forgetful = is_forgetful

    def broken(self) -> Iterator[str]:
        """Yield every rule that was not kept."""
        yield from self._ends()
        yield from self._stops()
        for task_id, runs in self._witness.starts.items():
            yield from self._retries(task_id)
            yield from self._pauses(task_id, sorted(runs, key=lambda run: run.run))
            yield from self._lengths(task_id, runs)
        for plan in self._plans.values():
            if plan.options is not None and plan.options.after is not None:
                yield from self._impossible(plan, plan.options.after)

    def _ends(self) -> Iterator[str]:
        """All that came ends, once, also when nobody waits for it any more."""
        for task_id in self._watch.submitted:
            count = len(self._watch.ends.get(task_id, ()))
            if count != 1:
                yield f"{task_id} was ended {count} times"

    # -- orders to stop --------------------------------------------------------------------

    def _stops(self) -> Iterator[str]:
        watch = self._watch
        for task_id in watch.stopped_early:
            if self._status_of(task_id) != "aborted":
                yield f"{task_id} was given up before it came and is {self._status_of(task_id)}"
            if task_id in self._witness.starts:
                yield f"{task_id} was given up before it came and ran"
        for task_id, since_s in watch.stopped_waiting.items():
            if self._status_of(task_id) != "aborted":
                yield f"{task_id} was given up unplaced and is {self._status_of(task_id)}"
            if any(
                placement.now_s > since_s for placement in watch.placements.get(task_id, ())
            ):
                yield f"{task_id} was given up unplaced and then placed"

    def _status_of(self, task_id: TaskId) -> str:
        end = self._watch.end_of(task_id)
        return "pending" if end is None else end.status

    # -- retries ---------------------------------------------------------------------------

    def _retries(self, task_id: TaskId) -> Iterator[str]:
        """What had not started on an engine that died runs elsewhere and costs no retry.

        So a task is given up with its engine only when it has started as often as it may, and
        the count of its runs is right. That can be told where a supervisor knew what had
        started. A refusal does not count, unless it died with its engine.
        """
        plan = self._plans[task_id]
        end = self._watch.end_of(task_id)
        losses = self._watch.losses
        placed_on = [placement.engine_id for placement in self._watch.placements[task_id]]
        is_known = all(losses[e].is_counted for e in placed_on if e in losses)
        if end is None or plan.kind == "direct" or not is_known:
            return
        finished = self._witness.finished.get(task_id, ())
        refused_by = [finish.engine_id for finish in finished if finish.status == "unmet"]
        most = len(self._witness.starts[task_id]) - sum(e not in losses for e in refused_by)
        least = most - sum(e in losses for e in refused_by)
        if end.status == "engine-lost" and end.engine_id >= 0:
            if not least <= 1 + plan.retries <= most:
                yield f"{task_id} was lost after {most} runs with {plan.retries} retries"
        elif end.status in ("ok", "error") and not least <= end.run_count <= most:
            yield f"{task_id} ran {most} times, of which {end.run_count} were counted"

    def _pauses(self, task_id: TaskId, runs: Sequence[Run]) -> Iterator[str]:
        """What refused an engine does not go there again; what is to wait a while does."""
        options = self._plans[task_id].options or NO_OPTIONS
        finished = self._witness.finished.get(task_id, ())
        ends = {finish.run: finish for finish in finished}
        is_busy = self._plans[task_id].work.outcome == "busy"
        refused_by: list[EngineId] = []
        retry_delay_s = options.retry_delay_s
        free_s = 0.0
        for run in runs:
            if run.engine_id in refused_by:
                yield f"{task_id} refused engine {run.engine_id} and started there again"
            if run.started_s < free_s - TOLERANCE_S:
                early_s = free_s - run.started_s
                yield f"{task_id} started its run {run.run} {early_s:g} s too early"
            finish = ends.get(run.run)
            if finish is not None and finish.status == "unmet":
                if is_busy:
                    free_s = finish.ended_s + BUSY_S
                else:
                    refused_by.append(run.engine_id)
                continue
            loss = self._watch.losses.get(run.engine_id)
            if loss is None or loss.is_counted:  # others may go on after they were given up
                ended_s = run.started_s if finish is None else finish.ended_s
                free_s = ended_s + retry_delay_s
            retry_delay_s *= 2

    def _lengths(self, task_id: TaskId, runs: Sequence[Run]) -> Iterator[str]:
        """What may run only for so long is ended soon after, even if it does not listen."""
        max_runtime_s = (self._plans[task_id].options or NO_OPTIONS).max_runtime_s
        ends = {
            finish.run: finish.ended_s for finish in self._witness.finished.get(task_id, ())
        }
        if not max_runtime_s:
            return
        most_s = max_runtime_s + STOP_GRACE_S + 2 * self._late_s + STOP_SLACK_S
        for run in runs:
            gone_s = self._sound.get(run.session_id, 0.0)
            ran_s = min(ends.get(run.run, float("inf")), gone_s) - run.started_s
            if ran_s > most_s:
                yield f"{task_id} ran for {ran_s:g} s and may run for {max_runtime_s:g} s"

    # -- dependencies ----------------------------------------------------------------------

    def _impossible(self, plan: Plan, after: Dependency) -> Iterator[str]:
        """A task is impossible if and as soon as that is certain."""
        options = plan.options or NO_OPTIONS
        end = self._watch.end_of(plan.task_id)
        if end is None:
            return
        is_only_after = not (options.follow or options.inputs or options.engine_ids)
        if end.status == "impossible" and is_only_after and plan.work.outcome != "unmet":
            wrong = [self._is_wrong(plan.task_id, t, after, end) for t in after.task_ids]
            if not (any(wrong) if after.all else all(wrong)):
                yield f"{plan.task_id} is impossible for no reason: {after}"
        certain_s = [
            self._wrong_s(plan.task_id, t, after) for t in dict.fromkeys(after.task_ids)
        ]
        due_s = min(certain_s) if after.all else max(certain_s)
        if end.now_s > due_s + TOLERANCE_S:
            late_s = end.now_s - due_s
            yield f"{plan.task_id} ended {late_s:g} s after it was impossible: {after}"

    def _is_wrong(
        self, task_id: TaskId, other_id: TaskId, dependency: Dependency, end: Decision
    ) -> bool:
        """Whether a task had ended the other way, or was known to nobody."""
        submitted_s = self._watch.submitted.get(other_id)
        if submitted_s is None or submitted_s > self._watch.submitted[task_id]:
            return True
        session_id = SessionId(other_id.rpartition("-")[0])
        was_forgotten = self._watch.forgotten.get(session_id, end.now_s) < end.now_s
        if self._is_forgetful and was_forgotten:
            return True
        other = self._watch.end_of(other_id)
        return other is not None and other.now_s <= end.now_s and not _counts(dependency, other)

    def _wrong_s(self, task_id: TaskId, other_id: TaskId, dependency: Dependency) -> float:
        """Return when it was certain that another task does not count; inf: never.

        Also inf if the history had to be asked: that takes a while.
        """
        other = self._watch.end_of(other_id)
        if other is None or _counts(dependency, other):
            return float("inf")
        submitted_s = self._watch.submitted[task_id]
        session_id = SessionId(other_id.rpartition("-")[0])
        forgotten_s = self._watch.forgotten.get(session_id, float("inf"))
        if other.now_s <= submitted_s and forgotten_s <= submitted_s:
            return float("inf")
        if self._watch.submitted[other_id] > submitted_s:
            return float("inf")
        return max(other.now_s, submitted_s)


def _counts(dependency: Dependency, end: Decision) -> bool:
    return dependency.success if end.status == "ok" else dependency.failure


class MoveRules:
    """What must be true of the moves of all tasks, replayed in their order.

    Parameters
    ----------
    engines
        All that ever were.
    late_s
        By how much the controller may come too late to what is due.
    """

    def __init__(
        self,
        plans: Mapping[TaskId, Plan],
        watch: Watch,
        engines: Mapping[EngineId, EngineInfo],
        late_s: float,
    ) -> None:
        self._plans = plans
        self._watch = watch
        self._engines = engines
        self._late_s = late_s + TIMER_SLACK_S
        self._ready: dict[TaskId, None] = {}
        self._placed: dict[EngineId, dict[TaskId, None]] = {}
        self._where: dict[TaskId, EngineId] = {}
        self._placed_s: dict[TaskId, float] = {}
        self._wait_s: dict[TaskId, float] = {}  # since when it waits for its timeout

    def broken(self, moves: Sequence[Transition]) -> Iterator[str]:
        """Yield every rule that was not kept."""
        if len(moves) == STORY_LENGTH_MAX:
            return  # the oldest are missing
        for move in moves:
            if self._plans[move.task_id].kind == "balanced":
                yield from self._time(move)
                if move.finish is TaskState.PLACED:
                    yield from self._precedence(move)
            self._book(move)

    def _book(self, move: Transition) -> None:
        task_id = move.task_id
        self._ready.pop(task_id, None)
        engine_id = self._where.pop(task_id, None)
        if engine_id is not None:
            del self._placed[engine_id][task_id]
        if move.finish is TaskState.READY:
            self._ready[task_id] = None
        elif move.engine_id is not None:
            self._where[task_id] = move.engine_id
            self._placed.setdefault(move.engine_id, {})[task_id] = None

    # -- time ------------------------------------------------------------------------------

    def _time(self, move: Transition) -> Iterator[str]:
        """A timeout is exact, but for what a busy controller is late."""
        task_id, now_s = move.task_id, move.now_s
        options = self._plans[task_id].options or NO_OPTIONS
        is_timeout = (
            move.finish is TaskState.ENDED
            and (end := self._watch.end_of(task_id)) is not None
            and end.status == "timeout"
        )
        if move.start is TaskState.PLACED:
            if is_timeout and now_s < self._placed_s[task_id] + options.max_runtime_s:
                yield f"{task_id} was placed for less than it may run, and timed out"
            if move.finish is TaskState.READY:
                self._wait_s[task_id] = now_s
            return
        is_in_delay = task_id in self._placed_s and task_id not in self._wait_s
        if is_in_delay and move.finish is TaskState.READY:
            self._wait_s[task_id] = now_s  # in a delay no timeout is due
            return
        since_s = self._wait_s.get(task_id, self._watch.submitted[task_id])
        waited_s = now_s - since_s
        if is_timeout and (is_in_delay or waited_s < options.wait_timeout_s - TOLERANCE_S):
            yield f"{task_id} timed out after it had waited {waited_s:g} s"
        is_late = waited_s > options.wait_timeout_s + self._late_s
        if options.wait_timeout_s > 0 and is_late and not is_in_delay:
            yield f"{task_id} waited {waited_s:g} s, its timeout is {options.wait_timeout_s:g}"
        if move.finish is TaskState.PLACED:
            self._placed_s[task_id] = now_s
            self._wait_s.pop(task_id, None)

    # -- precedence ------------------------------------------------------------------------

    def _precedence(self, move: Transition) -> Iterator[str]:
        """Nothing is placed before what has a higher priority and could have been instead."""
        plan = self._plans[move.task_id]
        engine_id = move.engine_id
        assert engine_id is not None
        is_idle = not self._placed.get(engine_id)
        needs = _needs_of(plan)
        for other_id in self._ready:
            other = self._plans[other_id]
            other_needs = _needs_of(other)
            if other_needs is None or _priority_of(other) <= _priority_of(plan):
                continue
            fits = is_idle and self._meets(engine_id, other_needs)
            if fits or other_needs == needs:
                yield (
                    f"{move.task_id} (priority {_priority_of(plan)}) was placed before"
                    f" {other_id} (priority {_priority_of(other)})"
                )

    def _meets(self, engine_id: EngineId, needs: Needs) -> bool:
        labels, resources = needs
        engine = self._engines[engine_id]
        return labels <= set(engine.labels) and all(
            engine.resources.get(name, 0.0) >= amount for name, amount in resources
        )


def _priority_of(plan: Plan) -> int:
    return (plan.options or NO_OPTIONS).priority


def _needs_of(plan: Plan) -> Needs | None:
    """Return what a balanced task needs of an engine; None: that may change as it goes."""
    options = plan.options or NO_OPTIONS
    is_bound = plan.kind == "direct" or options.engine_ids is not None or options.follow
    if is_bound or plan.work.outcome == "unmet":
        return None
    return frozenset(options.labels), frozenset(options.resources.items())


def unix_s(now_s: float) -> float:
    """Return the Unix time of a time of the controller's clock."""
    return WALL_CLOCK_ORIGIN_S + now_s
