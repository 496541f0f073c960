"""What a database knows of an end is what the client was told."""

import msgspec
import pytest

from parallelz.ids import EngineId, SessionId, TaskId
from parallelz.protocol.messages import ErrorInfo, SubmitTask, TaskEnded
from parallelz.protocol.outputs import Outputs
from parallelz.store import record
from parallelz.store.ended_record import ended_from
from parallelz.store.memory import MemoryStore
from parallelz.store.restored import ENDED_KEYS

TASK_ID = TaskId("client-0")
FINE = TaskEnded(TASK_ID, "ok", EngineId(3), 10.0, 11.0, b"result", retries=2)


def remembered(ended, *buffers):
    """Return what comes back of an end that went into a database."""
    store = MemoryStore()
    submission = SubmitTask(TASK_ID, b"digest", 9.0, b"call")
    raws = [
        record.submitted(SessionId("client"), submission, "f", [], 9.5),
        record.ended(ended, "engine", buffers, 12.0),
    ]
    store.apply([record.decode(raw) for raw in raws])
    (found,) = store.query({"msg_id": TASK_ID}, ENDED_KEYS)
    return ended_from(found)


@pytest.mark.parametrize(
    "ended",
    [
        FINE,
        msgspec.structs.replace(FINE, outputs=Outputs("out", "err", b"\x90", b"\x80")),
        msgspec.structs.replace(
            FINE, status="error", error=ErrorInfo("ValueError", "bad", "Traceback ...")
        ),
    ],
)
def test_an_end_comes_back_as_it_was(ended):
    assert remembered(ended) == (ended, [])


def test_frames_come_back_with_it():
    ended = msgspec.structs.replace(FINE, frame_count=2)
    assert remembered(ended, b"one", bytes(30_000)) == (ended, [b"one", bytes(30_000)])


def test_a_task_that_never_ran_has_no_engine():
    error = ErrorInfo("TaskAborted", "it was given up")
    aborted = TaskEnded(TASK_ID, "aborted", EngineId(-1), error=error)
    ended, buffers = remembered(aborted)
    assert (ended.engine_id, ended.status, ended.error, buffers) == (-1, "aborted", error, [])


def test_a_result_that_was_too_large_to_keep_is_an_error_that_says_how_large():
    ended, _ = remembered(
        msgspec.structs.replace(FINE, frame_count=1), bytes(record.PAYLOAD_BYTES_MAX)
    )
    assert ended.status == "error"
    assert ended.error is not None
    assert ended.error.ename == "LookupError"
    assert str(record.PAYLOAD_BYTES_MAX + len(b"result")) in ended.error.evalue


def test_an_exception_that_was_too_large_is_left_as_text():
    error = ErrorInfo("ValueError", "bad")
    failed = msgspec.structs.replace(FINE, status="error", error=error, frame_count=1)
    ended, buffers = remembered(failed, bytes(record.PAYLOAD_BYTES_MAX))
    assert (ended.status, ended.error, ended.data, buffers) == ("error", error, b"", [])
