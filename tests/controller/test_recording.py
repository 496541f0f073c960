"""When envelopes of peers are acknowledged: when what was made of them is recorded."""

from __future__ import annotations

from parallelz.controller.recording import RECORD_PERIOD_S, Recording
from parallelz.controller.sessions import UNKNOWN_PEER, Session
from parallelz.ids import Digest, SessionId


class Running:
    """A recorder process that lives; what it says is said by the test."""

    pid = 1

    def poll(self) -> int | None:
        return None

    def kill(self) -> None:
        raise AssertionError("it is to live")

    def wait(self) -> int:
        raise AssertionError("it is to live")


def test_what_waited_for_the_recorder_to_start_is_acknowledged_once_it_has_all() -> None:
    recording = Recording(Running, clock=lambda: 0.0)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    for number in (1, 2):
        recording.function_defined(Digest(bytes([number])), "f", b"", ())
        assert client.bulk.receiver.accept(number)
        recording.when_safe(client.bulk, number)
        recording.see_to_timers(RECORD_PERIOD_S)
    recorder = Session(SessionId("r"), "recorder", UNKNOWN_PEER, "")
    link = recording.attach(recorder.bulk)
    link.sender.take(0)  # both leave in one envelope
    assert client.bulk.receiver.settled == 0
    link.sender.acknowledge(1)
    recording.take_acknowledgement(link, 1)
    assert client.bulk.receiver.settled == 2
    assert recording.holding_count == 0


def test_a_recorder_that_cannot_be_started_is_started_later() -> None:
    tried: list[float] = []
    now_s = 0.0

    def start() -> Running:
        tried.append(now_s)
        if len(tried) < 3:
            raise OSError("too many open files")
        return Running()

    recording = Recording(start, clock=lambda: now_s)
    for number in range(4):
        recording.function_defined(Digest(bytes([number])), "f", b"", ())
        now_s = 10.0 * (number + 1)
        recording.see_to_timers(now_s)
    assert tried == [10.0, 20.0, 30.0]
    assert recording.is_ours(Running.pid)
