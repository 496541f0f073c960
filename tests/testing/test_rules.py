"""The rules that simulations check can be broken, and tell so."""

from __future__ import annotations

from parallelz.core.task import TaskState, Transition
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import Dependency, EngineInfo, PeerInfo, TaskOptions
from parallelz.testing.rules import MoveRules, Rules
from parallelz.testing.watch import Decision, Loss, Placement, Watch
from parallelz.testing.work import Plan, Run, SimWork, Witness

ENGINE = EngineId(0)
SESSION = SessionId("engine")
ENGINES = {ENGINE: EngineInfo(ENGINE, SESSION, PeerInfo("host", "host", 1))}
A, B = TaskId("me-0"), TaskId("me-1")
WAITING, READY, PLACED = TaskState.WAITING, TaskState.READY, TaskState.PLACED


def plan(task_id: TaskId, **options: object) -> Plan:
    chosen = TaskOptions(**options)  # type: ignore[arg-type]
    return Plan(task_id, "balanced", SimWork(0, 0.0), chosen, EngineId(-1), b"")


def broken_by_moves(plans: list[Plan], *moves: tuple[float, TaskId, TaskState, TaskState]):
    watch = Watch()
    watch.submitted = {each.task_id: 0.0 for each in plans}
    rules = MoveRules({each.task_id: each for each in plans}, watch, ENGINES, late_s=0.0)
    return list(
        rules.broken(
            [Transition(*move, "", ENGINE if move[3] is PLACED else None) for move in moves]
        )
    )


def broken(plans: list[Plan], watch: Watch, witness: Witness):
    by_id = {each.task_id: each for each in plans}
    return list(Rules(by_id, witness, watch, {}, 0.0, is_forgetful=False).broken())


def test_a_lower_priority_before_a_higher_one_is_told():
    ready = [(0.0, A, WAITING, READY), (0.0, B, WAITING, READY)]
    plans = [plan(A), plan(B, priority=1)]
    (told,) = broken_by_moves(plans, *ready, (1.0, A, READY, PLACED))
    assert told == "me-0 (priority 0) was placed before me-1 (priority 1)"
    assert not broken_by_moves(plans, *ready, (1.0, B, READY, PLACED))


def test_a_task_that_waits_longer_than_its_timeout_is_told():
    plans = [plan(A, wait_timeout_s=1.0)]
    ready = (0.0, A, WAITING, READY)
    assert broken_by_moves(plans, ready, (2.0, A, READY, PLACED))
    assert not broken_by_moves(plans, ready, (0.9, A, READY, PLACED))


def test_a_task_lost_with_an_engine_on_which_it_had_not_started_is_told():
    watch, witness = Watch(), Witness()
    watch.submitted = {A: 0.0}
    first, second = EngineId(0), EngineId(1)
    watch.losses = {first: Loss(1.0, is_counted=True), second: Loss(2.0, is_counted=True)}
    watch.placements = {A: [Placement(0.0, first, 1), Placement(1.0, second, 2)]}
    watch.ends = {A: [Decision(2.0, "engine-lost", second, 1)]}
    witness.started(A, Run(0.5, 1, SESSION, first))
    (told,) = broken([plan(A, retries=1)], watch, witness)
    assert told == "me-0 was lost after 1 runs with 1 retries"
    witness.started(A, Run(1.5, 2, SESSION, second))
    assert not broken([plan(A, retries=1)], watch, witness)


def test_an_order_that_was_not_kept_is_told():
    watch, witness = Watch(), Witness()
    watch.submitted = {A: 0.0}
    watch.stopped_early = {A: None}
    watch.ends = {A: [Decision(1.0, "ok", ENGINE, 1)]}
    assert broken([plan(A)], watch, witness) == ["me-0 was given up before it came and is ok"]


def test_a_task_that_ends_late_or_impossible_for_no_reason_is_told():
    watch, witness = Watch(), Witness()
    watch.submitted = {A: 0.0, B: 0.0}
    plans = [plan(A), plan(B, after=Dependency([A]))]
    watch.ends = {
        A: [Decision(1.0, "error", ENGINE, 1)],
        B: [Decision(3.0, "impossible", -1, 0)],
    }
    (late,) = broken(plans, watch, witness)
    assert late.startswith("me-1 ended 2 s after it was impossible")
    watch.ends[A] = [Decision(1.0, "ok", ENGINE, 1)]
    (groundless,) = broken(plans, watch, witness)
    assert groundless.startswith("me-1 is impossible for no reason")
