"""How a call that is pickled becomes a message."""

from __future__ import annotations

import time

import msgspec

from parallelz.client import arguments
from parallelz.ids import TaskId
from parallelz.protocol.envelope import Item
from parallelz.protocol.functions import Definition
from parallelz.protocol.messages import SubmitTask, TaskOptions
from parallelz.protocol.payload import Payload
from parallelz.store.tags import TagValue


def with_inputs(options: TaskOptions | None, call: arguments.Call) -> TaskOptions:
    """Return the options with the results that a call names as its inputs."""
    return msgspec.structs.replace(options or TaskOptions(), inputs=list(call.inputs))


def submit_message(
    task_id: TaskId,
    definition: Definition,
    now_s: float,
    payload: Payload,
    options: TaskOptions | None,
) -> Item:
    """Return the message that submits one balanced task."""
    data, buffers = payload
    message = SubmitTask(task_id, definition.digest, now_s, data, len(buffers), options)
    return (message, buffers)


def marks_of(options: TaskOptions | None) -> tuple[str, dict[str, TagValue]]:
    """Return what else than its targets is said of a direct task: its label and its tags."""
    return ("", {}) if options is None else (options.label, options.tags)


def unix_now_s() -> float:
    """Return the Unix time as exactly as datetimes have it, so that both compare as equal."""
    return time.time_ns() // 1000 / 1e6  # `round` takes many times as long
