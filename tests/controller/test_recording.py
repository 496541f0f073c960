"""When envelopes of peers are acknowledged: when what was made of them is recorded."""

from __future__ import annotations

import pytest

from parallelz.controller import recording as recording_module
from parallelz.controller.recording import RECORD_PERIOD_S, RECORDS_COUNT_MAX, Recording
from parallelz.controller.sessions import UNKNOWN_PEER, Session
from parallelz.controller_limits import ControllerLimits
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import LinkName, TaskEnded
from parallelz.settings import PAYLOAD_BYTES_MAX


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


def test_what_cannot_be_recorded_is_acknowledged_after_as_long_as_configured() -> None:
    now_s = 0.0
    limits = ControllerLimits(unrecorded_s=3.0)
    recording = Recording(Running, limits=limits, clock=lambda: now_s)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    recording.function_defined(Digest(b"f"), "f", b"", ())
    assert client.bulk.receiver.accept(1)
    recording.when_safe(client.bulk, 1)
    for now_s, settled in ((2.9, 0), (3.0, 1)):
        recording.see_to_timers(now_s)
        assert client.bulk.receiver.settled == settled
    assert "for 3 s nothing could be recorded" in recording.notices[0]


def test_what_is_more_than_may_wait_for_the_recorder_is_lost() -> None:
    recording = Recording(Running, limits=ControllerLimits(unrecorded_bytes_max=1))
    for number in range(RECORDS_COUNT_MAX + 2):
        recording.function_defined(Digest(bytes([number % 256, number // 256])), "f", b"", ())
    assert recording.dump()["lost_records"] == 2


def test_a_long_task_with_large_arguments_is_no_sign_of_a_failing_database() -> None:
    now_s = 0.0
    recording = Recording(Running, clock=lambda: now_s)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    recorder = recording.attach(Session(SessionId("r"), "recorder", UNKNOWN_PEER, "").bulk)
    assert client.bulk.receiver.accept(1)
    recording.hold_until_ended(client.bulk, [TaskId("t")])
    recording.when_safe(client.bulk, 1)
    now_s = 1000.0
    recording.ended(TaskEnded(TaskId("t"), "ok", EngineId(0)), (), None, client)
    recording.see_to_timers(now_s + RECORD_PERIOD_S)
    assert not recording.notices
    assert client.bulk.receiver.settled == 0
    recorder.sender.take(0)
    recorder.sender.acknowledge(1)
    recording.take_acknowledgement(recorder, 1)
    assert client.bulk.receiver.settled == 1


def test_what_is_taken_in_while_nothing_can_be_recorded_holds_up_nothing_later() -> None:
    now_s = 0.0
    recording = Recording(Running, clock=lambda: now_s)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    recording.function_defined(Digest(b"f"), "f", b"", ())
    recording.when_safe(client.bulk, 0)
    now_s = 1000.0
    recording.see_to_timers(now_s)  # from here on everything is acknowledged
    recorder = recording.attach(Session(SessionId("r"), "recorder", UNKNOWN_PEER, "").bulk)
    assert client.bulk.receiver.accept(1)
    recording.hold_until_ended(client.bulk, [TaskId("t")])
    recording.when_safe(client.bulk, 1)
    recorder.sender.take(0)
    recorder.sender.acknowledge(1)
    recording.take_acknowledgement(recorder, 1)
    assert client.bulk.receiver.accept(2)
    recording.when_safe(client.bulk, 2)
    assert client.bulk.receiver.settled == 2
    assert recording.holding_count == 0


def test_engines_keep_small_results_too_while_a_client_is_far_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording_module, "BACKLOG_BYTES_MAX", 1000)
    recording = Recording(Running, clock=lambda: 0.0)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    engine = Session(SessionId("e"), "engine", UNKNOWN_PEER, "")
    recorder = recording.attach(Session(SessionId("r"), "recorder", UNKNOWN_PEER, "").bulk)

    def end(number: int, data: bytes) -> None:
        ended = TaskEnded(TaskId(f"c-{number}"), "ok", EngineId(0), data=data)
        client.bulk.put(ended)
        assert engine.bulk.receiver.accept(number)
        recording.ended(ended, (), engine, client)
        recording.when_safe(engine.bulk, number)
        client.bulk.sender.take(0)

    def record() -> None:
        recording.see_to_timers(RECORD_PERIOD_S)
        recorder.sender.take(0)
        recorder.sender.acknowledge(recorder.sender.taken_count)
        recording.take_acknowledgement(recorder, recorder.sender.taken_count)

    end(1, bytes(1000))
    end(2, b"small")
    record()
    assert engine.bulk.receiver.settled == 1
    client.bulk.sender.acknowledge(2)
    recording.take_acknowledgement(client.bulk, 2)
    record()
    assert engine.bulk.receiver.settled == 2


@pytest.mark.parametrize("has_history", [True, False])
@pytest.mark.parametrize("name", ["bulk", "control"])
def test_an_engine_keeps_a_large_result_until_the_client_has_it(
    name: LinkName, has_history: bool
) -> None:
    recording = Recording(Running if has_history else None, clock=lambda: 0.0)
    client = Session(SessionId("c"), "client", UNKNOWN_PEER, "")
    engine = Session(SessionId("e"), "engine", UNKNOWN_PEER, "")
    by = engine.bulk if name == "bulk" else engine.control
    recorder = recording.attach(Session(SessionId("r"), "recorder", UNKNOWN_PEER, "").bulk)
    result = [bytes(PAYLOAD_BYTES_MAX + 1)]
    ended = TaskEnded(TaskId("t"), "ok", EngineId(0), frame_count=1)
    client.bulk.put(ended, result)
    assert by.receiver.accept(1)
    recording.ended(ended, result, engine, client)
    recording.when_safe(by, 1)
    client.bulk.sender.take(0)
    assert recording.is_holding(by)
    assert by.receiver.settled == 0
    client.bulk.sender.acknowledge(1)
    recording.take_acknowledgement(client.bulk, 1)
    if has_history:
        recording.see_to_timers(RECORD_PERIOD_S)
        recorder.sender.take(0)
        recorder.sender.acknowledge(1)
        recording.take_acknowledgement(recorder, 1)
    assert by.receiver.settled == 1
    assert not recording.is_holding(by)
