"""What must be true of a simulation in which controllers were killed: the contract of delivery.

What one controller decided another need not have known, so the exact rules of `rules` do not
hold from one to the next. What clients, engines and the database see does (docs/delivery.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import Dependency, TaskEnded, TaskOptions
from parallelz.store.rows import PENDING
from parallelz.testing.clients import SimClient
from parallelz.testing.engines import SimEngine
from parallelz.testing.history import RecordLog, WitnessStore
from parallelz.testing.peers import SimSupervisor
from parallelz.testing.promises import TOLERANCE_S, Promises
from parallelz.testing.rules import unix_s
from parallelz.testing.watch import Watch
from parallelz.testing.work import Plan, Run, Witness

INTERRUPTED = "KeyboardInterrupt"
DELIVERY_S = 30.0  # what a controller has said may arrive so long after its death


class Contract(Promises):
    """Checks it all; each method yields what is broken, in words.

    Parameters
    ----------
    store
        What is in the database at last. None: nothing was to be recorded.
    crashes_s
        When a controller was killed (Unix time).
    is_forgetful
        Whether something was acknowledged that is recorded nowhere.
    """

    def __init__(
        self,
        clients: Sequence[SimClient],
        engines: Sequence[SimEngine],
        supervisors: Sequence[SimSupervisor],
        witness: Witness,
        watch: Watch,
        store: WitnessStore | None,
        log: RecordLog,
        crashes_s: Sequence[float],
        *,
        is_forgetful: bool,
    ) -> None:
        super().__init__(clients, witness, watch, None)
        self._log: RecordLog = log
        self._engines = engines
        self._supervisors = supervisors
        self._store = store
        self._crashes_s = crashes_s
        self._is_forgetful = is_forgetful

    def broken(self) -> Iterator[str]:
        """Yield every promise that was not kept."""
        for client in self._clients:
            if client.is_present:
                yield from self._answers_of(client)
            yield from self._order_of(client)
        yield from self._starts()
        yield from self._identities()
        if self._store is not None:
            yield from self._recorded(self._store)

    # -- answers ---------------------------------------------------------------------------

    def _answers_of(self, client: SimClient) -> Iterator[str]:
        """Each task has an answer.

        It may come again, and a controller that knows nothing of it may give another: the
        client keeps the first.
        """
        for task_id, plan in client.plans.items():
            answers = client.ends.get(task_id, [])
            if not answers:
                yield f"{task_id} has no answer"
            for ended, buffers in answers[:1]:
                yield from self._answer(client, plan, ended, buffers)
            for ended, _ in answers[1:]:
                is_same = (ended.status, ended.data) == (
                    answers[0][0].status,
                    answers[0][0].data,
                )
                if not is_same and not self._was_crash_after(client.answered_s[task_id]):
                    yield f"{task_id} has the answers {[each.status for each, _ in answers]}"
        for request_id, replies in client.replies.items():
            if not replies:
                yield f"request {request_id} of {client.name} has no reply"

    def _was_crash_after(self, now_s: float) -> bool:
        return any(crash_s > now_s - DELIVERY_S for crash_s in self._crashes_s)

    def _may_fail(self, client: SimClient, plan: Plan, ended: TaskEnded) -> bool:
        if ended.status == "lost":
            return self._is_forgetful
        if super()._may_fail(client, plan, ended):
            return True
        if ended.status == "error" and ended.error and ended.error.ename == INTERRUPTED:
            # A controller that was killed had it interrupted, and its reason is lost.
            may_be_long = plan.options is not None and plan.options.max_runtime_s > 0
            return may_be_long or ended.engine_id in self._watch.given_up
        is_lost = ended.status == "engine-lost" and ended.engine_id < 0
        if plan.kind == "direct":
            return is_lost and self._was_unheard_of(plan.engine_id)
        return is_lost and any(not engine.is_alive for engine in self._engines)

    def _is_gone(self, engine_id: EngineId) -> bool:
        return super()._is_gone(engine_id) or any(
            engine.engine_id == engine_id and not engine.is_alive for engine in self._engines
        )

    def _was_unheard_of(self, engine_id: EngineId) -> bool:
        """Whether some controller could not know that an engine of this id was there.

        The record of its first arrival got lost. Then a controller goes on without it if it
        does not come back soon.
        """
        sessions = [s for s, ids in self._watch.joined_as.items() if engine_id in ids]
        return self._is_forgetful or any(
            self._log.joined_s.get(s, float("inf"))
            > unix_s(self._watch.joined_s[s]) + TOLERANCE_S
            for s in sessions
        )

    # -- starts and engines ----------------------------------------------------------------

    def _is_accountable(self, run: Run) -> bool:
        """Whether a start counts: somebody was there who could tell of it.

        Not of an engine that died, as did its supervisor, and not of one that no controller
        could expect back.
        """
        engine = next(e for e in self._engines if e.session_id == run.session_id)
        is_told = engine.is_alive or any(
            s.is_alive and s.peer.host == engine.peer.host for s in self._supervisors
        )
        return is_told and not self._was_unheard_of(run.engine_id)

    def _was_over(self, task_id: TaskId, run: Run) -> bool:
        """Whether a controller had ended the task, and that got lost with it."""
        ends = self._watch.ends.get(task_id, ())
        return any(unix_s(end.now_s) < run.started_s for end in ends)

    def _starts_max(self, plan: Plan) -> int:
        """Retries are counted anew by each controller, but without any it starts once."""
        return 1 + plan.retries * (1 + len(self._crashes_s))

    def _start(self, task_id: TaskId, run: Run, options: TaskOptions) -> Iterator[str]:
        if options.engine_ids is not None and run.engine_id not in options.engine_ids:
            yield f"{task_id} started on engine {run.engine_id}, which it may not"
        if not self._has_all(run, options):
            yield f"{task_id} started on engine {run.engine_id}, which lacks something"
        if options.after is not None and not self._is_met(options.after, run.started_s):
            yield f"{task_id} started before what it depends on: {options.after}"

    def _is_met(self, dependency: Dependency, started_s: float) -> bool:
        """Whether some controller had decided so by then, or it was recorded."""
        latest_s = started_s + TOLERANCE_S

        def is_met(task_id: TaskId) -> bool:
            decided = [
                end.status
                for end in self._watch.ends.get(task_id, ())
                if unix_s(end.now_s) <= latest_s
            ]
            recorded = [
                end.message.status
                for end in self._log.ends.get(task_id, ())
                if end.ended_s <= latest_s
            ]
            return any(
                dependency.success if status == "ok" else dependency.failure
                for status in [*decided, *recorded]
            )

        met = map(is_met, dependency.task_ids)
        return all(met) if dependency.all else any(met)

    def _identities(self) -> Iterator[str]:
        """An engine that lives keeps its id."""
        for engine in self._engines:
            engine_ids = self._watch.joined_as.get(engine.session_id, {})
            is_known = not any(map(self._was_unheard_of, engine_ids))
            if engine.is_alive and len(engine_ids) > 1 and is_known:
                yield f"{engine.name} had the ids {list(engine_ids)}"

    # -- records ---------------------------------------------------------------------------

    def _recorded(self, store: WitnessStore) -> Iterator[str]:
        """What is recorded has ended, and as its client was told.

        Unless the record of what it was told got lost with the controller.
        """
        recorded = {
            str(each["msg_id"]): each
            for each in store.query({}, ["status", "engine_id", "received"])
        }
        for task_id, record in recorded.items():
            if record["status"] == PENDING and not self._is_forgetful:
                yield f"the end of {task_id} was not recorded"
        for client in self._clients:
            for task_id, answers in client.ends.items():
                record = recorded.get(task_id, {})
                if not record or (record["status"] == PENDING and self._is_forgetful):
                    if client.is_present and not self._is_forgetful:
                        yield f"{task_id} was answered and is not recorded"
                    continue
                status = answers[0][0].status
                if status != record["status"] and not self._is_of_another(
                    task_id, status, record["received"]
                ):
                    yield f"{task_id} was answered as {status} and is {record['status']}"

    def _is_of_another(self, task_id: TaskId, status: str, recorded_s: object) -> bool:
        """Whether a controller that was killed before the record was made had decided so."""
        if not isinstance(recorded_s, float):
            return False  # it has not ended at all
        latest_s = max((s for s in self._crashes_s if s < recorded_s), default=0.0)
        decided = self._watch.ends.get(task_id, ())
        return any(end.status == status and unix_s(end.now_s) < latest_s for end in decided)
