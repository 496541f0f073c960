"""What simulated clients do: some hundred tasks of every kind, by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from parallelz.ids import EngineId, TaskId
from parallelz.protocol.messages import (
    AbortTasks,
    AskHistory,
    AskQueues,
    AskState,
    CancelTasks,
    ClearEngines,
    Dependency,
    DrainEngines,
    InterruptEngines,
    ShutdownEngines,
    TaskOptions,
)
from parallelz.testing.clients import SimClient
from parallelz.testing.timeline import Timeline
from parallelz.testing.work import Outcome, SimWork

PUT_OFF_S = 0.5  # what a frozen client was to do, it does later
QUESTIONS: tuple[Literal["story", "why", "dump"], ...] = ("story", "why", "dump")
FRAME = bytes(range(256)) * 80
LABELS = ["big", "fast"]
RESOURCES = {"gpu": 2.0}
ENDLESS_S = 20.0  # far more than any `max_runtime_s` and all that it takes to enforce it


@dataclass
class Workload:
    """How much clients do, and of what.

    Attributes
    ----------
    period_s
        All is submitted within this.
    tasks_count
        At least so many are submitted, by all clients together.
    single, batch, direct, graph, request
        How often a client does each of these, relative to the others.
    dependent
        Part of the single tasks that depend on others.
    inputs, unmet
        Part of the tasks that take results of others, and of those that refuse every second
        engine.
    picky, limited
        Part of the tasks that need labels or resources, and of those that may run only for so
        long, some of which take much longer.
    foreign
        Part of the dependencies and orders that name tasks of other clients.
    cancels, restarts
        Part of some requests that cancel what may run, and that drain or restart an engine.
    leave
        How often a client leaves for good and another comes, relative to `single`.
    """

    period_s: float = 6.0
    tasks_count: int = 200
    single: float = 10.0
    batch: float = 1.0
    direct: float = 3.0
    graph: float = 0.5
    request: float = 1.0
    dependent: float = 0.3
    inputs: float = 0.1
    unmet: float = 0.03
    picky: float = 0.1
    limited: float = 0.05
    foreign: float = 0.3
    cancels: float = 0.5
    restarts: float = 0.1
    leave: float = 0.2


class Script:
    """Has clients act by chance until enough is submitted.

    Parameters
    ----------
    clients
        All of them, also those that have left.
    add_client
        Adds another one to these.
    """

    def __init__(
        self,
        timeline: Timeline,
        clients: list[SimClient],
        add_client: Callable[[], None],
        workload: Workload,
    ) -> None:
        self.is_over = False
        self._timeline = timeline
        self._random = timeline.random
        self._clients = clients
        self._add_client = add_client
        self._workload = workload
        self._count = 0
        self._deeds = {
            self._single: workload.single,
            self._batch: workload.batch,
            self._direct: workload.direct,
            self._graph: workload.graph,
            self._request: workload.request,
            self._leave: workload.leave,
        }
        tasks_per_deed = 3.0
        self._pace_s = workload.period_s * tasks_per_deed / max(workload.tasks_count, 1)
        timeline.after(0.0, self._act)

    def _act(self) -> None:
        clients = [client for client in self._clients if client.is_present]
        if self._count >= self._workload.tasks_count or not clients:
            self.is_over = True
            return
        client = self._random.choice(clients)
        (deed,) = self._random.choices(list(self._deeds), list(self._deeds.values()))
        if client.is_frozen:
            self._timeline.after(PUT_OFF_S, self._act)
            return
        deed(client)
        self._timeline.after(self._random.expovariate(1.0 / self._pace_s), self._act)

    # -- deeds -----------------------------------------------------------------------------

    def _single(self, client: SimClient) -> None:
        frame = FRAME if self._random.random() < 0.1 else b""
        self._count += 1
        work, options = self._work(), self._options(client)
        if options is not None and self._random.random() < self._workload.limited:
            max_runtime_s = self._random.choice([0.01, 0.3])
            options = msgspec.structs.replace(options, max_runtime_s=max_runtime_s)
            if self._random.random() < 0.5:
                work = msgspec.structs.replace(work, duration_s=ENDLESS_S)
        client.submit(work, options, frame)

    def _batch(self, client: SimClient) -> None:
        works = [self._work() for _ in range(self._random.randint(2, 30))]
        retries = self._random.choice([0, 0, 1])
        self._count += len(works)
        client.submit_map(works, TaskOptions(retries=retries) if retries else None)

    def _direct(self, client: SimClient) -> None:
        if client.engine_ids:
            count = self._random.randint(1, len(client.engine_ids))
            engine_ids = self._random.sample(client.engine_ids, count)
            self._count += len(engine_ids)
            client.submit_direct(self._work(), sorted(engine_ids))

    def _graph(self, client: SimClient) -> None:
        """Submit tasks each of which waits for some before it."""
        task_ids: list[TaskId] = []
        for _ in range(self._random.randint(5, 25)):
            count = min(len(task_ids), self._random.randint(0, 3))
            after = Dependency(self._random.sample(task_ids, count)) if count else None
            options = TaskOptions(after=after, retries=2)
            task_ids.append(client.submit(self._work(is_good=True), options))
        self._count += len(task_ids)

    def _leave(self, client: SimClient) -> None:
        if client is not self._clients[0]:
            client.leave()
            self._add_client()

    def _request(self, client: SimClient) -> None:
        number = client.next_request_id()
        engine_ids = list(client.engine_ids)
        cancels = self._workload.cancels
        match self._random.randrange(7):
            case 0 | 1:
                self._stop(client, number)
            case 2:
                client.ask(number, ClearEngines(number, engine_ids))
            case 3:
                client.ask(number, AskQueues(number, engine_ids, verbose=True))
            case 4 if cancels and self._random.random() < cancels:
                task_ids = self._to_stop(client, 3)
                grace_s = self._random.choice([0.05, 1.0])
                client.ask(number, CancelTasks(number, task_ids, grace_s))
            case 4 if self._random.random() < 0.2:
                client.interrupts = True
                client.ask(number, InterruptEngines(number, engine_ids[:1]))
            case 5 if self._random.random() < self._workload.restarts:
                client.ask(
                    number,
                    self._random.choice(
                        [
                            DrainEngines(number, engine_ids[:1]),
                            ShutdownEngines(number, engine_ids[:1], restart=True),
                        ]
                    ),
                )
            case 5:
                question = self._random.choice(QUESTIONS)
                client.ask(number, AskState(number, question, self._some_of(client, 3)))
            case _:
                asked = msgspec.msgpack.encode({"task_ids": self._some_of(client, 3)})
                client.ask(number, AskHistory(number, "status", asked))

    def _stop(self, client: SimClient, number: int) -> None:
        """Abort some tasks or, rarely, all; often just after they were submitted."""
        random = self._random
        engine_ids: list[EngineId] | None = None
        if client.engine_ids and random.random() < 0.3:
            engine_ids = [random.choice(client.engine_ids)]
        if random.random() < 0.5:
            for _ in range(random.randint(0, 3)):
                self._single(client)
        if random.random() < 0.2:
            client.aborted.update(dict.fromkeys(client.plans))
            order = AbortTasks(number, None, engine_ids, number_end=len(client.plans))
        else:
            order = AbortTasks(number, self._to_stop(client, 8), engine_ids)
        client.ask(number, order)

    def _to_stop(self, client: SimClient, count_max: int) -> list[TaskId]:
        """Choose tasks, and note that they may end so."""
        task_ids = self._some_of(client, count_max)
        for other in self._clients:
            other.aborted.update((t, None) for t in task_ids if t in other.plans)
        return task_ids

    # -- what they are made of -------------------------------------------------------------

    def _some_of(self, client: SimClient, count_max: int) -> list[TaskId]:
        """Choose some of the tasks that a client, or another one, submitted lately."""
        if self._random.random() < self._workload.foreign:
            others = [other for other in self._clients if other.plans]
            client = self._random.choice(others) if others else client
        return self._some_of_own(client, count_max)

    def _some_of_own(self, client: SimClient, count_max: int) -> list[TaskId]:
        latest = list(client.plans)[-50:]
        count = min(len(latest), self._random.randint(1, count_max))
        return self._random.sample(latest, count)

    def _work(self, *, is_good: bool = False) -> SimWork:
        random = self._random
        scale_s = random.choices([0.001, 0.05, 1.0], [6, 3, 0.5])[0]
        outcome: Outcome = "ok"
        if not is_good:
            outcomes: tuple[Outcome, ...] = ("ok", "error", "flaky", "unmet", "busy")
            unmet = 10.0 * self._workload.unmet
            weights = [10.0, 0.5, 0.5, unmet, unmet]
            (outcome,) = random.choices(outcomes, weights)
        is_stubborn = random.random() < 0.1
        return SimWork(random.randrange(1000), random.random() * scale_s, outcome, is_stubborn)

    def _options(self, client: SimClient) -> TaskOptions | None:
        random = self._random
        if random.random() < 0.3:
            return None
        after = follow = None
        engine_ids: list[EngineId] | None = None
        inputs: list[TaskId] = []
        if client.plans and random.random() < self._workload.dependent:
            others = self._some_of(client, 3)
            success, failure = random.choice(
                [(True, False)] * 3 + [(False, True), (True, True)]
            )
            dependency = Dependency(others, random.random() < 0.7, success, failure)
            if random.random() < 0.7:
                after = dependency
            else:
                follow = dependency
        if client.plans and random.random() < self._workload.inputs:
            inputs = self._some_of_own(client, 3)
        if client.engine_ids and random.random() < 0.1:
            count = random.randint(1, len(client.engine_ids))
            engine_ids = sorted(random.sample(client.engine_ids, count))
        wait_timeout_s = random.choice([0.05, 0.5, 5.0]) if random.random() < 0.05 else 0.0
        labels, resources = self._needs()
        return TaskOptions(
            after=after,
            follow=follow,
            engine_ids=engine_ids,
            retries=random.choice([0, 0, 1, 3]),
            wait_timeout_s=wait_timeout_s,
            inputs=inputs,
            priority=random.choice([0, 0, 0, 5, -5]),
            retry_delay_s=random.choice([0.0, 0.0, 0.05]),
            labels=labels,
            resources=resources,
        )

    def _needs(self) -> tuple[list[str], dict[str, float]]:
        random = self._random
        if random.random() >= self._workload.picky:
            return [], {}
        labels = random.sample(LABELS, random.randint(0, len(LABELS)))
        resources = {
            name: float(random.randint(1, int(most))) for name, most in RESOURCES.items()
        }
        return labels, resources if random.random() < 0.5 else {}
