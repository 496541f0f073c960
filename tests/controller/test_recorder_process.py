"""The recorder as a process beside a controller."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from helpers_controller import TIMEOUT_S, RawPeer

from parallelz.controller.controller import Controller
from parallelz.controller.recording import Recording
from parallelz.ids import Digest, TaskId, task_id_of
from parallelz.protocol.messages import (
    AskHistory,
    DefineFunction,
    Notice,
    Reply,
    RunTask,
    SubmitTask,
    TaskEnded,
    TaskFinished,
    Welcome,
)
from parallelz.store.sqlite import SqliteStore
from parallelz.transport.security import ClusterSecrets, new_secrets
from parallelz.transport.sockets import term_context

pytestmark = [pytest.mark.process, pytest.mark.slow]

F = Digest(b"\x01" * 16)


class Recorders:
    """Starts recorder processes, as the controller's process does."""

    def __init__(self, secrets: ClusterSecrets, path: Path, parent_pid: int) -> None:
        self._info = json.dumps(msgspec.to_builtins(secrets.infos["recorder"])).encode()
        self._command = [
            *(sys.executable, "-m", "parallelz.controller.recorder_process"),
            *("--store", "sqlite", "--path", str(path), "--parent-pid", str(parent_pid)),
            *("--run", "run", "--cluster", "cluster"),
        ]
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(self._info)
        process.stdin.close()
        self.started.append(process)
        return process


class Hub:
    """A controller with a recorder, a client and an engine."""

    def __init__(self, secrets: ClusterSecrets, recorders: Recorders) -> None:
        self.recorders = recorders
        self.client = RawPeer(secrets, "client")
        self.engine = RawPeer(secrets, "engine")
        for peer in (self.client, self.engine):
            for _ in peer.links:
                peer.wait_for(Welcome)
        self.client.say(DefineFunction(F, "f"))

    def run(self, number: int) -> TaskId:
        """Submit a task, and let it end."""
        task_id = task_id_of(self.client.session_id, number)
        self.client.say(SubmitTask(task_id, F, 1.0, b"arguments"))
        assert self.engine.wait_for(RunTask).task_id == task_id
        self.engine.say(TaskFinished(task_id, "ok", 2.0, 3.0, b"result"))
        assert self.client.wait_for(TaskEnded).task_id == task_id
        return task_id

    def status(self, *task_ids: TaskId) -> object:
        data = msgspec.msgpack.encode({"task_ids": task_ids})
        self.client.say(AskHistory(7, "status", data), "control")
        reply = self.client.wait_for(Reply)
        assert (reply.request_id, reply.error) == (7, None)
        return msgspec.msgpack.decode(reply.data)

    def close(self) -> None:
        self.client.close()
        self.engine.close()


@contextlib.contextmanager
def running_hub(path: Path) -> Iterator[Hub]:
    with tempfile.TemporaryDirectory(prefix="parallelz-") as directory:
        secrets = new_secrets("", runtime_dir=Path(directory))
        recorders = Recorders(secrets, path, os.getpid())
        controller = Controller(secrets, Recording(recorders.start))
        thread = threading.Thread(target=controller.run)
        thread.start()
        try:
            with closing(Hub(secrets, recorders)) as hub:
                yield hub
        finally:
            controller.stop("the test ends")
            thread.join(TIMEOUT_S)
            controller.close()
            term_context()
            for process in recorders.started:
                if process.poll() is None:
                    process.kill()
                process.wait()


def test_a_client_reads_its_own_writes(tmp_path: Path) -> None:
    with running_hub(tmp_path / "db") as hub:
        for number in range(5):
            task_id = hub.run(number)
            assert hub.status(task_id) == {task_id: "ok"}


def test_all_is_written_when_the_controller_ends_and_ctrl_c_does_not_matter(
    tmp_path: Path,
) -> None:
    with running_hub(tmp_path / "db") as hub:
        first = hub.run(0)
        assert hub.status(first) == {first: "ok"}
        (recorder,) = hub.recorders.started
        recorder.send_signal(signal.SIGINT)
        last = hub.run(1)
    assert recorder.returncode == 0
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.history() == [first, last]
        (record,) = store.result([last])
        assert (record["status"], record["data"]) == ("ok", b"result")


def test_a_recorder_that_is_killed_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with running_hub(tmp_path / "db") as hub:
        task_ids = [hub.run(number) for number in range(3)]
        hub.status(*task_ids)
        task_ids += [hub.run(number) for number in range(3, 6)]
        hub.recorders.started[0].kill()
        task_ids += [hub.run(number) for number in range(6, 9)]
        assert hub.status(*task_ids) == dict.fromkeys(task_ids, "ok")
        assert len(hub.recorders.started) == 2


def test_a_locked_database_is_told_of_and_nothing_is_lost(tmp_path: Path) -> None:
    with (
        running_hub(tmp_path / "db") as hub,
        closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other,
    ):
        task_ids = [hub.run(0)]
        hub.status(*task_ids)
        other.execute("BEGIN IMMEDIATE")
        task_ids.append(hub.run(1))
        assert "locked" in hub.client.wait_for(Notice).text
        task_ids.append(hub.run(2))
        other.execute("COMMIT")
        assert "nothing was lost" in hub.client.wait_for(Notice).text
        assert hub.status(*task_ids) == dict.fromkeys(task_ids, "ok")
        assert len(hub.recorders.started) == 1


def test_a_damaged_database_is_moved_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"This is a letter to my mother. " * 100)
    with running_hub(tmp_path / "db") as hub:
        first = hub.run(0)
        assert "db.damaged-" in hub.client.wait_for(Notice).text
        assert "nothing was lost" in hub.client.wait_for(Notice).text
        assert hub.status(first) == {first: "ok"}


def test_what_has_not_ended_when_the_cluster_stops_is_lost(tmp_path: Path) -> None:
    with running_hub(tmp_path / "db") as hub:
        first = hub.run(0)
        task_id = task_id_of(hub.client.session_id, 1)
        hub.client.say(SubmitTask(task_id, F, 1.0, b"arguments"))
        hub.engine.wait_for(RunTask)
        assert hub.status(first, task_id) == {first: "ok", task_id: "pending"}
    with closing(SqliteStore(tmp_path / "db")) as store:
        assert store.status([first, task_id]) == {first: "ok", task_id: "lost"}


def test_a_recorder_whose_controller_is_gone_ends(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="parallelz-") as directory:
        secrets = new_secrets("", runtime_dir=Path(directory))
        not_our_pid = os.getppid()
        process = Recorders(secrets, tmp_path / "db", not_our_pid).start()
        assert process.wait(TIMEOUT_S) == 1
