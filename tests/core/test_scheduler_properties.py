"""Any order of submissions, results, joins and losses keeps the core's promises."""

from __future__ import annotations

import hypothesis.strategies as st
from helpers_core import (
    ME,
    NOBODY,
    arrive,
    dropped,
    engine_session,
    finish,
    lose,
    submit,
    submit_direct,
    submit_map,
    task,
)
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parallelz.core.events import Action, EndTask, Event, PlaceTask, RecallTasks, Tick
from parallelz.core.scheduler import Scheduler
from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import AbortTasks, SubmitTask


def number_of(task_id: TaskId) -> int:
    return int(task_id.rpartition("-")[2])


class SchedulerMachine(RuleBasedStateMachine):
    """The cluster around the core, played by Hypothesis; each action is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler()
        self.now_s = 0.0
        self.count = 0
        self.submitted: dict[int, SubmitTask | None] = {}  # None: in a map, or direct
        self.direct: dict[int, int] = {}
        self.started: dict[int, int] = {}
        self.ended: dict[int, str] = {}
        self.engines: dict[int, list[int]] = {}  # what each holds, in order
        self.recalls: dict[int, list[int]] = {}
        self.engine_count = 0
        self.journal: list[tuple[Event, SessionId, float, list[Action]]] = []

    def feed(self, event: Event, source: SessionId = ME) -> None:
        """Hand over one event; check each action against what was promised."""
        self.now_s += 0.004
        actions = self.scheduler.handle(event, source, self.now_s)
        self.journal.append((event, source, self.now_s, actions))
        for action in actions:
            match action:
                case PlaceTask():
                    self.check_placed(number_of(action.task_id), action.engine_id)
                case EndTask():
                    number = number_of(action.task_id)
                    assert number not in self.ended, "ended twice"
                    self.ended[number] = action.status
                    for held in self.engines.values():
                        if number in held:
                            held.remove(number)
                case RecallTasks():
                    asked = [number_of(t) for t in action.task_ids]
                    self.recalls.setdefault(action.engine_id, []).extend(asked)

    def check_placed(self, number: int, engine: EngineId) -> None:
        assert number not in self.ended, "placed after its end"
        assert engine in self.engines, "placed on an engine that is not there"
        assert all(number not in held for held in self.engines.values()), "placed twice"
        message = self.submitted[number]
        options = None if message is None else message.options
        if number in self.direct:
            assert engine == self.direct[number], "a direct task on another engine"
            others = [n for n in self.direct if self.direct[n] == engine and n < number]
            assert all(n in self.ended or n in self.engines[engine] for n in others), "order"
        if options is not None:
            if options.engine_ids is not None:
                assert engine in options.engine_ids, "not one of its targets"
            if options.after is not None:
                ends = [self.ended.get(number_of(t)) for t in options.after.task_ids]
                met = [e == "ok" for e in ends]
                assert all(met) if options.after.all else any(met), "too early"
        self.engines[engine].append(number)
        self.started[number] = self.started.get(number, 0) + 1

    def new_number(self) -> int:
        self.count += 1
        return self.count - 1

    @rule(
        data=st.data(),
        retries=st.integers(0, 2),
        every=st.booleans(),
        timeout_s=st.sampled_from([0.0, 0.0, 0.02]),
        digest=st.sampled_from([b"f", b"g"]),
    )
    def submit(
        self, data: st.DataObject, retries: int, every: bool, timeout_s: float, digest: bytes
    ) -> None:
        numbers = st.sampled_from(sorted(self.submitted) or [0])
        after = data.draw(st.none() | st.lists(numbers, max_size=3, unique=True))
        engines = data.draw(st.none() | st.lists(st.integers(0, 3), min_size=1, unique=True))
        number = self.new_number()
        event = submit(
            number,
            after=after or None,
            engines=engines,
            retries=retries,
            every=every,
            timeout_s=timeout_s,
            digest=digest,
        )
        self.submitted[number] = event
        self.feed(event)

    @rule(count=st.integers(1, 6))
    def submit_map(self, count: int) -> None:
        first = self.count
        for _ in range(count):
            self.submitted[self.new_number()] = None
        self.feed(submit_map(first, count))

    @rule(engines=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    def submit_direct(self, engines: list[int]) -> None:
        first = self.count
        for engine in engines:
            number = self.new_number()
            self.submitted[number] = None
            self.direct[number] = engine
        self.feed(submit_direct(first, engines))

    @precondition(lambda self: any(m for m in self.submitted.values()))
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        messages = [m for m in self.submitted.values() if m is not None]
        self.feed(data.draw(st.sampled_from(messages)))

    @precondition(lambda self: self.engine_count < 5)
    @rule()
    def join(self) -> None:
        number = self.engine_count
        self.engine_count += 1
        self.engines[number] = []
        self.feed(arrive(number), engine_session(number))

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        engine = data.draw(st.sampled_from(sorted(self.engines)))
        del self.engines[engine]
        self.recalls.pop(engine, None)
        self.feed(lose(engine), engine_session(engine))

    @precondition(lambda self: any(self.engines.values()))
    @rule(data=st.data(), ok=st.booleans(), duration_s=st.sampled_from([0.0, 0.001, 1.0]))
    def finish(self, data: st.DataObject, ok: bool, duration_s: float) -> None:
        engine = data.draw(st.sampled_from([e for e, held in self.engines.items() if held]))
        number = self.engines[engine].pop(0)
        event = finish(number, ok=ok, duration_s=duration_s)
        self.feed(event, engine_session(engine))

    @rule(data=st.data(), engine=st.integers(0, 4))
    def finish_what_may_be_late_or_wrong(self, data: st.DataObject, engine: int) -> None:
        if self.started:
            number = data.draw(st.sampled_from(sorted(self.started)))
            if number not in self.engines.get(engine, []):
                self.feed(finish(number), engine_session(engine))

    @precondition(lambda self: self.recalls)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        engine = data.draw(st.sampled_from(sorted(self.recalls)))
        asked = self.recalls.pop(engine)
        free = [n for n in self.engines[engine][1:] if n in asked]
        self.engines[engine] = [n for n in self.engines[engine] if n not in free]
        for number in free:
            self.started[number] -= 1
        self.feed(dropped(free), engine_session(engine))

    @rule(data=st.data(), everything=st.booleans())
    def abort(self, data: st.DataObject, everything: bool) -> None:
        numbers = st.sampled_from(sorted(self.submitted) or [0])
        some = data.draw(st.lists(numbers, max_size=2))
        self.feed(AbortTasks(1, None if everything else [task(n) for n in some]))

    @rule()
    def tick(self) -> None:
        deadline_s = self.scheduler.next_deadline_s()
        if deadline_s is not None:
            self.now_s = max(self.now_s, deadline_s)
            self.feed(Tick(), NOBODY)

    @invariant()
    def holds_its_own_invariants(self) -> None:
        self.scheduler.validate()

    @invariant()
    def no_task_starts_too_often(self) -> None:
        for number, count in self.started.items():
            message = self.submitted[number]
            options = None if message is None else message.options
            assert count <= 1 + (0 if options is None else options.retries), number

    def teardown(self) -> None:
        """With an engine that stays, every task ends; and the journal replays the same."""
        self.engine_count = max(self.engine_count, 4)  # ids are never used again
        for number in [*range(4), self.engine_count]:
            if number not in self.engines:
                self.engines[number] = []
                session = SessionId(f"engine{number}")
                self.feed(arrive(number), session)
        for _ in range(20 * self.count + 20):
            for engine in sorted(self.recalls):
                self.recalls.pop(engine)
                self.feed(dropped([]), engine_session(engine))
            for engine, held in self.engines.items():
                if held:
                    self.feed(finish(held.pop(0)), engine_session(engine))
        assert sorted(self.ended) == sorted(self.submitted), "some tasks never ended"
        assert self.scheduler.tasks == {}
        again = Scheduler()
        for event, source, now_s, actions in self.journal:
            assert again.handle(event, source, now_s) == actions


SchedulerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestScheduler = SchedulerMachine.TestCase
