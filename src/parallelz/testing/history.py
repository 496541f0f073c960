"""The store of a simulation, and a log of all that any recorder ever wrote."""

from __future__ import annotations

from collections.abc import Sequence

from parallelz.ids import SessionId, TaskId, task_id_of
from parallelz.protocol.messages import SubmitDirect, SubmitMap, SubmitTask
from parallelz.store.memory import MemoryStore
from parallelz.store.record import EndRecord, EngineRecord, Record, SubmissionRecord

PAGE_BYTES_MAX = 1000  # so that what had not ended is more than one page


class RecordLog:
    """All that any recorder of a simulation has ever stored.

    Attributes
    ----------
    joined_s
        When each engine joined, as the first record of that says (Unix time).
    """

    def __init__(self) -> None:
        self.joined_s: dict[SessionId, float] = {}
        self.submitted: dict[TaskId, None] = {}
        self.ends: dict[TaskId, list[EndRecord]] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Note what was stored."""
        for record in records:
            if isinstance(record, EndRecord):
                self.ends.setdefault(record.message.task_id, []).append(record)
            elif isinstance(record, SubmissionRecord):
                self.submitted.update(dict.fromkeys(_ids_of(record.client, record.message)))
            elif isinstance(record, EngineRecord) and not record.cause:
                self.joined_s.setdefault(record.engine.session_id, record.changed_s)


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

    def apply(self, records: Sequence[Record]) -> None:
        """Keep these, and note them."""
        super().apply(records)
        self._log.add(records)

    def pending(self, after: int, bytes_max: int) -> tuple[list[dict[str, object]], int]:
        """See `Store.pending`."""
        return super().pending(after, min(bytes_max, PAGE_BYTES_MAX))
