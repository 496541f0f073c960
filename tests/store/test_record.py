from __future__ import annotations

import msgspec
from helpers_store import ME, F, direct_submission, end, map_submission, submission, tid

from parallelz.protocol.messages import SubmitMap
from parallelz.store import record
from parallelz.store.record import (
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    EndRecord,
    FunctionRecord,
    SubmissionRecord,
)


def test_a_map_is_one_record() -> None:
    made = map_submission(5, [b"a", b"b"])
    assert made == SubmissionRecord(ME, SubmitMap(5, F, 1.0, [b"a", b"b"]), "f", 1.1)


def test_small_payloads_and_their_frames_are_part_of_the_record() -> None:
    made = submission(1, data=b"head", buffers=(b"x" * 20_000, b"y"))
    assert isinstance(made, SubmissionRecord)
    assert not isinstance(made.message, SubmitMap)
    assert made.message.data == b"head"
    assert msgspec.msgpack.decode(made.frames) == [b"x" * 20_000, b"y"]
    assert made.sizes == [20_005]


def test_of_a_large_payload_only_the_size_is_recorded() -> None:
    made = submission(1, data=b"head", buffers=(b"x" * PAYLOAD_BYTES_MAX,))
    assert isinstance(made, SubmissionRecord)
    assert made.sizes == [PAYLOAD_BYTES_MAX + 4]
    assert len(record.encode(made)) < 200


def test_of_a_large_result_only_the_size_is_recorded() -> None:
    made = end(1, data=b"x" * (PAYLOAD_BYTES_MAX + 1))
    assert isinstance(made, EndRecord)
    assert made.message.task_id == tid(1)
    assert made.size == PAYLOAD_BYTES_MAX + 1
    assert len(record.encode(made)) < 200


def test_tasks_of_one_record_share_the_room() -> None:
    item = b"x" * (RECORD_BYTES_MAX // 16)
    as_map = map_submission(1, [item] * 17)
    as_direct = direct_submission(1, list(range(17)), item)
    for made, sizes in ((as_map, [len(item)] * 17), (as_direct, [len(item)])):
        assert isinstance(made, SubmissionRecord)
        assert made.sizes == sizes
        assert len(record.encode(made)) < 300


def test_memoryviews_of_frames_are_recorded_as_what_they_show() -> None:
    raw = record.function_defined(F, "f", b"head", [memoryview(b"code")[1:3]])
    assert record.decode(raw) == FunctionRecord(
        F, "f", b"head", msgspec.msgpack.encode([b"od"])
    )
