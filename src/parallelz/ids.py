"""Names for the things of a cluster. Distinct types, so that they cannot be swapped."""

from __future__ import annotations

from typing import NewType

TaskId = NewType("TaskId", str)
"""``<session>-<number>``: chosen by the client, never used again. Users call it msg_id."""

EngineId = NewType("EngineId", int)
"""Small and never used again in the life of a controller."""

SessionId = NewType("SessionId", str)
"""One life of one peer process (a client, an engine, a supervisor, the recorder)."""

Digest = NewType("Digest", bytes)
"""Names the definition of a function by its content."""


def task_id_of(session_id: SessionId, number: int) -> TaskId:
    """Return the id of the task that a client submits as its `number`-th."""
    return TaskId(f"{session_id}-{number}")
