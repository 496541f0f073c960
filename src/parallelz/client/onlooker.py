"""Looks at a cluster again and again, also while its controller is away."""

from __future__ import annotations

from functools import partial

import msgspec

from parallelz.client.session import Session
from parallelz.protocol.answers import Overview, content_of
from parallelz.protocol.messages import AskState


class Onlooker:
    """Asks how busy a cluster is, and never waits for long.

    One question is open at a time: a controller that was away has one to answer, not all that
    were asked meanwhile.
    """

    def __init__(self, session: Session) -> None:
        self._connection = session.connection
        self._asked: int | None = None

    def look(self, timeout_s: float) -> Overview | None:
        """Return what the controller says now; None if it says nothing for so long.

        Raises
        ------
        ClusterError
            If it never will, as the cluster was stopped.
        """
        if self._asked is None:
            self._asked = self._connection.ask(lambda number: AskState(number, "overview"))
        request_id = self._asked
        if not self._connection.wait(
            partial(self._connection.has_reply, request_id), timeout_s
        ):
            return None
        self._asked = None
        reply, buffers = self._connection.take_reply(request_id)
        return msgspec.msgpack.decode(content_of(reply, buffers), type=Overview)
