from __future__ import annotations

import msgspec
import pytest

from parallelz.errors import ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo

INFO = ConnectionInfo(
    cluster_id="", role="client", token="secret", host="h", host_id="1", tcp_urls=["tcp://h:1"]
)


def test_a_connection_file_says_what_was_written_into_it() -> None:
    assert ConnectionInfo.decode(INFO.encode()) == INFO
    assert INFO.encode().count(b"\n") > 5, "it is for people, too"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'{"version": 1}'])
def test_what_is_not_a_connection_file_is_refused(content: bytes) -> None:
    with pytest.raises(ConnectionFileError, match="not a connection file"):
        ConnectionInfo.decode(content)


def test_another_version_is_refused_with_both_versions_and_without_the_secret() -> None:
    content = msgspec.json.encode({**msgspec.to_builtins(INFO), "version": 7, "new": 1})
    with pytest.raises(ConnectionFileError, match=r"version 7.*version 1") as caught:
        ConnectionInfo.decode(content)
    assert "secret" not in str(caught.value)
