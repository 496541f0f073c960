"""Questions about tasks that have not ended, or not long ago: what happened, why do they wait?

The controller answers them past all queues. It remembers only what is live, so of a task that
it has forgotten the history tells the rest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import msgspec

from parallelz.client.history import NO_STORE, Record
from parallelz.client.past_session import PastSession
from parallelz.client.session import Jobs, is_one
from parallelz.errors import RemoteError
from parallelz.ids import TaskId
from parallelz.protocol.answers import StoryLine, content_of
from parallelz.protocol.messages import AskState


class StoryText(str):
    """One thing that happened to a task, as text.

    Attributes
    ----------
    line
        The same in parts: ``ago_s`` seconds ago the task went from the state ``start`` to
        ``finish`` because of ``cause``, on the engine ``engine_id`` or none.
    """

    line: StoryLine

    def __new__(cls, line: StoryLine) -> Self:
        """Make the text of the parts."""
        where = "" if line.engine_id is None else f", engine {line.engine_id}"
        text = f"{_ago(line.ago_s):>12}: {line.start} -> {line.finish}{where} ({line.cause})"
        made = super().__new__(cls, text)
        made.line = line
        return made


class Story(list[StoryText]):
    """What happened to a task, in order; shown as one line each."""

    def __init__(self, task_id: str, lines: Iterable[StoryLine]) -> None:
        super().__init__(map(StoryText, lines))
        self.task_id = task_id

    def __str__(self) -> str:
        return "\n".join([f"task {self.task_id}:", *(self or ["nothing is known of it"])])

    __repr__ = __str__


class StateSession(PastSession):
    """A session that also asks for the state of tasks."""

    def story(self, task: Jobs) -> Story | list[Story]:
        """Return what happened to a task so far: its states, and what caused each.

        Parameters
        ----------
        task
            A msg_id, an AsyncResult, an index of `history`; for several, or a list of such, a
            list is returned.

        Returns
        -------
        Story
            A list of texts. Empty if the controller knows the task no longer, as it forgets
            what has ended and was delivered; then `db_query` knows how it ended.
        """
        task_ids = self.task_ids(task)
        data = self._ask_state("story", task_ids)
        lines = msgspec.msgpack.decode(data, type=list[list[StoryLine]])
        stories = [Story(*each) for each in zip(task_ids, lines, strict=True)]
        return stories[0] if is_one(task, task_ids) else stories

    def why(self, task: Jobs) -> str | list[str]:
        """Return why a task is where it is: one sentence, for several tasks a list.

        Parameters
        ----------
        task
            As for `story`.
        """
        task_ids = self.task_ids(task)
        data = self._ask_state("why", task_ids)
        sentences = msgspec.msgpack.decode(data, type=list[str])
        unknown = [
            task_id
            for task_id, sentence in zip(task_ids, sentences, strict=True)
            if not sentence
        ]
        if unknown:
            # First: to ask the history, which goes behind all submissions, waits for them.
            told = self._why_held_back(unknown)
            others = [task_id for task_id in unknown if task_id not in told]
            if others:
                told |= self._why_by_history(others)
            sentences = [
                sentence or told[task_id]
                for task_id, sentence in zip(task_ids, sentences, strict=True)
            ]
        return sentences[0] if is_one(task, task_ids) else sentences

    def dump(self, path: str | os.PathLike[str] | None = None) -> dict[str, object]:
        """Return all that the controller knows: tasks, engines, queues, peers.

        Parameters
        ----------
        path
            Where to write it as JSON, too. None: nowhere.
        """
        state = msgspec.msgpack.decode(self._ask_state("dump", []), type=dict[str, object])
        if path is not None:
            text = json.dumps(state, indent=1, default=str) + "\n"
            Path(path).write_text(text, encoding="utf-8")
        return state

    def _ask_state(
        self, question: Literal["story", "why", "dump"], task_ids: list[TaskId]
    ) -> bytes:
        reply, buffers = self.ask(lambda number: AskState(number, question, task_ids))
        return bytes(content_of(reply, buffers))

    def _why_held_back(self, task_ids: list[TaskId]) -> dict[TaskId, str]:
        connection = self.connection
        places = ((task_id, connection.ledger.find(task_id)) for task_id in task_ids)
        by_number = {
            place[0].first_number + place[1]: task_id
            for task_id, place in places
            if place is not None
        }
        return {
            by_number[number]: f"{by_number[number]} waits at its client: {cause}"
            for number, cause in connection.pump.crowding.why(by_number).items()
        }

    def _why_by_history(self, task_ids: list[TaskId]) -> dict[TaskId, str]:
        keys = ["msg_id", "status", "completed", "received", "engine_id", "evalue", "ename"]
        what: dict[str, object] = {"query": {"msg_id": {"$in": task_ids}}, "keys": keys}
        doubt = "it was never submitted to this cluster, or its record was purged"
        records: list[Record] = []
        try:
            records = self.records("query", what)
        except RemoteError as error:
            if error.ename != NO_STORE:
                raise
            doubt = "it has ended, or was never submitted here; this cluster keeps no history"
        sentences = {task_id: f"nobody knows a task {task_id}: {doubt}" for task_id in task_ids}
        for task_id in self.outstanding.intersection(task_ids):
            sentences[task_id] = f"{task_id} is on its way to the controller"
        for record in records:
            sentences[TaskId(str(record["msg_id"]))] = _how_it_ended(record)
        return sentences


def _how_it_ended(record: Record) -> str:
    status, ended_s = record["status"], record["completed"] or record["received"]
    if status == "pending":
        return "it was submitted, and the controller that knew it is gone"
    how = {"ok": "it ended ok", "error": "it failed"}.get(str(status), f"it ended: {status}")
    when = f" {_ago(time.time() - ended_s)}" if isinstance(ended_s, int | float) else ""
    where = "" if record["engine_id"] is None else f" on engine {record['engine_id']}"
    cause = f" ({record['ename']}: {record['evalue']})" if record["ename"] else ""
    return how + when + where + cause


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms ago"
    return f"{seconds:.3g} s ago" if seconds < 100 else f"{seconds:,.0f} s ago"
