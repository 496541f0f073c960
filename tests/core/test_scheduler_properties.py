"""Any order of events keeps the core's promises, and in the end every task has its answer."""

from __future__ import annotations

import hypothesis.strategies as st
from helpers_core import engine_session
from helpers_world import Cluster, Known
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from parallelz.core.events import (
    ClientForgotten,
    EndsFound,
    EngineLost,
    PastEnd,
    Tick,
    ValueProvided,
)
from parallelz.core.placement import SCHEMES
from parallelz.core.scheduler import Scheduler
from parallelz.ids import Digest, EngineId, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    AbortTasks,
    CancelTasks,
    Dependency,
    DrainEngines,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskFinished,
    TaskOptions,
    TasksDropped,
)

ME, YOU = SessionId("me"), SessionId("you")
ENGINES_MAX = 6
digests = st.sampled_from([Digest(b"f"), Digest(b"g")])
sessions = st.sampled_from([ME, ME, YOU])


class SchedulerMachine(RuleBasedStateMachine):
    """The world around the core, played by Hypothesis."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {ME: 0, YOU: 0}

    @initialize(
        scheme=st.sampled_from([name for name in SCHEMES if name != "pure"]),
        hwm=st.sampled_from([None, None, 0, 1, 3]),
    )
    def begin(self, scheme: str, hwm: int | None) -> None:
        self.make = lambda: Scheduler(SCHEMES[scheme], hwm, _Draw())
        self.cluster = Cluster(self.make())

    # -- clients ---------------------------------------------------------------------------

    def _new(self, session: SessionId) -> tuple[TaskId, int]:
        number = self.counts[session]
        self.counts[session] += 1
        return task_id_of(session, number), number

    def _some_ids(self, data: st.DataObject, counts: list[int]) -> list[TaskId]:
        """Draw so many ids, mostly of tasks that came lately; a few that nobody knows."""
        ids = [TaskId("he-1"), TaskId("nonsense"), *list(self.cluster.known)[-12:]]
        count = min(data.draw(st.sampled_from(counts)), len(ids))
        wanted = st.integers(0 if data.draw(st.integers(0, 9)) == 0 else 2, len(ids) - 1)
        if len(ids) == 2:
            return []
        chosen = data.draw(st.lists(wanted, min_size=count, max_size=count))
        return list(dict.fromkeys(ids[number] for number in chosen))

    @rule(
        data=st.data(), session=sessions, digest=digests, retries=st.sampled_from([0, 0, 1, 2])
    )
    def submit(
        self, data: st.DataObject, session: SessionId, digest: Digest, retries: int
    ) -> None:
        """Submit a task that depends on others, and on little else."""
        every = data.draw(st.sampled_from([True, True, False]))
        success = data.draw(st.sampled_from([True, True, True, False]))
        after = self._some_ids(data, [0, 1, 1, 2, 3])
        self._submit(
            session,
            digest,
            TaskOptions(
                Dependency(after, every, success, not success) if after else None,
                retries=retries,
                priority=data.draw(st.sampled_from([0, 0, 0, 5, -5])),
            ),
        )

    @rule(
        data=st.data(),
        session=sessions,
        digest=digests,
        engines=st.none() | st.lists(st.integers(0, 3), min_size=1, unique=True),
        timeout_s=st.sampled_from([0.0, 0.0, 0.0, 0.02]),
        max_runtime_s=st.sampled_from([0.0, 0.0, 0.05]),
        delay_s=st.sampled_from([0.0, 0.0, 0.03]),
        labels=st.sampled_from([[], [], ["gpu"], ["gpu", "fast"]]),
        memory=st.sampled_from([0.0, 0.0, 2.0]),
    )
    def submit_picky(
        self,
        data: st.DataObject,
        session: SessionId,
        digest: Digest,
        engines: list[int] | None,
        timeout_s: float,
        max_runtime_s: float,
        delay_s: float,
        labels: list[str],
        memory: float,
    ) -> None:
        """Submit a task that is particular about where and how long it runs."""
        follow = self._some_ids(data, [0, 0, 1, 1, 2])
        self._submit(
            session,
            digest,
            TaskOptions(
                None,
                Dependency(follow) if follow else None,
                None if engines is None else [EngineId(e) for e in engines],
                data.draw(st.integers(0, 2)),
                timeout_s,
                max_runtime_s=max_runtime_s,
                retry_delay_s=delay_s,
                labels=labels,
                resources={"memory": memory} if memory else {},
                inputs=self._some_ids(data, [0, 0, 1]),
            ),
        )

    def _submit(self, session: SessionId, digest: Digest, options: TaskOptions) -> None:
        task_id, number = self._new(session)
        message = SubmitTask(task_id, digest, 0.0, options=options)
        self.cluster.known[task_id] = Known(session, number, options, message=message)
        self.cluster.feed(message, session)

    @rule(session=sessions, count=st.integers(1, 6), digest=digests)
    def submit_map(self, session: SessionId, count: int, digest: Digest) -> None:
        first = self.counts[session]
        for _ in range(count):
            task_id, number = self._new(session)
            self.cluster.known[task_id] = Known(session, number)
        self.cluster.feed(SubmitMap(first, digest, 0.0, [b""] * count), session)

    @rule(
        session=sessions,
        engines=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
        digest=digests,
    )
    def submit_direct(self, session: SessionId, engines: list[int], digest: Digest) -> None:
        first = self.counts[session]
        for engine in engines:
            task_id, number = self._new(session)
            self.cluster.known[task_id] = Known(session, number, direct=EngineId(engine))
        ids = [EngineId(engine) for engine in engines]
        self.cluster.feed(SubmitDirect(first, ids, digest, 0.0), session)

    @precondition(lambda self: any(k.message for k in self.cluster.known.values()))
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        known = [k for k in self.cluster.known.values() if k.message is not None]
        chosen = data.draw(st.sampled_from(known))
        assert chosen.message is not None
        self.cluster.feed(chosen.message, chosen.session)

    @rule(data=st.data(), session=sessions, everything=st.booleans())
    def abort(self, data: st.DataObject, session: SessionId, everything: bool) -> None:
        ids = None if everything else self._some_ids(data, [0, 1, 2])
        self._note_stop(ids, session)
        self.cluster.feed(AbortTasks(1, ids), session)

    @rule(data=st.data(), grace_s=st.sampled_from([0.0, 0.05]))
    def cancel(self, data: st.DataObject, grace_s: float) -> None:
        ids = self._some_ids(data, [0, 1, 2])
        self._note_stop(ids, ME)
        self.cluster.feed(CancelTasks(1, ids, grace_s), ME)

    def _note_stop(self, ids: list[TaskId] | None, session: SessionId) -> None:
        for task_id, known in self.cluster.known.items():
            if task_id in ids if ids is not None else known.session == session:
                known.stop_asked = True

    # -- what is asked elsewhere -----------------------------------------------------------

    @precondition(lambda self: self.cluster.lookups)
    @rule(known=st.booleans(), ok=st.booleans())
    def history_answers(self, known: bool, ok: bool) -> None:
        ids, self.cluster.lookups = self.cluster.lookups, []
        end = PastEnd(ok, "ended well" if ok else "failed", engine_session(0))
        for task_id in ids:
            if task_id not in self.cluster.known and known:
                self.cluster.ended[task_id] = "ok" if ok else "error"
                self.cluster.known[task_id] = Known(SessionId("he"), 0, ran_on=0)
        found = {t: end for t in ids if self.cluster.ended.get(t) == ("ok" if ok else "error")}
        self.cluster.feed(EndsFound(ids, found))

    @precondition(lambda self: self.cluster.asked_values)
    @rule(is_held=st.booleans())
    def client_provides(self, is_held: bool) -> None:
        session, task_id = self.cluster.asked_values.pop(0)
        is_held = is_held and self.cluster.ended.get(task_id) == "ok"
        self.cluster.feed(ValueProvided(task_id, is_held), session)

    # -- engines ---------------------------------------------------------------------------

    @precondition(lambda self: self.cluster.engine_count < ENGINES_MAX)
    @rule(
        labels=st.sampled_from([[], ["gpu"], ["fast", "gpu"]]),
        memory=st.sampled_from([0.0, 4.0]),
    )
    def join(self, labels: list[str], memory: float) -> None:
        self.cluster.arrive(labels, {"memory": memory})

    def _engine(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.cluster.engines)))

    @precondition(lambda self: self.cluster.engines)
    @rule(data=st.data(), counted=st.booleans())
    def lose(self, data: st.DataObject, counted: bool) -> None:
        self._lose(self._engine(data), counted=counted)

    def _lose(self, number: int, *, counted: bool) -> None:
        engine = self.cluster.engines.pop(number)
        for known in self.cluster.known.values():
            if known.where == number:
                known.where = None
                delay_s = known.options.retry_delay_s
                is_unsure = not counted and delay_s
                known.not_before_s = self.cluster.now_s + 0.004 if is_unsure else 0.0
        count = engine.started_count if counted else -1
        self.cluster.feed(EngineLost(engine_session(number), "killed", count))

    @precondition(lambda self: self.cluster.engines)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.cluster.deliver(self._engine(data))

    @precondition(lambda self: any(e.running for e in self.cluster.engines.values()))
    @rule(
        data=st.data(),
        status=st.sampled_from(["ok", "ok", "error", "unmet"]),
        duration_s=st.sampled_from([0.0, 0.001, 1.0]),
        retry_after_s=st.sampled_from([0.0, 0.05]),
    )
    def finish(
        self, data: st.DataObject, status: str, duration_s: float, retry_after_s: float
    ) -> None:
        engines = [n for n, e in self.cluster.engines.items() if e.running]
        after_s = retry_after_s if status == "unmet" else 0.0
        number = data.draw(st.sampled_from(engines))
        self.cluster.finish(number, status, duration_s, after_s)

    @precondition(lambda self: any(e.running for e in self.cluster.engines.values()))
    @rule(
        status=st.sampled_from(["ok", "ok", "error", "unmet"]),
        duration_s=st.sampled_from([0.0, 0.001, 1.0]),
    )
    def all_finish_and_report(self, status: str, duration_s: float) -> None:
        for number, engine in self.cluster.engines.items():
            if engine.running is not None:
                self.cluster.finish(number, status, duration_s)
            while engine.results:
                self.cluster.report(number)
            self.cluster.deliver(number)

    @precondition(lambda self: self.cluster.engines and self.cluster.known)
    @rule(data=st.data())
    def engine_claims_what_it_does_not_have(self, data: st.DataObject) -> None:
        number = self._engine(data)
        task_id = data.draw(st.sampled_from(sorted(self.cluster.known)))
        if self.cluster.known[task_id].where != number:
            self.cluster.feed(TaskFinished(task_id, "ok", 0.0, 1.0), engine_session(number))

    @precondition(lambda self: any(e.results for e in self.cluster.engines.values()))
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        engines = [n for n, e in self.cluster.engines.items() if e.results]
        self.cluster.report(data.draw(st.sampled_from(engines)))

    @precondition(lambda self: any(e.recalls for e in self.cluster.engines.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        engines = [n for n, e in self.cluster.engines.items() if e.recalls]
        self._give_back(data.draw(st.sampled_from(engines)))

    def _give_back(self, number: int) -> None:
        engine = self.cluster.engines[number]
        recall = engine.recalls.pop(0)
        dropped, kept = engine.queue.revoke(recall.task_ids, recall.runs)
        for task_id in dropped:
            known = self.cluster.known[task_id]
            if known.where == number:
                known.where = None
        self.cluster.feed(TasksDropped(dropped, kept), engine_session(number))

    @precondition(lambda self: self.cluster.engines)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        number = self._engine(data)
        self.cluster.engines[number].is_draining = True
        self.cluster.feed(DrainEngines(1, [EngineId(number)]), ME)

    @rule(patience_s=st.sampled_from([0.0, 0.0, 0.1]))
    def tick(self, patience_s: float) -> None:
        deadline_s = self.cluster.scheduler.next_deadline_s()
        if deadline_s is not None:
            self.cluster.now_s = max(self.cluster.now_s + patience_s, deadline_s)
            self.cluster.feed(Tick())

    @invariant()
    def keeps_its_promises(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.check_state()

    # -- the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """With engines that stay every task ends, nothing is left, and a replay is the same."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        for number in sorted(cluster.engines):
            if cluster.engines[number].is_draining:
                self._lose(number, counted=True)
        while cluster.engine_count < 4 or not cluster.engines:
            cluster.arrive([], {})
        cluster.arrive(["gpu", "fast"], {"memory": 8.0})
        for count in range(40 * len(cluster.known) + 40):
            if not cluster.scheduler.tasks:
                break
            self._go_on("error" if count < 4 else "ok")
            cluster.check_state()
        unended = {t: cluster.scheduler.tasks[t] for t in cluster.scheduler.tasks}
        assert not unended, f"never ended: {unended}"
        cluster.feed(ClientForgotten(ME))
        cluster.feed(ClientForgotten(YOU))
        board = cluster.scheduler.board
        assert not board.alarms.by_task
        assert not board.waits.by_task or cluster.lookups
        assert all(lane.queue.head() is None for lane in board.roster.lanes.values())
        again = self.make()
        for event, source, now_s, actions in cluster.journal:
            assert again.handle(event, source, now_s) == actions, f"replayed {event}"

    def _go_on(self, status: str) -> None:
        """One round in which everybody does what is waited for."""
        cluster = self.cluster
        for number in sorted(cluster.engines):
            engine = cluster.engines[number]
            while engine.recalls:
                self._give_back(number)
            cluster.deliver(number)
            if engine.is_to_die:
                self._lose(number, counted=True)
                cluster.arrive(engine.info.labels, engine.info.resources)
                continue
            if engine.running is not None:
                cluster.finish(number, status)
            while engine.results:
                cluster.report(number)
        if cluster.lookups:
            ids, cluster.lookups = cluster.lookups, []
            cluster.feed(EndsFound(ids, {}))
        while cluster.asked_values:
            session, task_id = cluster.asked_values.pop(0)
            cluster.feed(ValueProvided(task_id, cluster.ended.get(task_id) == "ok"), session)
        deadline_s = cluster.scheduler.next_deadline_s()
        if deadline_s is not None:
            cluster.now_s = max(cluster.now_s, deadline_s)
            cluster.feed(Tick())


class _Draw:
    """Chance that replays: the middle of the range, then the end, then the beginning."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, count: int) -> int:
        self._count += 1
        return (self._count * 7919) % count


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestScheduler = SchedulerMachine.TestCase
