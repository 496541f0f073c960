"""Looking at a cluster never takes long."""

from __future__ import annotations

import msgspec
import pytest
from helpers_client import TIMEOUT_S
from helpers_script import Said, scripted

from parallelz import ClusterError
from parallelz.client.onlooker import Onlooker
from parallelz.ids import EngineId
from parallelz.protocol.answers import Failure, Overview
from parallelz.protocol.messages import AskState, Goodbye, Message, Reply

OVERVIEW = Overview(7, [], [], 1, 2, {"ok": 3}, [Failure(1.0, "a-0", EngineId(1), "why")], "")


def test_an_answer_that_is_late_is_not_asked_for_again() -> None:
    with scripted() as (rc, controller):
        onlooker = Onlooker(rc)
        assert onlooker.look(0) is None
        assert onlooker.look(0) is None
        ((asked, _),) = controller.wait_for(AskState)
        controller.say(Reply(asked.request_id, msgspec.msgpack.encode(OVERVIEW)))  # type: ignore[attr-defined]
        assert onlooker.look(TIMEOUT_S) == OVERVIEW
        assert len(controller.wait_for(AskState)) == 1


def test_a_cluster_that_was_stopped_is_told() -> None:
    def answer(message: Message) -> list[Said]:
        return [(Goodbye("it was stopped"), ())] if isinstance(message, AskState) else []

    with (
        scripted(answer) as (rc, _),
        pytest.raises(ClusterError, match="has ended: it was stopped"),
    ):
        Onlooker(rc).look(TIMEOUT_S)
