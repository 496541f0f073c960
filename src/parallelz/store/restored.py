"""What a controller that starts in the place of a dead one is told of the time before.

It asks page by page (`RestoreTasks`), as there may be a million tasks, and gets each that has
not ended with all that is needed to run it.
"""

from __future__ import annotations

import msgspec

from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import EngineInfo, TaskOptions

PAGE_BYTES_MAX = 4 * 1024 * 1024


class RestoreTasks(msgspec.Struct, forbid_unknown_fields=True):
    """Which tasks of this run of the cluster have not ended, in the order of submission?"""

    after: int = 0  # `Restored.next` of the page before; 0: the first page
    bytes_max: int = PAGE_BYTES_MAX  # of payloads in a page, but for its last task


class RestoredTask(msgspec.Struct, frozen=True):
    """A task that has not ended."""

    task_id: TaskId
    client: SessionId
    engine_id: EngineId | None  # of a direct task
    digest: Digest
    submitted_s: float
    label: str
    options: TaskOptions | None
    data: bytes
    frames: list[bytes]
    is_whole: bool  # False: the payload was too large to be kept


class RestoredFunction(msgspec.Struct, frozen=True):
    """What a digest stands for."""

    digest: Digest
    name: str
    data: bytes
    frames: list[bytes]


class Restored(msgspec.Struct):
    """A page of what was; engines only with the first."""

    tasks: list[RestoredTask]
    functions: list[RestoredFunction]  # those of the tasks on this page
    next: int  # where the next page begins; 0: there is none
    engines: list[EngineInfo] = []  # of this run, which have not left
    engine_count: int = 0  # ids below this were given out in this run


class NameFunctions(msgspec.Struct, forbid_unknown_fields=True):
    """What do these digests stand for? The answer: list of `RestoredFunction`."""

    digests: list[Digest]


class FindEnds(msgspec.Struct, forbid_unknown_fields=True):
    """How did these tasks end?"""

    task_ids: list[TaskId]
    bytes_max: int = PAGE_BYTES_MAX  # of results in the answer, but for its last task


class Ends(msgspec.Struct):
    """Answer to `FindEnds`."""

    looked_up_count: int  # so many of the ids, from the first on; ask again for the others
    pending: list[TaskId]  # of those, recorded and not ended
    ended: list[dict[str, object]]  # of those: records with `ENDED_KEYS`


ENDED_KEYS = (
    "msg_id",
    "status",
    "submitted",
    "engine_id",
    "engine_uuid",
    "started",
    "completed",
    "received",
    "data",
    "frames",
    "data_bytes",
    "ename",
    "evalue",
    "traceback",
    "stdout",
    "stderr",
    "outputs",
    "execute_result",
    "retries",
)
