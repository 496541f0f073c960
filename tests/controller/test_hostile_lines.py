"""Whatever strangers and mad peers send, the others are served, in bounded memory."""

from __future__ import annotations

import logging
import random
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
import zmq
from helpers_controller import TIMEOUT_S, RawPeer, running_controller

from parallelz.controller.complaints import LINES_MAX
from parallelz.ids import Digest, TaskId
from parallelz.protocol.envelope import pack
from parallelz.protocol.messages import (
    PROTOCOL_VERSION,
    DefineFunction,
    Hello,
    PeerInfo,
    Refused,
    RunTask,
    SubmitTask,
    TaskEnded,
    TaskFinished,
    Welcome,
)
from parallelz.transport import attempts, router
from parallelz.transport.frames import MESSAGE_BYTES_MAX, PIECE_BYTES_MAX
from parallelz.transport.security import ClusterSecrets, new_secrets
from parallelz.transport.sockets import context

F = Digest(b"f")
NOISE = random.Random(1).randbytes(PIECE_BYTES_MAX)
ZMTP_GREETING = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
)
MIB = 1024 * 1024


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for as long as others would."""
    monkeypatch.setattr(router, "HANDSHAKE_TIMEOUT_MS", 500)
    monkeypatch.setattr(attempts, "FAILURES_S", 0.5)


@pytest.fixture
def secrets() -> Iterator[ClusterSecrets]:
    """Serve by TCP only, so that also our own peers come as from another host."""
    with running_controller(ip="127.0.0.1") as secrets:
        for role, info in secrets.infos.items():
            secrets.infos[role] = msgspec.structs.replace(info, ipc_url="")
        yield secrets


def assert_served(client: RawPeer, engine: RawPeer, number: int = 0) -> None:
    task_id = TaskId(f"{client.session_id}-{number}")
    client.say(DefineFunction(F, "f", b"definition"))
    client.say(SubmitTask(task_id, F, 0.0))
    assert engine.wait_for(RunTask).task_id == task_id
    engine.say(TaskFinished(task_id, "ok", 1.0, 2.0))
    assert client.wait_for(TaskEnded).task_id == task_id


def dial(secrets: ClusterSecrets) -> socket.socket:
    url = urlsplit(secrets.infos["client"].tcp_urls[0])
    assert url.hostname is not None
    return socket.create_connection((url.hostname, url.port), TIMEOUT_S)


def hang_up_of(line: socket.socket) -> bytes:
    """Return what the other side says until it closes the connection."""
    said = b""
    try:
        while chunk := line.recv(4096):
            said += chunk
    except ConnectionResetError:
        pass
    return said


def peer_of(secrets: ClusterSecrets, role: str, **changes: str) -> RawPeer:
    """Return a peer with a connection file in which something is wrong."""
    info = msgspec.structs.replace(secrets.infos[role], **changes)
    return RawPeer(msgspec.structs.replace(secrets, infos={role: info}), role)  # type: ignore[arg-type]


# -- without the right keys ------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + bytes(512),  # how TLS begins
        b"SSH-2.0-x\r\n" * 20,
        b"\x01\x00\x04x\x00" * 50,  # how ZMTP 1 begins, which knows no keys
        ZMTP_GREETING.replace(b"CURVE", b"NULL\0"),
        ZMTP_GREETING.replace(b"CURVE", b"PLAIN"),
        ZMTP_GREETING + b"\x04\xc8" + b"\x05HELLO" + b"\x01\x00" + bytes(192),
        ZMTP_GREETING + b"\x04\x05\x04PING",
        ZMTP_GREETING + b"\x00\x05hello",  # a message where a command is due
        NOISE[:4096],
    ],
    ids=lambda said: said[:12].hex(),
)
def test_who_speaks_another_language_is_cut_off(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer, said: bytes
) -> None:
    with dial(secrets) as line:
        line.sendall(said)
        hang_up_of(line)
    assert_served(client, engine)


def test_a_recorded_connection_that_is_played_again_opens_nothing(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        eavesdropped = peer_of(secrets, "client", tcp_urls=[f"tcp://127.0.0.1:{port}"])  # type: ignore[arg-type]
        near, _ = listener.accept()
        with near, dial(secrets) as far:
            recorded = pass_on_until(near, far, eavesdropped)
        eavesdropped.close()
    assert len(recorded) > len(ZMTP_GREETING) + 200, "all that a peer says to be let in"
    with dial(secrets) as line:
        line.sendall(recorded)
        answer = hang_up_of(line)
    assert b"Welcome" not in answer
    assert_served(client, engine)


def pass_on_until(near: socket.socket, far: socket.socket, peer: RawPeer) -> bytes:
    """Pass on between two lines until the peer is welcome; return what it sent."""
    sent = b""
    poller = zmq.Poller()
    poller.register(near, zmq.POLLIN)
    poller.register(far, zmq.POLLIN)
    near.settimeout(TIMEOUT_S)
    while not any(link.welcome for link in peer.links.values()):
        ready = dict(poller.poll(50))
        for source, target in ((near, far), (far, near)):
            if source.fileno() in ready:
                data = source.recv(65536)
                sent += data if source is near else b""
                target.sendall(data)
        peer._receive()
    return sent


def test_a_stranger_can_make_the_controller_hold_one_piece_at_most(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    before = psutil.Process().memory_info().rss
    for size in (MESSAGE_BYTES_MAX + 1, 1 << 30, 1 << 40, (1 << 63) - 1):
        with dial(secrets) as line:
            line.sendall(ZMTP_GREETING + b"\x06" + struct.pack(">Q", size))
            try:
                for _ in range(100):
                    line.sendall(bytes(MIB))
            except (BrokenPipeError, ConnectionResetError):
                pass
            else:
                pytest.fail("100 MiB were taken from somebody unknown")
    assert psutil.Process().memory_info().rss - before < 50 * MIB
    assert_served(client, engine)


def test_half_open_connections_hinder_nobody(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    lines = [dial(secrets) for _ in range(300)]
    for index, line in enumerate(lines):
        line.sendall(ZMTP_GREETING[: index % 64])
    assert_served(client, engine)
    newcomer = RawPeer(secrets, "client")
    newcomer.wait_for(Welcome)
    newcomer.close()
    for line in lines:
        line.close()


@pytest.mark.slow
@pytest.mark.usefixtures("short_patience")
def test_who_does_not_say_who_he_is_in_time_is_cut_off(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    with dial(secrets) as silent, dial(secrets) as slow:
        slow.sendall(ZMTP_GREETING[:20])
        silent.settimeout(2 * TIMEOUT_S)
        slow.settimeout(2 * TIMEOUT_S)
        hang_up_of(silent)
        hang_up_of(slow)
    assert_served(client, engine)


# -- with some of the right keys -------------------------------------------------------------


def test_an_unknown_key_is_refused_at_once_with_what_to_do(secrets: ClusterSecrets) -> None:
    public, secret = zmq.curve_keypair()
    stranger = peer_of(
        secrets, "client", public_key=public.decode(), secret_key=secret.decode()
    )
    assert "copy it again" in stranger.wait_for(Refused).reason
    stranger.close()


@pytest.mark.slow
@pytest.mark.usefixtures("short_patience")
def test_a_file_of_an_earlier_start_is_refused_with_what_to_do(
    secrets: ClusterSecrets, tmp_path: object
) -> None:
    port = urlsplit(secrets.infos["client"].tcp_urls[0]).port
    assert port
    earlier = new_secrets("", runtime_dir=tmp_path, ip="127.0.0.1", port=port)  # type: ignore[arg-type]
    for role in ("client", "engine"):
        late = peer_of(earlier, role, ipc_url="")
        assert "copy it again" in late.wait_for(Refused).reason
        late.close()


def test_a_token_of_an_earlier_start_is_refused_with_what_to_do(
    secrets: ClusterSecrets,
) -> None:
    late = peer_of(secrets, "client", token="earlier")
    assert "of an earlier start of this one; copy" in late.wait_for(Refused).reason
    late.close()


@pytest.mark.parametrize(("role", "other"), [("client", "engine"), ("engine", "client")])
def test_the_token_of_another_role_is_refused_with_whose_it_is(
    secrets: ClusterSecrets, role: str, other: str
) -> None:
    peer = peer_of(secrets, role, token=secrets.infos[other].token)
    assert f"its token is for {other}s" in peer.wait_for(Refused).reason
    peer.close()


@pytest.mark.parametrize(("role", "other"), [("client", "engine"), ("engine", "client")])
def test_the_right_token_over_the_key_of_another_role_is_refused(
    secrets: ClusterSecrets, role: str, other: str
) -> None:
    theirs = secrets.infos[other]
    keys = {"public_key": theirs.public_key, "secret_key": theirs.secret_key}
    peer = peer_of(secrets, role, **keys)
    assert f"the key of another role ({other})" in peer.wait_for(Refused).reason
    peer.close()


# -- with all of them ------------------------------------------------------------------------


def greeting(secrets: ClusterSecrets, **changes: object) -> Hello:
    peer = PeerInfo("host", "host", 1)
    token = secrets.infos["client"].token
    usual = Hello(PROTOCOL_VERSION, "s", "client", "bulk", token, 0, "", peer)  # type: ignore[arg-type]
    return msgspec.structs.replace(usual, **changes)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x00",
        b"\xdd\xff\xff\xff\xff",  # a list of 2**32 things, of which none comes
        b"\x91" * 100_000,  # lists in lists in lists
        msgspec.msgpack.encode((1, 0, [["NoSuchMessage"]])),
        msgspec.msgpack.encode((-1, -1, [])),
        msgspec.msgpack.encode((1 << 63, 1 << 63, [])),
        msgspec.msgpack.encode((2.5, "x", None)),
        msgspec.msgpack.encode((1, 0, [], [(0, ("../../etc", 1, 1, 0, 10))])),
        pack(1, 0, [DefineFunction(F, "f", b"", -1), DefineFunction(F, "f", b"", 1)]),
        pack(1, 0, [DefineFunction(F, "f", b"", 1 << 40)]),
        NOISE,
    ],
    ids=lambda first: f"{len(first)}-{first[:8].hex()}",
)
def test_a_peer_that_goes_mad_is_a_few_log_lines_and_nothing_to_others(
    secrets: ClusterSecrets,
    client: RawPeer,
    engine: RawPeer,
    first: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mad = RawPeer(secrets, "client")
    mad.wait_for(Welcome)
    mad.wait_for(Welcome)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            for link in mad.links.values():
                link.socket.send_multipart([first, b"frame"])
        assert_served(client, engine)
        mad.say(SubmitTask(TaskId(f"{mad.session_id}-0"), F, 0.0))
        mad.close()
        assert_served(client, engine, 1)
    assert len(caplog.records) <= 3 * LINES_MAX


def test_a_frame_that_is_too_large_costs_its_sender_the_line(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    mad = RawPeer(secrets, "client")
    mad.wait_for(Welcome)
    mad.wait_for(Welcome)
    mad.links["bulk"].socket.send(bytes(2 * MESSAGE_BYTES_MAX))
    assert mad.wait_for(Welcome), "it has come back"
    assert_served(client, engine)
    mad.close()


def test_thousands_of_wrong_greetings_are_a_few_log_lines(
    secrets: ClusterSecrets,
    client: RawPeer,
    engine: RawPeer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    info = secrets.infos["client"]
    wrong = greeting(secrets, token="wrong" * 1000)
    with context().socket(zmq.DEALER) as stranger, caplog.at_level(logging.WARNING):
        stranger.linger = 0
        stranger.rcvtimeo = int(TIMEOUT_S * 1000)
        stranger.curve_serverkey = info.server_key.encode()
        stranger.curve_publickey = info.public_key.encode()
        stranger.curve_secretkey = info.secret_key.encode()
        stranger.connect(info.tcp_urls[0])
        for _ in range(2000):
            stranger.send(pack(0, 0, [wrong]))
        for _ in range(2000):
            assert b"Refused" in stranger.recv()
    assert_served(client, engine)
    assert len(caplog.records) <= LINES_MAX
