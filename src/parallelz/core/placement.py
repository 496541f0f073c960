"""Which of the engines with room gets the next task: one class for each scheme.

A scheme is the way in which the engines with room are kept and one of them is chosen. Each
costs the same for 2 and for 10,000 engines. An engine's *rank* says how much room it has: 0 is
idle, more is less, -1 is none.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from parallelz.errors import ClusterError
from parallelz.ids import EngineId
from parallelz.option_values import nearest

Draw = Callable[[int], int]
"""Returns a number below its argument: ``random.randrange``, or anything that replays."""

TRIES_MAX = 8


class Candidate(Protocol):
    """What a scheme may know of an engine."""

    @property
    def id(self) -> EngineId:
        """Its id."""

    @property
    def rank(self) -> int:
        """How much room it has."""

    @property
    def load_s(self) -> float:
        """What is placed there, in seconds that it is expected to take."""

    @property
    def placed_number(self) -> int:
        """Grows with each placement on any engine: the smallest was used least recently."""


class Room(ABC):
    """The engines with room, of those that may have some kind of task.

    Parameters
    ----------
    draw
        The source of chance, for schemes that need one.

    Attributes
    ----------
    has_dependencies
        Whether tasks may depend on others.
    """

    has_dependencies = True

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    @abstractmethod
    def move(self, engine: Candidate, old: int, new: int) -> None:
        """Take in that an engine's rank was `old` and is `new` (its `rank` is that already)."""

    @abstractmethod
    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """Return the engine for a task, which stays where it is; None: none has room for it.

        Parameters
        ----------
        rank_max
            0: an idle one only, as nobody knows how long the task will take.
        avoid
            Not this one.
        """


class LeastLoad(Room):
    """The one with the least to do; of several the one that has had that room longest."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._by_rank: list[dict[EngineId, Candidate]] = [{}]
        self._lowest = 0  # no lower rank has any

    def move(self, engine: Candidate, old: int, new: int) -> None:
        """See `Room.move`."""
        if old >= 0:
            del self._by_rank[old][engine.id]
        if new >= 0:
            while len(self._by_rank) <= new:
                self._by_rank.append({})
            self._by_rank[new][engine.id] = engine
            self._lowest = min(self._lowest, new)

    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """See `Room.choose`."""
        by_rank, lowest = self._by_rank, self._lowest
        while lowest < len(by_rank) and not by_rank[lowest]:
            lowest += 1
        self._lowest = lowest
        while lowest < len(by_rank) and lowest <= rank_max:
            for engine in by_rank[lowest].values():
                if engine.id != avoid:
                    return engine
            lowest += 1
        return None


class Lru(Room):
    """The one that was given something longest ago, whatever it has to do."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._members: dict[EngineId, Candidate] = {}
        self._idle: list[tuple[int, EngineId]] = []  # heaps; what does not fit is stale
        self._all: list[tuple[int, EngineId]] = []

    def move(self, engine: Candidate, old: int, new: int) -> None:
        """See `Room.move`."""
        if new < 0:
            self._members.pop(engine.id, None)
            return
        self._members[engine.id] = engine
        entry = (engine.placed_number, engine.id)
        for heap in (self._idle, self._all) if new == 0 else (self._all,):
            heapq.heappush(heap, entry)
            if len(heap) > 4 * len(self._members) + TRIES_MAX:
                current = {(e.placed_number, e.id) for e in self._members.values()}
                heap[:] = sorted(current & set(heap))

    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """See `Room.choose`."""
        heap = self._all if rank_max else self._idle
        avoided: tuple[int, EngineId] | None = None
        found = None
        while heap and found is None:
            placed_number, engine_id = heap[0]
            engine = self._members.get(engine_id)
            fits = engine is not None and engine.placed_number == placed_number
            if engine is None or not fits or (engine.rank and not rank_max):
                heapq.heappop(heap)
            elif engine_id == avoid:
                avoided = heapq.heappop(heap)
            else:
                found = engine
        if avoided is not None:
            heapq.heappush(heap, avoided)
        return found


class _Bag:
    """Engines of which any can be drawn."""

    def __init__(self) -> None:
        self._members: list[Candidate] = []
        self._places: dict[EngineId, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, engine: Candidate) -> None:
        if engine.id not in self._places:
            self._places[engine.id] = len(self._members)
            self._members.append(engine)

    def discard(self, engine: Candidate) -> None:
        place = self._places.pop(engine.id, None)
        if place is None:
            return
        last = self._members.pop()
        if last.id != engine.id:
            self._members[place] = last
            self._places[last.id] = place

    def draw(self, draw: Draw, avoid: EngineId | None) -> Candidate | None:
        """Return any but `avoid`."""
        count = len(self._members)
        if not count:
            return None
        place = draw(count)
        engine = self._members[place]
        if engine.id != avoid:
            return engine
        return self._members[(place + 1) % count] if count > 1 else None


class PlainRandom(Room):
    """Any."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self._idle = _Bag()
        self._all = _Bag()

    def move(self, engine: Candidate, old: int, new: int) -> None:
        """See `Room.move`."""
        if new < 0:
            self._all.discard(engine)
        else:
            self._all.add(engine)
        if new == 0:
            self._idle.add(engine)
        else:
            self._idle.discard(engine)

    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """See `Room.choose`."""
        return self._draw_one(rank_max, avoid)

    def _draw_one(self, rank_max: int, avoid: EngineId | None) -> Candidate | None:
        return (self._all if rank_max else self._idle).draw(self._draw, avoid)


class TwoBin(PlainRandom):
    """Of two that are drawn the one with less to do.

    Nearly as good as knowing all loads (M. Mitzenmacher, The power of two choices, 2001).
    """

    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """See `Room.choose`."""
        one = self._draw_one(rank_max, avoid)
        other = self._draw_one(rank_max, avoid)
        if one is None or other is None:
            return one
        return min(one, other, key=lambda engine: (engine.rank, engine.load_s))


class Weighted(PlainRandom):
    """Any, the more often the less it has to do: as 1 to 1 + its rank."""

    def choose(self, rank_max: int, avoid: EngineId | None = None) -> Candidate | None:
        """See `Room.choose`."""
        best: Candidate | None = None
        for _ in range(TRIES_MAX):
            drawn = self._draw_one(rank_max, avoid)
            if drawn is None or self._draw(1 + drawn.rank) == 0:
                return drawn
            if best is None or drawn.rank < best.rank:
                best = drawn
        return best


class Pure(PlainRandom):
    """Any, and no dependencies: the least that can be asked of a scheduler."""

    has_dependencies = False


SCHEMES: dict[str, type[Room]] = {
    "leastload": LeastLoad,
    "lru": Lru,
    "plainrandom": PlainRandom,
    "twobin": TwoBin,
    "weighted": Weighted,
    "pure": Pure,
}


class UnknownScheme(ClusterError):
    """There is no such way to choose engines."""


def scheme_named(name: str) -> type[Room]:
    """Return the class of a scheme.

    Raises
    ------
    UnknownScheme
        If there is none of that name.
    """
    if name not in SCHEMES:
        raise UnknownScheme(f"there is no scheme {name!r}; {nearest(str(name), SCHEMES)}")
    return SCHEMES[name]


def to_scheme(name: str) -> str:
    """Return the name of a scheme if there may be such: a user's own, nobody can tell yet.

    Raises
    ------
    UnknownScheme
        If there is none.
    """
    if not isinstance(name, str) or ":" not in name:
        scheme_named(name)
    return name
