"""The store of a simulation, and a log of all that any recorder ever wrote."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from parallelz.ids import Digest, SessionId, TaskId, task_id_of
from parallelz.protocol.messages import (
    AskHistory,
    EngineInfo,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    TaskOptions,
)
from parallelz.store.interface import Store
from parallelz.store.memory import MemoryStore
from parallelz.store.record import EndRecord, EngineRecord, Record, SubmissionRecord
from parallelz.store.recorder import Recorder
from parallelz.store.restored import (
    ENDED_KEYS,
    Ends,
    FindEnds,
    Restored,
    RestoredFunction,
    RestoredTask,
    RestoreTasks,
)
from parallelz.store.rows import COLUMNS, PENDING

PAGE_COUNT_MAX = 50  # so that there is more than one page


class RecordLog:
    """All that any recorder of a simulation has ever stored."""

    def __init__(self) -> None:
        self.submitted: dict[TaskId, None] = {}
        self.ends: dict[TaskId, list[EndRecord]] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Note what was stored."""
        for record in records:
            if isinstance(record, EndRecord):
                self.ends.setdefault(record.message.task_id, []).append(record)
            elif isinstance(record, SubmissionRecord):
                self.submitted.update(dict.fromkeys(_ids_of(record.client, record.message)))


def _ids_of(client: SessionId, message: SubmitTask | SubmitMap | SubmitDirect) -> list[TaskId]:
    if isinstance(message, SubmitTask):
        return [message.task_id]
    items = message.items if isinstance(message, SubmitMap) else message.engine_ids
    return [task_id_of(client, message.first_number + index) for index in range(len(items))]


class WitnessStore(MemoryStore):
    """A store that notes what it was told in a log that outlives it."""

    def __init__(self, log: RecordLog) -> None:
        super().__init__()
        self._log = log
        self._infos: dict[SessionId, tuple[EngineInfo, bool]] = {}  # and whether it is there

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these, and note them."""
        super().apply(records)
        self._log.add(records)
        for record in records:
            if isinstance(record, EngineRecord):
                engine = record.engine
                self._infos[engine.session_id] = (engine, not record.cause)

    def restore(self, asked: RestoreTasks) -> Restored:
        """Return a page of what has not ended."""
        page = Restored([], [], 0)
        digests: dict[Digest, None] = {}
        for number, row in enumerate(list(self._tasks.values())[asked.after :], asked.after):
            if len(page.tasks) == PAGE_COUNT_MAX:
                page.next = number
                break
            record = dict(zip(COLUMNS, row, strict=True))
            if record["status"] == PENDING:
                page.tasks.append(_task(record))
                digests[page.tasks[-1].digest] = None
        for digest in digests:
            if (function := self.definition(digest)) is not None:
                frames = _frames(function.frames)
                page.functions.append(
                    RestoredFunction(digest, function.name, function.data, frames)
                )
        if not asked.after:
            page.engines = [info for info, is_there in self._infos.values() if is_there]
            ids = [info.engine_id for info, _ in self._infos.values()]
            page.engine_count = max(ids, default=-1) + 1
        return page

    def ends(self, asked: FindEnds) -> Ends:
        """Return how tasks ended."""
        records = self.query({"msg_id": {"$in": list(asked.task_ids)}}, list(ENDED_KEYS))
        pending = [TaskId(str(r["msg_id"])) for r in records if r["status"] == PENDING]
        ended = [record for record in records if record["status"] != PENDING]
        return Ends(len(asked.task_ids), pending, ended)


def _task(record: dict[str, object]) -> RestoredTask:
    options = record["options"]
    plain = {
        "task_id": record["msg_id"],
        "client": record["client_uuid"],
        "engine_id": record["engine_id"],
        "digest": record["digest"],
        "submitted_s": record["submitted"],
        "label": record["label"],
        "data": record["payload"] or b"",
        "frames": _frames(record["payload_frames"]),
        "is_whole": record["payload"] is not None,
        "options": None,
    }
    task = msgspec.convert(plain, RestoredTask)
    if isinstance(options, bytes):
        decoded = msgspec.msgpack.decode(options, type=TaskOptions)
        task = msgspec.structs.replace(task, options=decoded)
    return task


def _frames(packed: object) -> list[bytes]:
    return (
        msgspec.msgpack.decode(packed, type=list[bytes])
        if isinstance(packed, bytes) and packed
        else []
    )


class SimStoreRecorder(Recorder):
    """The real recorder, which also answers what a restarted controller asks."""

    def _look_up(self, store: Store, message: AskHistory) -> object:
        assert isinstance(store, WitnessStore)
        if message.question == "restore":
            return store.restore(msgspec.msgpack.decode(message.data, type=RestoreTasks))
        if message.question == "ends":
            return store.ends(msgspec.msgpack.decode(message.data, type=FindEnds))
        return super()._look_up(store, message)
