"""The engines, what each has to do, and which of them has room.

Theory of operation
-------------------
*Credit.* An engine gets as much work as covers the round trip to it: one task, and more only
while all that is placed there is expected to take less than `PREFETCH_S`, by what tasks of the
same function took before. So no-ops stream in hundreds, and nothing is placed behind a task
that is long or unknown.

*Room.* Engines with nothing to do are kept in the order in which they became idle, those with
room behind them in the order in which they were last given something. Both are ordered
dicts: to find the engine for a task costs the same for 2 and for 10,000 engines.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from parallelz.core.task import Task
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo

PREFETCH_S = 0.005
PLACED_COUNT_MAX = 500
DURATIONS_COUNT_MAX = 1024
GONE_COUNT_MAX = 10_000
DURATION_MIN_S = 10e-6  # a task costs its engine at least this, however short its function
DURATION_WEIGHT = 0.2  # of the newest measurement in the moving average


class Engine:
    """What the core knows of an engine."""

    __slots__ = (
        "bound",
        "ended_count",
        "id",
        "info",
        "is_late",
        "load_s",
        "placed",
        "recalling",
        "seen_count",
    )

    def __init__(self, info: EngineInfo) -> None:
        self.id = info.engine_id
        self.info = info
        self.placed: dict[TaskId, Task] = {}  # in the order in which they run
        self.bound: deque[Task] = deque()  # READY, to run here and nowhere else
        self.load_s = 0.0  # sum of `expected_s` of what is placed
        self.recalling = False  # it was asked to give back, and has not answered
        self.is_late = False  # its current task takes longer than expected: nothing behind it
        self.ended_count = 0
        self.seen_count = 0  # `ended_count` at the last look for what is stuck


class Roster:
    """All engines, by id and by session, and those with room."""

    def __init__(self) -> None:
        self.engines: dict[EngineId, Engine] = {}
        self.by_session: dict[SessionId, Engine] = {}
        self._idle: dict[EngineId, Engine] = {}
        self._roomy: dict[EngineId, Engine] = {}
        self._prefetching: dict[EngineId, Engine] = {}  # with more than one task placed
        self._durations: OrderedDict[Digest, float] = OrderedDict()
        self._gone: OrderedDict[EngineId, str] = OrderedDict()

    def add(self, engine: Engine) -> None:
        """Take in a new engine."""
        self.engines[engine.id] = engine
        self.by_session[engine.info.session_id] = engine
        self._idle[engine.id] = engine

    def remove(self, engine: Engine, why: str) -> None:
        """Forget an engine, but for the latest `GONE_COUNT_MAX` not why it is gone."""
        self._gone[engine.id] = why
        if len(self._gone) > GONE_COUNT_MAX:
            self._gone.popitem(last=False)
        del self.engines[engine.id]
        del self.by_session[engine.info.session_id]
        self._idle.pop(engine.id, None)
        self._roomy.pop(engine.id, None)
        self._prefetching.pop(engine.id, None)

    def why_gone(self, engine_id: EngineId) -> str:
        """Return what to tell of an engine that is not there."""
        return self._gone.get(engine_id, f"engine {engine_id} is not there (any more)")

    def room_for(self, task: Task) -> Engine | None:
        """Return the engine that should have an unbound task now, if any."""
        for engine in self._idle.values():
            return engine
        if task.digest in self._durations:
            for engine in self._roomy.values():
                return engine
        return None

    def has_room_for(self, engine: Engine, task: Task) -> bool:
        """Whether this engine could take this task now."""
        if engine.recalling:
            return False
        return not engine.placed or (
            engine.id in self._roomy and task.digest in self._durations
        )

    def place(self, engine: Engine, task: Task) -> None:
        """Book a task on an engine."""
        expected_s = self._durations.get(task.digest)
        engine.placed[task.id] = task
        task.expected_s = PREFETCH_S if expected_s is None else expected_s
        engine.load_s += task.expected_s
        self._sort(engine)

    def release(self, engine: Engine, task: Task) -> None:
        """Take a task off its engine."""
        del engine.placed[task.id]
        count = len(engine.placed)
        engine.load_s = engine.load_s - task.expected_s if count else 0.0
        if count < 2 or engine.id not in self._roomy:
            self._sort(engine)

    def learn(self, digest: Digest, duration_s: float) -> None:
        """Take in how long a task of this function ran."""
        duration_s = max(duration_s, DURATION_MIN_S)
        before_s = self._durations.get(digest)
        if before_s is None:
            self._durations[digest] = duration_s
            if len(self._durations) > DURATIONS_COUNT_MAX:
                self._durations.popitem(last=False)
        else:
            self._durations[digest] = before_s + DURATION_WEIGHT * (duration_s - before_s)

    def recalled(self, engine: Engine) -> None:
        """Book that an engine was asked to give back, or has answered."""
        self._sort(engine)

    def stuck(self) -> list[Engine]:
        """Return engines with more than one task that have ended nothing since the last call.

        Call it no sooner than it would take to run all that is placed on one.
        """
        found: list[Engine] = []
        for engine in self._prefetching.values():
            if not engine.recalling and engine.ended_count == engine.seen_count:
                found.append(engine)
            engine.seen_count = engine.ended_count
        return found

    @property
    def prefetches(self) -> bool:
        """Whether any engine has tasks that wait behind another there."""
        return bool(self._prefetching)

    def validate(self) -> None:
        """Check every invariant; costs time linear in the number of engines."""
        for engine in self.engines.values():
            count = len(engine.placed)
            assert (engine.id in self._idle) == (not count and not engine.recalling), engine.id
            assert (engine.id in self._prefetching) == (count > 1), engine.id
            assert count <= PLACED_COUNT_MAX, engine.id
        assert set(self._idle) | set(self._roomy) <= set(self.engines)

    def _sort(self, engine: Engine) -> None:
        """Put an engine where it belongs, last of its kind."""
        key, count = engine.id, len(engine.placed)
        self._idle.pop(key, None)
        self._roomy.pop(key, None)
        if engine.recalling:
            pass
        elif not count:
            self._idle[key] = engine
        elif not engine.is_late and engine.load_s < PREFETCH_S and count < PLACED_COUNT_MAX:
            self._roomy[key] = engine
        if count > 1:
            if key not in self._prefetching:
                self._prefetching[key] = engine
                engine.seen_count = -1
        else:
            self._prefetching.pop(key, None)
