"""What stands between a controller and the login by which it was started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from parallelz.controller.guard import secrets_for, take_place
from parallelz.errors import ClusterError
from parallelz.protocol.connection import Heartbeat
from parallelz.transport import remote_controller as remote
from parallelz.transport.remote_controller import Lines, StartOrder
from parallelz.transport.security import ClusterSecrets, remove_runtime_dir

TIMEOUT_S = 30
CODE = """
import sys
from parallelz.controller import guard
from parallelz.transport import remote_controller as remote
remote.RETURN_GRACE_S, remote.SILENCE_S = map(float, sys.argv[1:])
sys.exit(guard.main())
"""


def order_for(tmp_path: Path) -> StartOrder:
    runtime_dir = tmp_path / "parallelz-run"
    arguments = ["--store", "none"]
    return StartOrder(
        str(runtime_dir), str(tmp_path / "p"), "", "", 0, "", Heartbeat(), arguments
    )


class Running:
    """A guard as a process, and a keeper's view of it."""

    def __init__(self, *, grace_s: float = TIMEOUT_S, silence_s: float = TIMEOUT_S) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(grace_s), str(silence_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def hear(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(remote.MARK), line
        return line.removeprefix(remote.MARK).strip()

    def begin(self, order: StartOrder) -> ClusterSecrets:
        """Have it start a controller, and wait until that listens."""
        self.say(msgspec.json.encode(order))
        secrets = msgspec.json.decode(self.hear(), type=ClusterSecrets)
        assert self.hear() == remote.READY
        return secrets

    def close(self) -> None:
        """Be gone, as a keeper that is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@pytest.fixture
def guards() -> Iterator[list[Running]]:
    guards: list[Running] = []
    yield guards
    for each in guards:
        if each.process.poll() is None:
            each.process.terminate()
        for pipe in (each.process.stdin, each.process.stdout, each.process.stderr):
            assert pipe is not None
            pipe.close()
        each.process.wait(TIMEOUT_S)


@pytest.mark.process
def test_a_controller_is_started_and_ended_as_it_is_told(
    tmp_path: Path, guards: list[Running]
) -> None:
    guards.append(guard := Running())
    secrets = guard.begin(order_for(tmp_path))
    directory = tmp_path / "parallelz-run"
    assert secrets.infos["client"].ipc_url == f"ipc://{directory}/controller.sock"
    assert {path.stat().st_mode & 0o177 for path in directory.glob("*.json")} == {0}
    guard.say(remote.END)
    assert guard.end() == 0
    assert not directory.exists()
    assert list((tmp_path / "p" / "security").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("how", ["gone", "silent"])
def test_without_a_keeper_the_controller_ends(
    tmp_path: Path, guards: list[Running], how: str
) -> None:
    guard = Running(grace_s=0.2, silence_s=0.2 if how == "silent" else TIMEOUT_S)
    guards.append(guard)
    guard.begin(order_for(tmp_path))
    if how == "gone":
        guard.close()
    assert guard.end() == remote.LOST
    assert not (tmp_path / "parallelz-run").exists()
    assert "the keeper is gone" in guard.log()


@pytest.mark.process
def test_a_keeper_that_is_heard_again_was_only_slow(
    tmp_path: Path, guards: list[Running]
) -> None:
    guards.append(guard := Running(silence_s=0.1))
    guard.begin(order_for(tmp_path))
    assert guard.process.stderr is not None
    while b"has said nothing" not in guard.process.stderr.readline():
        pass
    guard.say(remote.STILL_HERE)
    while b"heard of the keeper again" not in guard.process.stderr.readline():
        pass
    guard.say(remote.END)
    assert guard.end() == 0


@pytest.mark.process
def test_another_guard_takes_the_place_of_one_that_was_left(
    tmp_path: Path, guards: list[Running]
) -> None:
    guards.append(first := Running())
    before = first.begin(order_for(tmp_path))
    first.close()
    guards.append(second := Running())
    order = msgspec.structs.replace(order_for(tmp_path), secrets=before, resume=True)
    after = second.begin(order)
    assert first.end() < 0
    assert after.infos["engine"].token == before.infos["engine"].token
    second.say(remote.END)
    assert second.end() == 0
    assert not (tmp_path / "parallelz-run").exists()


@pytest.mark.process
def test_who_withdraws_an_order_wants_no_controller_at_all(
    tmp_path: Path, guards: list[Running]
) -> None:
    guards.append(first := Running())
    before = first.begin(order_for(tmp_path))
    first.close()
    guards.append(second := Running())
    order = msgspec.structs.replace(order_for(tmp_path), secrets=before, resume=True)
    second.say(msgspec.json.encode(order) + b"\n" + remote.END)
    assert second.end() == 0
    assert first.end() == 0
    assert not (tmp_path / "parallelz-run").exists()


@pytest.mark.process
@pytest.mark.parametrize("said", [b"", b"nonsense\n"], ids=["nothing", "nonsense"])
def test_without_an_order_nothing_is_started(guards: list[Running], said: bytes) -> None:
    guards.append(guard := Running())
    assert guard.process.stdin is not None
    guard.process.stdin.write(said)
    guard.close()
    assert guard.end() == 1
    assert "! " in guard.log()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(ClusterError, match="is not a directory of this user alone"):
        take_place(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.raises(ClusterError, match="is not a directory of this user alone"):
        take_place(tmp_path / "link")


def test_secrets_of_before_are_kept_and_lead_to_the_socket_here(tmp_path: Path) -> None:
    order = order_for(tmp_path)
    first = secrets_for(order)
    seen = msgspec.structs.replace(
        first,
        infos={
            role: msgspec.structs.replace(info, ipc_url="ipc:///elsewhere", host_id="there")
            for role, info in first.infos.items()
        },
    )
    again = secrets_for(msgspec.structs.replace(order, secrets=seen))
    assert again == first
    assert {info.shared_memory for info in again.infos.values()} == {""}
    remove_runtime_dir(Path(order.runtime_dir))


def test_lines_come_whole() -> None:
    reading, writing = os.pipe()
    lines = Lines(reading)
    os.write(writing, b"one\ntw")
    assert lines.receive() == [b"one"]
    os.write(writing, b"o\n\n")
    assert lines.receive() == [b"two", b""]
    os.close(writing)
    assert lines.receive() is None
    os.close(reading)
