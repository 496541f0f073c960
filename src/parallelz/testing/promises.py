"""What must be true of a simulation when the network is healthy again and all is quiet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from parallelz.core.ended import NOWHERE
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.messages import Dependency, TaskEnded, TaskOptions
from parallelz.protocol.shared import view_of
from parallelz.testing.clients import SimClient
from parallelz.testing.history import RecordLog
from parallelz.testing.rules import unix_s
from parallelz.testing.watch import Decision, Watch
from parallelz.testing.work import Plan, Run, Witness, result_of

NO_OPTIONS = TaskOptions()
TOLERANCE_S = 1e-6  # of differences of Unix times


class Promises:
    """Checks them all; each method yields what is broken, in words.

    Parameters
    ----------
    log
        What was recorded. None: nothing was to be.
    """

    def __init__(
        self,
        clients: Sequence[SimClient],
        witness: Witness,
        watch: Watch,
        log: RecordLog | None,
    ) -> None:
        self._clients = clients
        self._witness = witness
        self._watch = watch
        self._log = log
        self._plans = {p.task_id: p for client in clients for p in client.plans.values()}

    def broken(self) -> Iterator[str]:
        """Yield every promise that was not kept."""
        for client in self._clients:
            if client.is_present:
                yield from self._answers_of(client)
            yield from self._order_of(client)
        yield from self._starts()
        if self._log is not None:
            yield from self._records(self._log)

    # -- answers ---------------------------------------------------------------------------

    def _answers_of(self, client: SimClient) -> Iterator[str]:
        for task_id, plan in client.plans.items():
            answers = client.ends.get(task_id, [])
            if len(answers) != 1:
                yield f"{task_id} has {len(answers)} answers"
            for ended, buffers in answers[:1]:
                yield from self._answer(client, plan, ended, buffers)
        for request_id, replies in client.replies.items():
            if len(replies) != 1:
                yield f"request {request_id} of {client.name} has {len(replies)} replies"

    def _answer(
        self, client: SimClient, plan: Plan, ended: TaskEnded, buffers: Sequence[Buffer]
    ) -> Iterator[str]:
        if ended.status == "ok":
            yield from self._success(plan, ended, buffers)
        else:
            if not self._may_fail(client, plan, ended):
                yield f"{ended.task_id} ended as {ended.status} for no reason: {ended.error}"

    def _success(
        self, plan: Plan, ended: TaskEnded, buffers: Sequence[Buffer]
    ) -> Iterator[str]:
        task_id = ended.task_id
        finished = self._witness.finished.get(task_id, [])
        if (ended.engine_id, "ok") not in [(f.engine_id, f.status) for f in finished]:
            yield f"{task_id} ended ok and engine {ended.engine_id} saw nothing of it"
        if msgspec.msgpack.decode(ended.data) != self._result_of(plan):
            yield f"{task_id} has a wrong result"
        if b"".join(map(view_of, buffers)) != plan.frame:
            yield f"{task_id} has frames that are not its own"

    def _may_fail(self, client: SimClient, plan: Plan, ended: TaskEnded) -> bool:
        """Whether there is a reason for how a task failed."""
        options = plan.options or NO_OPTIONS
        is_asked_for = plan.task_id in client.aborted
        match ended.status:
            case "error":
                is_interrupted = is_asked_for or any(c.interrupts for c in self._clients)
                is_to_fail = plan.work.outcome in ("error", "flaky") or is_interrupted
                is_to_fail = is_to_fail or (plan.kind == "direct" and plan.work.outcome != "ok")
                runs = self._witness.finished.get(plan.task_id, [])
                return is_to_fail and any(run.status != "ok" for run in runs)
            case "aborted":
                return is_asked_for
            case "timeout":
                return options.wait_timeout_s > 0.0 or options.max_runtime_s > 0.0
            case "impossible":
                is_bound = options.after or options.follow or options.engine_ids
                is_choosy = options.inputs or plan.work.outcome == "unmet"
                return bool(is_bound or is_choosy)
            case "engine-lost":
                if ended.engine_id >= 0:
                    return self._is_gone(ended.engine_id)
                if plan.kind == "direct":
                    return self._is_gone(plan.engine_id)
                is_choosy = plan.work.outcome == "unmet"  # all that it had not refused
                return bool(options.engine_ids or options.follow or is_choosy)
            case _:
                return True

    def _is_gone(self, engine_id: EngineId) -> bool:
        return engine_id in self._watch.given_up

    def _result_of(self, plan: Plan) -> int:
        inputs = [] if plan.options is None else plan.options.inputs
        values = [self._result_of(self._plans[task_id]) for task_id in inputs]
        return result_of(plan.work.value, values)

    # -- starts ----------------------------------------------------------------------------

    def _starts(self) -> Iterator[str]:
        for task_id, runs in self._witness.starts.items():
            plan = self._plans[task_id]
            ends = self._witness.finished.get(task_id, [])
            refusals = sum(end.status == "unmet" for end in ends)  # which use up no retry
            starts = sum(self._is_accountable(run) for run in runs)
            if starts - refusals > self._starts_max(plan):
                yield f"{task_id} started {len(runs)} times with {plan.retries} retries"
            if plan.kind == "direct" and runs[0].engine_id != plan.engine_id:
                yield f"{task_id} started on engine {runs[0].engine_id}, not {plan.engine_id}"
            if plan.options is not None:
                for run in runs:
                    yield from self._start(task_id, run, plan.options)

    def _is_accountable(self, run: Run) -> bool:
        return True

    def _starts_max(self, plan: Plan) -> int:
        return 1 + plan.retries

    def _start(self, task_id: TaskId, run: Run, options: TaskOptions) -> Iterator[str]:
        if options.engine_ids is not None and run.engine_id not in options.engine_ids:
            yield f"{task_id} started on engine {run.engine_id}, which it may not"
        if not self._has_all(run, options):
            yield f"{task_id} started on engine {run.engine_id}, which lacks something"
        for dependency in (options.after, options.follow):
            if dependency is not None and not self._is_met(dependency, run.started_s):
                yield f"{task_id} started before what it depends on: {dependency}"
        if options.follow is not None and not self._follows(options.follow, run.engine_id):
            yield f"{task_id} does not follow {options.follow} on {run.engine_id}"

    def _has_all(self, run: Run, options: TaskOptions) -> bool:
        engine = self._watch.infos[run.session_id]
        return set(options.labels) <= set(engine.labels) and all(
            engine.resources.get(name, 0.0) >= amount
            for name, amount in options.resources.items()
        )

    def _ends_before(self, dependency: Dependency, started_s: float) -> list[Decision]:
        """Return those ends of a dependency that were decided before, if they count for it."""
        ends = [self._watch.end_of(task_id) for task_id in dependency.task_ids]
        return [
            end
            for end in ends
            if end is not None
            and unix_s(end.now_s) <= started_s + TOLERANCE_S
            and (dependency.success if end.status == "ok" else dependency.failure)
        ]

    def _is_met(self, dependency: Dependency, started_s: float) -> bool:
        count = len(self._ends_before(dependency, started_s))
        return count == len(dependency.task_ids) if dependency.all else count > 0

    def _follows(self, follow: Dependency, engine_id: EngineId) -> bool:
        engines = {end.engine_id for end in self._ends_before(follow, float("inf"))}
        if not follow.all and NOWHERE in engines:
            return True  # the first to end may have run nowhere, and so have left the choice
        engines.discard(NOWHERE)
        return not engines or engine_id in engines

    def _order_of(self, client: SimClient) -> Iterator[str]:
        """Direct tasks of one client start on an engine in the order of submission."""
        latest: dict[SessionId, int] = {}
        for task_id, run in self._witness.order:
            plan = client.plans.get(task_id)
            if plan is None or plan.kind != "direct" or self._was_over(task_id, run):
                continue
            number = int(task_id.rpartition("-")[2])
            if number < latest.get(run.session_id, -1):
                last = latest[run.session_id]
                yield f"{task_id} started on engine {run.engine_id} after {last}"
            latest[run.session_id] = number

    def _was_over(self, task_id: TaskId, run: Run) -> bool:
        return False

    # -- records ---------------------------------------------------------------------------

    def _records(self, log: RecordLog) -> Iterator[str]:
        """What is decided is recorded, and what is answered is what was decided."""
        for task_id in log.submitted:
            if task_id not in log.ends:
                yield f"the end of {task_id} was not recorded"
        answers = {
            task_id: answers[0][0]
            for client in self._clients
            for task_id, answers in client.ends.items()
        }
        for task_id, decisions in self._watch.ends.items():
            status = decisions[0].status
            recorded = sorted({end.message.status for end in log.ends.get(task_id, ())})
            if recorded != [status]:
                yield f"{task_id} is {status} and was recorded as {recorded}"
            if task_id in answers and answers[task_id].status != status:
                yield f"{task_id} is {status} and was answered as {answers[task_id].status}"
