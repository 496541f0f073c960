"""When the journal is folded."""

from __future__ import annotations

import math

from parallelz.store import folding
from parallelz.store.folding import AGE_S, QUIET_S, Folding


def test_an_empty_journal_is_never_due() -> None:
    assert Folding().due_s() == math.inf
    assert not Folding()


def test_it_is_due_when_nothing_has_come_for_a_while() -> None:
    journal = Folding()
    journal.appended(10, 100, 1.0)
    journal.appended(10, 100, 1.01)
    assert journal.due_s() == 1.01 + QUIET_S


def test_what_comes_all_the_time_does_not_put_it_off_for_ever() -> None:
    journal = Folding()
    for step in range(round(100 * AGE_S) + 100):
        journal.appended(1, 1, 1.0 + step * 0.01)
    assert journal.due_s() == 1.0 + AGE_S
    journal.folded(100)
    assert journal.due_s() == 1.0 + 100 * 0.01 + AGE_S


def test_a_full_one_is_due_at_once() -> None:
    journal = Folding()
    journal.appended(folding.JOURNAL_COUNT_MAX, 1, 1.0)
    assert not journal.is_full
    journal.appended(1, 1, 1.0)
    assert journal.is_full
    assert journal.due_s() == -math.inf
    journal.folded(1)
    assert not journal.is_full
    journal.appended(1, folding.JOURNAL_BYTES_MAX, 1.0)
    assert journal.is_full


def test_nothing_is_left_of_an_empty_one() -> None:
    journal = Folding()
    journal.appended(5, 5, 1.0)
    journal.clear()
    assert not journal
    assert journal.due_s() == math.inf
