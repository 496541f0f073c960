from __future__ import annotations

from helpers_store import RUN, end, submission, tid

from parallelz.store.memory import MemoryStore


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    store = MemoryStore(count_max=10)
    for number in range(100):
        store.apply([submission(number, submitted_s=float(number))])
    kept = store.history()
    assert 9 <= len(kept) <= 10
    assert kept[-1] == tid(99)


def test_the_oldest_are_forgotten_when_their_payloads_are_too_large() -> None:
    store = MemoryStore(bytes_max=10_000)
    for number in range(50):
        store.apply(
            [submission(number, submitted_s=float(number)), end(number, data=b"r" * 900)]
        )
    kept = store.history()
    assert 8 <= len(kept) <= 10
    assert kept[-1] == tid(49)


def test_what_has_not_ended_is_forgotten_last() -> None:
    store = MemoryStore(count_max=10)
    store.apply([submission(number) for number in range(5)])
    for number in range(5, 50):
        store.apply([submission(number), end(number)])
    assert store.history()[:5] == [tid(number) for number in range(5)]
    store.apply([submission(number) for number in range(50, 100)])
    assert len(store.history()) <= 10  # it is bounded all the same


def test_what_was_forgotten_is_not_restored() -> None:
    store = MemoryStore(count_max=10)
    store.begin_run(RUN, 0.0)
    store.apply([submission(number) for number in range(50)])
    kept, _ = store.pending(0, 10**6)
    assert [task["msg_id"] for task in kept] == store.history()
