"""What the tasks of a result print, display and publish."""

from __future__ import annotations

from typing import Any

from parallelz.client.display import GroupBy, show_outputs
from parallelz.client.streaming import OutputStream
from parallelz.client.task_group import TaskGroup
from parallelz.errors import SerializationError

Shown = Any
"""Of one task what it showed, of several a list of that."""


class ShownTasks(TaskGroup):
    """Tasks, and what they show."""

    __slots__ = ()

    def _known(self, key: str) -> Shown:
        """Return one of the metadata, or a list of that."""
        values = [metadata[key] for metadata in self._all_metadata()]
        return values[0] if self._is_single else values

    @property
    def stdout(self) -> Shown:
        """What the task printed so far, or a list of that."""
        return self._known("stdout")

    @property
    def stderr(self) -> Shown:
        """What the task wrote to stderr so far, or a list of that."""
        return self._known("stderr")

    @property
    def outputs(self) -> Shown:
        """What the task displayed so far: a list of dicts with ``data`` and ``metadata``."""
        return self._known("outputs")

    @property
    def data(self) -> Shown:
        """What the task published so far (`publish_data`): a dictionary, or a list of those.

        Raises
        ------
        SerializationError
            If something in it cannot be made here; the metadata have that in its place.
        """
        data = self._known("data")
        for each in [data] if self._is_single else data:
            if isinstance(each, SerializationError):
                raise each
        return data

    def stream_output(self) -> OutputStream:
        """Show what the tasks print and display while they run: ``with ar.stream_output():``.

        Output of several tasks has a line above it that names the stream and the engine. It
        arrives a tenth of a second after it was written.
        """
        return OutputStream(
            self._places,
            self._connection.callbacks,
            self.ready,
            has_headings=not self._is_single,
        )

    def wait_for_output(self, timeout: float | None = None) -> bool:
        """Wait until all output is here, which is when all tasks have ended; see `wait`."""
        return self.wait(timeout)

    def display_outputs(self, groupby: GroupBy = "type", *, result_only: bool = False) -> None:
        """Wait, then show what the tasks printed, displayed and returned from cells.

        Parameters
        ----------
        groupby
            ``"type"``: all stdout first, then stderr, then what was displayed; ``"engine"``
            and ``"order"``: one task after the other.
        result_only
            Show only the values of the last expressions.
        """
        self.wait()
        show_outputs(self._all_metadata(), groupby, result_only=result_only)
