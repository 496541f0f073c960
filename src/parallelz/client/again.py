"""A task as the database has it, to be submitted anew."""

from __future__ import annotations

from typing import NamedTuple

from parallelz.client.ledger import Submission
from parallelz.client.outgoing import marks_of
from parallelz.ids import EngineId
from parallelz.protocol.envelope import Item
from parallelz.protocol.functions import Definition
from parallelz.protocol.messages import SubmitDirect, SubmitTask, TaskOptions
from parallelz.protocol.payload import Payload


class Again(NamedTuple):
    """What a task was made of.

    Attributes
    ----------
    engine_ids
        The one engine of a direct task; None: balanced.
    inputs
        Which hold the results that it gets as arguments.
    """

    definition: Definition
    payload: Payload
    options: TaskOptions | None
    engine_ids: list[EngineId] | None
    inputs: tuple[Submission, ...]

    def outgoing(self, submission: Submission) -> Item:
        """Return the message that submits it as the only task of `submission`."""
        digest, submitted_s = self.definition.digest, submission.submitted_s
        data, buffers = self.payload
        if self.engine_ids is None:
            task_id = submission.task_id(0)
            task = SubmitTask(task_id, digest, submitted_s, data, len(buffers), self.options)
            return (task, buffers)
        number = submission.first_number
        direct = SubmitDirect(
            number,
            self.engine_ids,
            digest,
            submitted_s,
            data,
            len(buffers),
            *marks_of(self.options),
        )
        return (direct, buffers)
