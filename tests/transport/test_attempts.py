"""Which address is tried when."""

import math

from parallelz.transport.attempts import FAILURES_COUNT_MAX, FAILURES_S, PATIENCE_S, Attempts

URLS = ["tcp://10.0.0.1:1", "tcp://10.0.0.2:1", "tcp://127.0.0.1:1"]


def test_an_address_that_says_nothing_is_left_after_a_while_and_tried_again_later() -> None:
    attempts = Attempts(URLS, 0.0)
    assert not attempts.is_over(PATIENCE_S / 2)
    seen, now_s = [attempts.url], 0.0
    for _ in range(3):
        now_s = attempts.over_s
        assert attempts.is_over(now_s)
        seen.append(attempts.next(now_s))
    assert seen == [*URLS, URLS[0]]
    assert now_s == 3 * PATIENCE_S
    assert attempts.over_s > now_s + PATIENCE_S, "the network may only be slow"


def test_where_nobody_listens_the_next_is_tried_at_once_but_not_round_and_round() -> None:
    attempts = Attempts(URLS, 0.0)
    assert attempts.is_closed_for_good()
    attempts.next(0.0)
    assert attempts.is_closed_for_good()
    attempts.next(0.0)
    assert not attempts.is_closed_for_good()


def test_an_address_that_worked_is_kept() -> None:
    attempts = Attempts(URLS, 0.0)
    attempts.next(1.0)
    attempts.succeeded()
    assert attempts.over_s == math.inf
    assert not attempts.is_closed_for_good()
    assert attempts.url == URLS[1]


def test_a_single_address_is_never_left() -> None:
    attempts = Attempts(URLS[:1], 0.0)
    assert not attempts.is_over(1e9)
    assert not attempts.is_closed_for_good()


def test_keys_that_are_never_taken_are_hopeless_and_that_is_said_once() -> None:
    attempts = Attempts(URLS[:1], 0.0)
    said = [
        attempts.failed_handshake(i * FAILURES_S / FAILURES_COUNT_MAX, is_denied=False)
        for i in range(3 * FAILURES_COUNT_MAX)
    ]
    (reason,) = filter(None, said)
    assert "copy it again" in reason
    assert URLS[0] in reason


def test_a_controller_that_is_just_ending_is_no_reason_to_give_up() -> None:
    attempts = Attempts(URLS[:1], 0.0)
    for i in range(3):
        assert not attempts.failed_handshake(i * FAILURES_S, is_denied=False)
        attempts.succeeded()
    for _ in range(3 * FAILURES_COUNT_MAX):
        assert not attempts.failed_handshake(0.0, is_denied=False)


def test_a_key_that_is_denied_is_hopeless_at_once() -> None:
    reason = Attempts(URLS, 0.0).failed_handshake(0.0, is_denied=True)
    assert "does not know this key" in reason
