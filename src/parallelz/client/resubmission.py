"""Tasks of the past as they were recorded, ready to be submitted once more.

All that a task was made of is in the database: its arguments as they travelled, the definition
of its function under a digest, its options. So it can be run again by a client that has never
seen the function. Nothing of it is unpickled here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import msgspec

from parallelz.client.again import Again
from parallelz.client.history import IDS_COUNT_MAX, HistorySession, Record, chunks
from parallelz.client.ledger import Submission
from parallelz.client.recorded import look_up, options_from, recorded_tasks
from parallelz.errors import NotRecorded
from parallelz.ids import Digest, EngineId, TaskId
from parallelz.protocol.functions import Definition
from parallelz.protocol.payload import Payload
from parallelz.store.restored import PAGE_BYTES_MAX, NameFunctions, RestoredFunction

FUNCTIONS_COUNT_MAX = 100  # that one question names
TASK_KEYS = (
    "queue",
    "name",
    "digest",
    "options",
    "label",
    "tags",
    "engine_id",
    "payload_bytes",
)
PAYLOAD_KEYS = ("payload", "payload_frames")


def recorded_again(session: HistorySession, task_ids: Sequence[TaskId]) -> list[Again]:
    """Return these tasks, in this order, as they are to be submitted again.

    Raises
    ------
    KeyError
        If a task is not known.
    NotRecorded
        If a part of one was not kept.
    EngineError
        If the engine of a direct one is not there.
    """
    records = session.records_of(task_ids, TASK_KEYS)
    definitions = _definitions_of(session, records)
    options = {task_id: options_from(record) for task_id, record in records.items()}
    engine_ids = {task_id: _engines_of(session, task_id, r) for task_id, r in records.items()}
    inputs = _inputs_of(session, {i for o in options.values() if o for i in o.inputs})
    payloads = _payloads_of(session, records)
    made: list[Again] = []
    for task_id in task_ids:
        chosen = options[task_id]
        digest = cast("Digest", records[task_id]["digest"])
        held = () if chosen is None else chosen.inputs
        made.append(
            Again(
                definitions[digest],
                payloads[task_id],
                chosen,
                engine_ids[task_id],
                tuple(dict.fromkeys(inputs[i] for i in held if i in inputs)),
            )
        )
    return made


def _definitions_of(
    session: HistorySession, records: dict[TaskId, Record]
) -> dict[Digest, Definition]:
    digests: dict[Digest, TaskId] = {}
    for task_id, record in records.items():
        if record["digest"] is None:
            raise NotRecorded(f"{task_id} cannot be submitted again: only its end is recorded")
        digests.setdefault(cast("Digest", record["digest"]), task_id)
    found: dict[Digest, Definition] = {}
    for some in chunks(list(digests), FUNCTIONS_COUNT_MAX):
        what = NameFunctions(list(some))
        functions = session.ask_history_for(list[RestoredFunction], "functions", what)
        for digest, name, data, frames in map(msgspec.structs.astuple, functions):
            found[digest] = Definition(digest, name, Payload(data, tuple(frames)))
    for digest, task_id in digests.items():
        if digest not in found:
            name = records[task_id]["name"]
            raise NotRecorded(
                f"{task_id} cannot be submitted again: its function {name!r} is not recorded"
            )
    return found


def _engines_of(
    session: HistorySession, task_id: TaskId, record: Record
) -> list[EngineId] | None:
    if record["queue"] != "direct":
        return None
    engine_id = cast("int | None", record["engine_id"])
    if engine_id is None:
        raise NotRecorded(
            f"{task_id} cannot be submitted again: it was for one engine by name, and which"
            " that was is not recorded, as it never ran"
        )
    return session.engine_ids([engine_id])


def _payloads_of(
    session: HistorySession, records: dict[TaskId, Record]
) -> dict[TaskId, Payload]:
    payloads: dict[TaskId, Payload] = {}
    for some in _pages(records):
        for task_id, record in session.records_of(some, PAYLOAD_KEYS).items():
            data = cast("bytes", record["payload"] or b"")
            frames = cast("bytes", record["payload_frames"] or b"")
            if not data and not frames:
                size = cast("int", records[task_id]["payload_bytes"] or 0)
                raise NotRecorded(
                    f"{task_id} cannot be submitted again: its arguments, of {size:,} bytes,"
                    " were too large to be recorded; call its function anew"
                )
            buffers: list[bytes] = msgspec.msgpack.decode(frames) if frames else []
            payloads[task_id] = Payload(data, tuple(buffers))
    return payloads


def _pages(records: dict[TaskId, Record]) -> Iterator[list[TaskId]]:
    """Yield the ids in groups whose arguments are not too much for one answer."""
    page: list[TaskId] = []
    nbytes = 0
    for task_id, record in records.items():
        size = cast("int", record["payload_bytes"] or 0)
        if page and (nbytes + size > PAGE_BYTES_MAX or len(page) == IDS_COUNT_MAX):
            yield page
            page, nbytes = [], 0
        page.append(task_id)
        nbytes += size
    if page:
        yield page


def _inputs_of(session: HistorySession, task_ids: Iterable[TaskId]) -> dict[TaskId, Submission]:
    """Return what holds results that are arguments, for the controller to fetch them here.

    Those of tasks that have not ended it will have by itself.
    """
    ledger = session.connection.ledger
    held: dict[TaskId, Submission] = {}
    missing: list[TaskId] = []
    for task_id in sorted(task_ids):
        place = ledger.find(task_id)
        if place is None:
            missing.append(task_id)
        else:
            held[task_id] = place[0]
    for some in chunks(missing, IDS_COUNT_MAX):
        tasks = recorded_tasks(session, some)
        look_up(session, tasks)
        for task_id, task in zip(some, tasks, strict=True):
            answer = task.answers[0]
            if answer is None:
                continue
            if answer.ended.status != "ok":
                reason = answer.ended.error
                raise NotRecorded(
                    f"the result of {task_id}, which is an argument of a task that is to be"
                    f" submitted again, is not there: {reason.evalue if reason else ''}"
                )
            ledger.borrow(task)
            held[task_id] = task
    return held
