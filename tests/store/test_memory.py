from __future__ import annotations

from helpers_store import end, submission, tid

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
