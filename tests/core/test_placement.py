"""Each scheme chooses among the engines with room as it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest

from parallelz.core.placement import (
    SCHEMES,
    LeastLoad,
    Lru,
    PlainRandom,
    Room,
    TwoBin,
    UnknownScheme,
    Weighted,
    scheme_named,
)
from parallelz.ids import EngineId

ANY_RANK = 1000


@dataclass
class Candidate:
    id: EngineId
    rank: int = -1
    load_s: float = 0.0
    placed_number: int = 0


class Engines:
    """Some engines, and the room that knows of them."""

    def __init__(self, scheme: type[Room], ranks: list[int]) -> None:
        self.room = scheme(Random(1).randrange)
        self.all = [Candidate(EngineId(number)) for number in range(len(ranks))]
        for engine, rank in zip(self.all, ranks, strict=True):
            self.move(engine.id, rank)

    def move(self, engine_id: int, rank: int) -> None:
        engine = self.all[engine_id]
        old, engine.rank = engine.rank, rank
        engine.load_s = float(max(rank, 0))
        self.room.move(engine, old, rank)

    def choose(self, rank_max: int = ANY_RANK, avoid: int | None = None) -> int | None:
        chosen = self.room.choose(rank_max, None if avoid is None else EngineId(avoid))
        return None if chosen is None else chosen.id


@pytest.mark.parametrize("name", SCHEMES)
def test_no_scheme_chooses_an_engine_without_room(name: str) -> None:
    engines = Engines(SCHEMES[name], [-1, 2, -1])
    assert {engines.choose() for _ in range(20)} == {1}
    assert engines.choose(rank_max=0) is None
    engines.move(1, -1)
    assert engines.choose() is None


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_can_avoid_an_engine(name: str) -> None:
    engines = Engines(SCHEMES[name], [0, 0])
    assert {engines.choose(avoid=0) for _ in range(20)} == {1}
    engines.move(1, -1)
    assert engines.choose(avoid=0) is None
    assert engines.choose() == 0


def test_leastload_takes_the_least_loaded_and_of_equals_the_first() -> None:
    engines = Engines(LeastLoad, [3, 1, 1, 2])
    assert engines.choose() == 1
    engines.move(1, 1)  # as after a placement that did not change its rank
    assert engines.choose() == 2
    engines.move(3, 0)
    assert engines.choose() == 3


def test_lru_takes_the_one_used_longest_ago() -> None:
    engines = Engines(Lru, [0, 0, 0])
    order = []
    for number in range(1, 7):
        chosen = engines.choose()
        assert chosen is not None
        order.append(chosen)
        engines.all[chosen].placed_number = number
        engines.move(chosen, 1 + number)
    assert order == [0, 1, 2, 0, 1, 2]


def test_plainrandom_takes_each_about_equally_often() -> None:
    engines = Engines(PlainRandom, [0, 1, 2, 3])
    counts = Counter(engines.choose() for _ in range(4000))
    assert all(800 < counts[number] < 1200 for number in range(4))


def test_twobin_seldom_takes_the_most_loaded() -> None:
    engines = Engines(TwoBin, [0, 1, 2, 3])
    counts = Counter(engines.choose() for _ in range(4000))
    assert counts[0] > counts[1] > counts[2] > counts[3]
    assert counts[3] < 400  # both draws: one in sixteen


def test_weighted_prefers_those_with_less_to_do() -> None:
    engines = Engines(Weighted, [0, 3])
    counts = Counter(engines.choose() for _ in range(4000))
    assert 0.75 < counts[0] / 4000 < 0.85  # 1 to 1/4


def test_an_unknown_scheme_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(UnknownScheme, match="'fifo'; there are leastload, lru"):
        scheme_named("fifo")
