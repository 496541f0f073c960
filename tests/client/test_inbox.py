"""A controller that knows nothing of a client is told enough to go on."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace

from parallelz.client.definitions import Definitions
from parallelz.client.inbox import Inbox
from parallelz.client.ledger import Ledger, Submission
from parallelz.ids import SessionId
from parallelz.protocol.messages import DefineFunction, ResumeTasks

ME = SessionId("me")


def test_functions_come_before_what_is_awaited_and_is_sent_again():
    definitions, ledger = Definitions(), Ledger(ME)
    definition = definitions.of(len)
    assert definitions.needed(definition) is not None
    ledger.expect(Submission(ME, 3, 2, 0.0))
    inbox = Inbox(ledger, definitions, threading.Lock())
    inbox.pump = SimpleNamespace(waiting=deque())
    first, second = inbox.introduce_bulk(7)
    assert isinstance(first[0], DefineFunction)
    assert first[0].digest == definition.digest
    assert second[0] == ResumeTasks([(3, 4)], 7)
