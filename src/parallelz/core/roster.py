"""The engines, what each has to do, which of them has room, and what waits for them.

Theory of operation
-------------------
*Credit.* An engine gets as much work as covers the round trip to it: one task, and more only
while all that is placed there is expected to take less than `PREFETCH_S`, by what tasks of the
same function took before. So no-ops stream in hundreds, and nothing is placed behind a task
that is long or unknown. Or, by hand, any `hwm` tasks.

*Lanes.* Tasks that may run on the same engines wait in the same lane. The open lane is for
those that may run anywhere; most clusters have no other. An engine is in each lane whose tasks
it may have, and a lane knows those of its engines that have room. When an engine gets room,
its lanes are *awake* until that is used.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from parallelz.core.fairness import FairQueue, Shares
from parallelz.core.placement import Draw, LeastLoad, Room
from parallelz.core.task import Task
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo

PREFETCH_S = 0.005
PLACED_COUNT_MAX = 500
LOAD_STEPS = 16  # ranks of engines with something to do: load in parts of `PREFETCH_S`
RANK_MAX = 1_000_000
DURATIONS_COUNT_MAX = 1024
GONE_COUNT_MAX = 10_000
DURATION_MIN_S = 10e-6  # a task costs its engine at least this, however short its function
DURATION_WEIGHT = 0.2  # of the newest measurement in the moving average
EMPTY_LANES_MAX = 8  # kept for the next task of their kind


class Needs(NamedTuple):
    """What a task asks of an engine."""

    engine_ids: tuple[EngineId, ...] | None = None
    labels: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    refused: tuple[EngineId, ...] = ()

    def __str__(self) -> str:
        parts: list[str] = []
        if self.engine_ids is not None:
            parts.append(f"is among {list(self.engine_ids)}")
        if self.labels:
            parts.append(f"has the label{'s' * (len(self.labels) > 1)} {_listed(self.labels)}")
        parts += [f"has {amount:g} {name}" for name, amount in self.resources]
        if self.refused:
            parts.append(f"is none of {list(self.refused)}, which refused it")
        return " and ".join(parts) or "is there"


ANY = Needs()


class Engine:
    """What the core knows of an engine."""

    __slots__ = (
        "adopted_count",
        "direct",
        "ended_count",
        "has_limits",
        "id",
        "info",
        "is_away",
        "is_draining",
        "is_late",
        "kept_id",
        "lanes",
        "load_s",
        "placed",
        "placed_number",
        "rank",
        "recall_count",
        "seen_count",
        "since_s",
    )

    def __init__(self, info: EngineInfo, shares: Shares) -> None:
        self.id = info.engine_id
        self.info = info
        self.placed: dict[TaskId, Task] = {}  # in the order in which they run
        self.direct = FairQueue(shares)  # READY, to run here and nowhere else
        self.lanes: list[Lane] = []
        self.rank = -1  # see `placement`
        self.load_s = 0.0  # sum of `expected_s` of what is placed
        self.placed_number = 0  # of the last placement here, counted over all engines
        self.recall_count = 0  # how often it was asked to give back and has not answered
        self.is_away = False  # its lines are broken: nothing new until they are there again
        self.is_draining = False  # nothing new, but what is for it alone
        self.is_late = False  # its task takes too long, or is to be stopped: nothing behind it
        self.kept_id: TaskId | None = None  # the last of which it said that it had started
        self.has_limits = False  # a task that may run only for so long was placed
        self.since_s = 0.0  # when the first of `placed` came to be that
        self.ended_count = 0
        self.adopted_count = 0  # tasks that it had started under another controller
        self.seen_count = 0  # `ended_count` at the last look for what is stuck

    @property
    def current(self) -> Task | None:
        """What it runs now, as far as is known."""
        return next(iter(self.placed.values()), None)

    def meets(self, needs: Needs) -> bool:
        """Whether it may have tasks that need this."""
        return (
            (needs.engine_ids is None or self.id in needs.engine_ids)
            and self.id not in needs.refused
            and set(needs.labels) <= set(self.info.labels)
            and all(
                self.info.resources.get(name, 0.0) >= amount for name, amount in needs.resources
            )
        )


class Lane:
    """Ready tasks with the same needs, and the engines that meet them."""

    __slots__ = ("engines", "needs", "number", "queue", "room")

    def __init__(self, number: int, needs: Needs, queue: FairQueue, room: Room) -> None:
        self.number = number
        self.needs = needs
        self.queue = queue
        self.room = room
        self.engines: dict[EngineId, Engine] = {}

    def add(self, engine: Engine) -> None:
        """Take in an engine that meets the needs."""
        self.engines[engine.id] = engine
        engine.lanes.append(self)
        self.room.move(engine, -1, engine.rank)

    def discard(self, engine: Engine) -> None:
        """Forget an engine."""
        del self.engines[engine.id]
        engine.lanes.remove(self)
        self.room.move(engine, engine.rank, -1)


class Roster:
    """All engines, by id and by session, and the lanes of what may run on them.

    Parameters
    ----------
    scheme
        How an engine is chosen.
    hwm
        How many tasks may be placed on an engine at once; 0: any number. None: as many as
        cover the round trip.
    draw
        The source of chance for schemes that need one.
    """

    def __init__(
        self,
        scheme: type[Room] = LeastLoad,
        hwm: int | None = None,
        draw: Draw = lambda count: 0,
    ) -> None:
        self.scheme = scheme
        self.hwm = hwm
        self.shares = Shares()
        self.engines: dict[EngineId, Engine] = {}
        self.by_session: dict[SessionId, Engine] = {}
        self._draw = draw
        self._placed_count = 0
        self.open = Lane(0, ANY, FairQueue(self.shares), scheme(draw))
        self._lanes_made_count = 1
        self.lanes: dict[Needs, Lane] = {ANY: self.open}
        self.awake: dict[int, Lane] = {}  # by number: with tasks, and maybe room for them
        self._lanes_max = EMPTY_LANES_MAX  # more: look for some to drop
        self._prefetching: dict[EngineId, Engine] = {}  # with more than one task placed
        self._durations: OrderedDict[Digest, float] = OrderedDict()
        self._gone: OrderedDict[EngineId, str] = OrderedDict()

    # -- coming and going ------------------------------------------------------------------

    def add(self, info: EngineInfo) -> Engine:
        """Take in a new engine."""
        engine = Engine(info, self.shares)
        self.engines[engine.id] = engine
        self.by_session[engine.info.session_id] = engine
        for lane in self.lanes.values():
            if engine.meets(lane.needs):
                lane.add(engine)
        self.sort(engine)
        return engine

    def remove(self, engine: Engine, why: str) -> None:
        """Forget an engine, but for the latest `GONE_COUNT_MAX` not why it is gone."""
        self.note_gone(engine.id, why)
        del self.engines[engine.id]
        del self.by_session[engine.info.session_id]
        self._prefetching.pop(engine.id, None)
        for lane in list(engine.lanes):
            lane.discard(engine)

    def note_gone(self, engine_id: EngineId, why: str) -> None:
        """Remember why an engine is not there."""
        self._gone[engine_id] = why
        if len(self._gone) > GONE_COUNT_MAX:
            self._gone.popitem(last=False)

    def why_gone(self, engine_id: EngineId) -> str:
        """Return what to tell of an engine that is not there."""
        return self._gone.get(engine_id, f"engine {engine_id} is not there (any more)")

    # -- lanes -----------------------------------------------------------------------------

    def lane_of(self, task: Task) -> Lane:
        """Return where a task waits that is not direct."""
        options = task.options
        labels = () if options is None else tuple(sorted(options.labels))
        resources = () if options is None else tuple(sorted(options.resources.items()))
        if task.engine_ids is None and not (labels or resources or task.refused):
            return self.open
        needs = Needs(task.engine_ids, labels, resources, task.refused)
        return self.lanes.get(needs) or self._new_lane(needs)

    def _new_lane(self, needs: Needs) -> Lane:
        if len(self.lanes) > self._lanes_max:
            self._drop_empty_lanes()
        number = self._lanes_made_count
        lane = Lane(number, needs, FairQueue(self.shares), self.scheme(self._draw))
        self._lanes_made_count += 1
        self.lanes[needs] = lane
        if needs.engine_ids is None:
            engines = list(self.engines.values())
        else:
            engines = [self.engines[e] for e in needs.engine_ids if e in self.engines]
        for engine in engines:
            if engine.meets(needs):
                lane.add(engine)
        return lane

    def _drop_empty_lanes(self) -> None:
        """Keep the newest few of those without tasks."""
        empty = [lane for lane in self.lanes.values() if not lane.queue.count]
        for lane in empty[:-EMPTY_LANES_MAX]:
            if lane is not self.open:
                self.drop(lane)
        self._lanes_max = 2 * len(self.lanes) + EMPTY_LANES_MAX

    def drop(self, lane: Lane) -> None:
        """Forget a lane, whose tasks are elsewhere now."""
        del self.lanes[lane.needs]
        self.awake.pop(lane.number, None)
        for engine in list(lane.engines.values()):
            lane.discard(engine)

    # -- room ------------------------------------------------------------------------------

    def room_for(
        self, lane: Lane, digest: Digest, avoid: EngineId | None = None
    ) -> Engine | None:
        """Return the engine of a lane that should have a task of this function now, if any."""
        rank_max = RANK_MAX if self.hwm is not None or digest in self._durations else 0
        chosen = lane.room.choose(rank_max, avoid)
        return None if chosen is None else self.engines[chosen.id]

    def has_room_for(self, engine: Engine, task: Task) -> bool:
        """Whether this engine could take this direct task now."""
        if engine.is_away:
            return False
        if not engine.placed:
            return not engine.recall_count
        return engine.rank > 0 and (self.hwm is not None or task.digest in self._durations)

    def place(self, engine: Engine, task: Task) -> None:
        """Book a task on an engine."""
        expected_s = self._durations.get(task.digest)
        if expected_s is None:
            expected_s = PREFETCH_S
        engine.placed[task.id] = task
        task.expected_s = expected_s
        engine.load_s += expected_s
        self._placed_count = engine.placed_number = self._placed_count + 1
        if len(engine.placed) == 2 and self.hwm is None:
            self._prefetching[engine.id] = engine
            engine.seen_count = -1
        self._set_rank(engine, self._rank_of(engine))  # also if equal: it goes to the end

    def release(self, engine: Engine, task: Task) -> None:
        """Take a task off its engine."""
        placed = engine.placed
        del placed[task.id]
        engine.load_s = engine.load_s - task.expected_s if placed else 0.0
        if len(placed) < 2:
            self._prefetching.pop(engine.id, None)
        self.sort(engine)

    def learn(self, digest: Digest, duration_s: float) -> None:
        """Take in how long a task of this function ran."""
        duration_s = max(duration_s, DURATION_MIN_S)
        before_s = self._durations.get(digest)
        if before_s is None:
            self._durations[digest] = duration_s
            if len(self._durations) > DURATIONS_COUNT_MAX:
                self._durations.popitem(last=False)
            for lane in self.lanes.values():  # it may be placed behind others from now on
                if lane.queue.count:
                    self.awake[lane.number] = lane
        else:
            self._durations[digest] = before_s + DURATION_WEIGHT * (duration_s - before_s)

    def sort(self, engine: Engine) -> None:
        """Take in that an engine may have more room than before."""
        rank = self._rank_of(engine)
        if rank != engine.rank:
            self._set_rank(engine, rank)
        if rank >= 0:
            for lane in engine.lanes:
                if lane.queue.count:
                    self.awake[lane.number] = lane

    def _set_rank(self, engine: Engine, new: int) -> None:
        old = engine.rank
        engine.rank = new
        for lane in engine.lanes:
            lane.room.move(engine, old, new)

    def _rank_of(self, engine: Engine) -> int:
        if engine.is_away:
            return -1
        if engine.recall_count or engine.is_draining:
            return -1
        count = len(engine.placed)
        if not count:
            return 0
        if engine.is_late:
            return -1
        if self.hwm is not None:
            return count if not self.hwm or count < self.hwm else -1
        if engine.load_s >= PREFETCH_S or count >= PLACED_COUNT_MAX:
            return -1
        return 1 + int(engine.load_s * (LOAD_STEPS / PREFETCH_S))

    # -- what is stuck ---------------------------------------------------------------------

    def stuck(self) -> list[Engine]:
        """Return engines with more than one task that have ended nothing since the last call.

        Call it no sooner than it would take to run all that is placed on one.
        """
        found: list[Engine] = []
        for engine in self._prefetching.values():
            if not engine.recall_count and engine.ended_count == engine.seen_count:
                found.append(engine)
            engine.seen_count = engine.ended_count
        return found

    @property
    def prefetches(self) -> bool:
        """Whether any engine has tasks that wait behind another there, by our own choice."""
        return bool(self._prefetching)

    def validate(self) -> None:
        """Check every invariant; costs time linear in the number of engines and lanes."""
        for engine in self.engines.values():
            count = len(engine.placed)
            is_prefetching = count > 1 and self.hwm is None
            assert (engine.id in self._prefetching) == is_prefetching, engine.id
            assert engine.rank == self._rank_of(engine), engine.id
            count_max = PLACED_COUNT_MAX + engine.adopted_count
            assert self.hwm is not None or count <= count_max, engine.id
        for needs, lane in self.lanes.items():
            meeting = {e.id for e in self.engines.values() if e.meets(needs)}
            assert set(lane.engines) == meeting, needs
            for engine in lane.engines.values():
                assert lane in engine.lanes, engine.id


def _listed(words: tuple[str, ...]) -> str:
    return " and ".join(map(repr, words))
