"""Memory goes back to the system after a wave of tasks, and not while it is needed."""

from __future__ import annotations

from parallelz.controller.memory import (
    PIECES_COUNT_MIN,
    WAVE_COUNT_MIN,
    MemoryReturn,
    give_back_memory,
)


def test_memory_is_given_back_twice_after_a_wave() -> None:
    given: list[float] = []
    memory = MemoryReturn(lambda: given.append(now_s))
    for now_s, live_count in [(0.0, 0), (1.0, WAVE_COUNT_MIN), (2.0, 10), (2.5, 0)]:
        memory.see(live_count, now_s)
    assert not given
    assert memory.next_deadline_s() == 3.0
    for now_s in (3.0, 4.0, 12.0, 13.0, 50.0):
        memory.see(0, now_s)
    assert given == [3.0, 12.0]
    assert memory.next_deadline_s() is None


def test_few_tasks_are_no_wave() -> None:
    memory = MemoryReturn()
    for now_s in range(100):
        memory.see(1000 * (now_s % 2), float(now_s))
    assert memory.next_deadline_s() is None


def test_memory_is_given_back_after_much_data_has_passed_and_not_while_it_does() -> None:
    given: list[float] = []
    memory = MemoryReturn(lambda: given.append(now_s))
    for tick in range(50):
        now_s = tick / 10
        memory.see_pieces(PIECES_COUNT_MIN // 2, now_s)
        memory.see(1, now_s)
    assert not given
    now_s = 6.0
    memory.see(0, now_s)
    assert given == [6.0]


def test_little_data_is_not_worth_a_look() -> None:
    memory = MemoryReturn()
    memory.see_pieces(PIECES_COUNT_MIN - 1, 0.0)
    assert memory.next_deadline_s() is None


def test_giving_back_works_on_this_system() -> None:
    give_back_memory()
