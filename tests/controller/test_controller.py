"""The controller over real sockets, with peers that say what a test wants: also nonsense."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import pytest
import zmq
from helpers_controller import RawPeer, running_controller

from parallelz.controller.liveness import Verdict
from parallelz.controller.requests import JOIN_GRACE_S
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.envelope import pack
from parallelz.protocol.messages import (
    AskHistory,
    AskQueues,
    ClearEngines,
    ClearNamespace,
    DefineFunction,
    EndEngine,
    EngineDied,
    EngineJoined,
    EngineLeft,
    NamespaceCleared,
    Notice,
    Refused,
    Reply,
    RunTask,
    ShutdownEngines,
    SubmitDirect,
    SubmitTask,
    Supervises,
    TaskEnded,
    TaskFinished,
    Welcome,
)
from parallelz.transport.security import ClusterSecrets
from parallelz.transport.sockets import context

F = Digest(b"f")


@pytest.fixture
def secrets() -> Iterator[ClusterSecrets]:
    with running_controller() as secrets:
        yield secrets


def run_one_task(client: RawPeer, engine: RawPeer, number: int) -> None:
    task_id = TaskId(f"{client.session_id}-{number}")
    client.say(DefineFunction(F, "f", b"definition"))
    client.say(SubmitTask(task_id, F, 0.0, b"arguments"))
    run = engine.wait_for(RunTask)
    assert (run.task_id, run.data) == (task_id, b"arguments")
    engine.say(TaskFinished(task_id, "ok", 1.0, 2.0, b"result"))
    ended = client.wait_for(TaskEnded)
    assert (ended.task_id, ended.status, ended.data) == (task_id, "ok", b"result")


def test_task_goes_to_an_engine_and_its_result_to_the_client(
    client: RawPeer, engine: RawPeer
) -> None:
    run_one_task(client, engine, 0)


def test_definition_of_a_function_goes_to_an_engine_once(
    client: RawPeer, engine: RawPeer
) -> None:
    run_one_task(client, engine, 0)
    engine.wait_for(DefineFunction)
    run_one_task(client, engine, 1)
    assert not any(isinstance(message, DefineFunction) for message in engine.left)


def test_large_buffers_travel_beside_the_message(client: RawPeer, engine: RawPeer) -> None:
    task_id = TaskId(f"{client.session_id}-0")
    client.say(DefineFunction(F, "f", b"definition"))
    link = client.links["bulk"]
    link.put(SubmitTask(task_id, F, 0.0, b"", 1), [b"x" * 1_000_000])
    link.flush()
    assert engine.wait_for(RunTask).frame_count == 1


def test_user_is_told_that_there_are_no_engines(client: RawPeer) -> None:
    client.say(DefineFunction(F, "f", b"definition"))
    client.say(SubmitTask(TaskId(f"{client.session_id}-0"), F, 0.0))
    assert "no engines" in client.wait_for(Notice).text


def test_cause_of_a_death_comes_from_the_supervisor(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    task_id = TaskId(f"{client.session_id}-0")
    client.say(DefineFunction(F, "f", b"definition"))
    client.say(SubmitDirect(0, [EngineId(0)], F, 0.0))
    engine.wait_for(RunTask)
    supervisor = RawPeer(secrets, "supervisor")
    supervisor.wait_for(Welcome)
    cause = "killed by signal 9 (SIGKILL)"
    supervisor.say(EngineDied(SessionId(engine.session_id), cause), "control")
    assert client.wait_for(EngineLeft).cause == cause
    ended = client.wait_for(TaskEnded)
    assert (ended.task_id, ended.status) == (task_id, "engine-lost")
    assert cause in ended.error.evalue
    supervisor.close()


def test_cause_of_a_death_is_waited_for_also_if_the_supervisor_joins_after_it() -> None:
    with (
        running_controller(judging=lambda peer, host_id: Verdict.DEAD) as secrets,
        contextlib.closing(RawPeer(secrets, "client")) as client,
        contextlib.closing(RawPeer(secrets, "engine", is_supervised=True)) as engine,
    ):
        client.wait_for(EngineJoined)
        engine.close()
        with contextlib.closing(RawPeer(secrets, "supervisor")) as supervisor:
            supervisor.wait_for(Welcome)
            supervisor.say(EngineDied(SessionId(engine.session_id), "exit code 7"), "control")
            assert client.wait_for(EngineLeft).cause == "exit code 7"


def test_an_engine_is_replaced_by_a_supervisor_that_joins_after_the_request() -> None:
    with (
        running_controller() as secrets,
        contextlib.closing(RawPeer(secrets, "client")) as client,
        contextlib.closing(RawPeer(secrets, "engine", is_supervised=True)) as engine,
    ):
        client.wait_for(EngineJoined)
        client.say(ShutdownEngines(1, [EngineId(0)], restart=True), "control")
        client.say(AskQueues(2, []), "control")
        assert client.wait_for(Reply).request_id == 2  # the first one waits
        with contextlib.closing(RawPeer(secrets, "supervisor")) as supervisor:
            supervisor.say(Supervises([engine.session_id]), "control")
            assert supervisor.wait_for(EndEngine).session_id == engine.session_id
            reply = client.wait_for(Reply)
            assert (reply.request_id, reply.error) == (1, None)


def test_a_supervisor_that_never_joins_is_not_waited_for_without_end() -> None:
    later_s = 0.0
    with (
        running_controller(clock=lambda: time.monotonic() + later_s) as secrets,
        contextlib.closing(RawPeer(secrets, "client")) as client,
        contextlib.closing(RawPeer(secrets, "engine", is_supervised=True)),
    ):
        client.wait_for(EngineJoined)
        client.say(ShutdownEngines(1, [EngineId(0)], restart=True), "control")
        client.say(AskQueues(2, []), "control")
        assert client.wait_for(Reply).request_id == 2
        later_s = JOIN_GRACE_S
        reply = client.wait_for(Reply)
        assert reply.request_id == 1
        assert reply.error is not None
        assert "have no supervisor" in reply.error.evalue


def test_engine_that_was_given_up_is_refused(
    secrets: ClusterSecrets, client: RawPeer, engine: RawPeer
) -> None:
    supervisor = RawPeer(secrets, "supervisor")
    supervisor.say(EngineDied(SessionId(engine.session_id), "frozen"), "control")
    supervisor.wait_for(Welcome)
    supervisor.wait_for(Welcome)
    supervisor.links["control"].flush()
    client.wait_for(EngineLeft)
    engine.say(TaskFinished(TaskId("x-0"), "ok", 0.0, 0.0))
    assert "frozen" in engine.wait_for(Refused).reason
    supervisor.close()


def test_clear_is_answered_when_every_engine_has_done_it(
    client: RawPeer, engine: RawPeer
) -> None:
    client.say(ClearEngines(7, [EngineId(0)]), "control")
    request = engine.wait_for(ClearNamespace)
    engine.say(NamespaceCleared(request.request_key), "control")
    assert client.wait_for(Reply).request_id == 7


def test_history_is_refused_without_a_store(client: RawPeer) -> None:
    client.say(AskHistory(3, "history", b""), "control")
    assert client.wait_for(Reply).error.ename == "NoStore"


def test_wrong_token_is_refused_with_the_reason(secrets: ClusterSecrets) -> None:
    stranger = RawPeer(secrets, "client", token="guess")
    assert "token" in stranger.wait_for(Refused).reason
    stranger.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"garbage"],
        [b"\xc1" * 1000],
        [b"\x93\x01\x00"],
        [pack(1, 0, [AskQueues(1, [])])[:-1]],
        [b"", b"", b""],
        [pack(0, 0, []), *[b"frame"] * 100],
    ],
    ids=repr,
)
def test_garbage_harms_nobody(
    secrets: ClusterSecrets,
    client: RawPeer,
    engine: RawPeer,
    frames: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with context().socket(zmq.DEALER) as stranger:
        stranger.linger = 1000
        stranger.connect(secrets.infos["client"].ipc_url)
        stranger.send_multipart(frames)
        link = client.links["bulk"].socket  # an authenticated peer may go mad, too
        link.send_multipart(frames)
        with caplog.at_level(logging.WARNING):
            run_one_task(client, engine, 0)
            run_one_task(client, engine, 1)


@pytest.mark.parametrize("task_id", ["", "abc", "another-0", "{me}-", "{me}-x", "{me}--1"])
def test_task_under_a_name_that_is_not_the_clients_is_dropped(
    client: RawPeer, engine: RawPeer, task_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    client.say(DefineFunction(F, "f", b"definition"))
    client.say(SubmitTask(TaskId(task_id.format(me=client.session_id)), F, 0.0))
    run_one_task(client, engine, 0)
    assert "not one of its own" in caplog.text


def test_peer_cannot_say_what_its_role_may_not(
    client: RawPeer, engine: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    client.say(EngineDied(SessionId(engine.session_id), "so there"))
    run_one_task(client, engine, 0)
    assert "dropped a message" in caplog.text


def test_unknown_peer_is_asked_who_it_is(secrets: ClusterSecrets) -> None:
    with context().socket(zmq.DEALER) as stranger:
        stranger.linger, stranger.rcvtimeo = 0, 5000
        stranger.connect(secrets.infos["client"].ipc_url)
        stranger.send(pack(1, 0, [AskQueues(1, [])]))
        assert b"SayHello" in stranger.recv()


def test_tcp_needs_a_key_that_is_on_the_list() -> None:
    with running_controller(ip="127.0.0.1") as secrets:
        info = secrets.infos["client"]
        url = info.tcp_urls[0]
        with context().socket(zmq.DEALER) as plain, context().socket(zmq.DEALER) as wrong:
            wrong.curve_publickey, wrong.curve_secretkey = zmq.curve_keypair()
            wrong.curve_serverkey = info.server_key.encode()
            for stranger in (plain, wrong):
                stranger.linger = 0
                stranger.connect(url)
                with contextlib.suppress(zmq.Again):  # it may have been refused already
                    stranger.send(pack(1, 0, [AskQueues(1, [])]), zmq.NOBLOCK)
            with context().socket(zmq.DEALER) as ours:
                ours.linger, ours.rcvtimeo = 0, 5000
                ours.curve_publickey = info.public_key.encode()
                ours.curve_secretkey = info.secret_key.encode()
                ours.curve_serverkey = info.server_key.encode()
                ours.connect(url)
                ours.send(pack(1, 0, [AskQueues(1, [])]))
                assert b"SayHello" in ours.recv()
            assert plain.poll(200) == 0
            assert wrong.poll(0) == 0
