"""Who is new, and who has been here before."""

from __future__ import annotations

import pytest

from parallelz.controller.sessions import Sessions
from parallelz.ids import SessionId
from parallelz.protocol.messages import PROTOCOL_VERSION, Hello, LinkName, PeerInfo
from parallelz.transport.security import ClusterSecrets


def hello(link: LinkName, controller_id: str) -> Hello:
    peer = PeerInfo("host", "host-id", 1)
    engine = SessionId("engine")
    return Hello(PROTOCOL_VERSION, engine, "engine", link, "token", 0, controller_id, peer)


@pytest.mark.parametrize("first", ["bulk", "control"])
def test_an_engine_is_back_if_either_of_its_links_was_let_in_before(first: LinkName) -> None:
    """Nothing may be placed on it until it has said what it had started."""
    sessions = Sessions(ClusterSecrets("", [], "", {}), "now")
    second: LinkName = "control" if first == "bulk" else "bulk"
    assert not sessions.link_of(hello(first, "")).session.is_returning
    assert sessions.link_of(hello(second, "before")).session.is_returning


def test_what_an_engine_has_said_already_is_not_waited_for() -> None:
    """Its control link, on which it says that, was let in first, and never before."""
    sessions = Sessions(ClusterSecrets("", [], "", {}), "now")
    sessions.link_of(hello("control", "")).session.is_introduced = True
    assert not sessions.link_of(hello("bulk", "before")).session.is_returning


def test_an_engine_whose_links_are_both_new_is_new() -> None:
    sessions = Sessions(ClusterSecrets("", [], "", {}), "now")
    sessions.link_of(hello("bulk", ""))
    assert not sessions.link_of(hello("control", "now")).session.is_returning
