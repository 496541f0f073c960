"""A cluster whose history is in a PostgreSQL database, and a server that goes away."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from helpers_postgres import PostgresServer, new_database
from helpers_processes import words_of

from parallelz import Client, Cluster, RemoteError
from parallelz.store.choice import DATABASE_VARIABLE

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.service]

TASKS = 2000
TIMEOUT_S = 60


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with new_database(postgres_server) as address:
        yield address


def recorded(rc: Client, task_ids: list[str]) -> list[dict[str, object]]:
    """Return what the database says of tasks that have ended, once it says so of all."""
    query = {"msg_id": {"$in": task_ids}, "completed": {"$exists": True}}
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            records = rc.db_query(query, keys=["status", "data"])
        except RemoteError as error:
            if error.ename != "StoreError":
                raise
            records = []
        if len(records) >= len(task_ids):
            return records
        assert time.monotonic() < give_up_s, f"{len(records)} of {len(task_ids)} are recorded"


def test_what_one_client_did_another_finds_in_the_database(url: str, tmp_path: Path) -> None:
    cluster = Cluster(n=2, profile_dir=tmp_path, store=url)
    with cluster as rc:
        done = rc.load_balanced_view().map_async(lambda x: x**2, range(20))
        assert done.get(TIMEOUT_S) == [x**2 for x in range(20)]
        records = rc.db_query({"status": "ok"}, keys=["msg_id", "engine_id"])
        assert len(records) == 20
        with cluster.connect_client_sync() as other:
            assert other.get_result(done.msg_ids[7]).get(TIMEOUT_S) == 49
            assert len(other.hub_history()) == 20


def test_clusters_that_share_a_database_see_each_others_tasks(url: str, tmp_path: Path) -> None:
    with (
        Cluster(n=1, profile_dir=tmp_path / "a", store=url) as one,
        Cluster(n=1, profile_dir=tmp_path / "b", store=url) as other,
    ):
        both = []
        for number, rc in enumerate((one, other)):
            done = rc[:].apply_async(abs, -number)
            assert done.get(TIMEOUT_S) == [number]
            both += done.msg_ids
            assert rc.hub_history() == both
        assert one.hub_history() == both


def test_the_password_is_on_no_command_line_and_in_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, f"{url}&password=tiger")
    with Cluster(n=1, profile_dir=tmp_path, store="postgresql") as rc:
        assert rc[:].apply_sync(abs, -1) == [1]
        assert len(rc.hub_history()) == 1
        for child in psutil.Process().children(recursive=True):
            assert "tiger" not in " ".join(words_of(child))
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert files
        for path in files:
            assert b"tiger" not in path.read_bytes()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Return what gives all that clients have said: warnings to who waits, else a log."""
    texts: list[str] = []
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(
            warnings, "showwarning", lambda message, *rest: texts.append(str(message))
        )
        yield lambda: "\n".join([*texts, *caplog.messages])


def test_a_server_that_crashes_in_the_middle_loses_nothing(
    url: str, tmp_path: Path, postgres_server: PostgresServer, told: Callable[[], str]
) -> None:
    with Cluster(n=2, profile_dir=tmp_path, store=url) as rc:
        rc.hub_history()
        lv = rc.load_balanced_view()
        jobs = [lv.apply_async(pow, number, 2) for number in range(TASKS // 2)]
        jobs[TASKS // 4].get(TIMEOUT_S)
        postgres_server.stop("immediate")
        try:
            jobs += [lv.apply_async(pow, number, 2) for number in range(TASKS // 2, TASKS)]
            results = [job.get(TIMEOUT_S) for job in jobs]  # computing goes on
        finally:
            postgres_server.start()
        assert results == [number**2 for number in range(TASKS)]
        task_ids = [job.msg_ids[0] for job in jobs]
        records = recorded(rc, task_ids)
        assert sorted(str(record["msg_id"]) for record in records) == sorted(task_ids)
        assert {record["status"] for record in records} == {"ok"}
    assert "PostgreSQL" in told()


def test_a_cluster_starts_before_its_server(
    url: str, tmp_path: Path, postgres_server: PostgresServer, told: Callable[[], str]
) -> None:
    postgres_server.stop()
    try:
        with Cluster(n=1, profile_dir=tmp_path, store=url) as rc:
            task_ids: list[str] = []
            give_up_s = time.monotonic() + TIMEOUT_S
            while "PostgreSQL: connection" not in told():
                assert time.monotonic() < give_up_s, "it was not told that nothing is recorded"
                done = rc[:].apply_async(abs, -1)
                assert done.get(TIMEOUT_S) == [1]
                task_ids += done.msg_ids
            postgres_server.start()
            assert len(recorded(rc, task_ids)) == len(task_ids)
    finally:
        if not postgres_server.is_running:
            postgres_server.start()


def test_a_controller_that_is_killed_takes_its_tasks_up_from_the_database(
    url: str, tmp_path: Path, told: Callable[[], str]
) -> None:
    cluster = Cluster(n=2, profile_dir=tmp_path, store=url)
    with cluster as rc:
        rc.hub_history()
        lv = rc.load_balanced_view()
        jobs = [lv.apply_async(pow, number, 2) for number in range(TASKS)]
        jobs[TASKS // 4].get(TIMEOUT_S)
        assert cluster.controller is not None
        os.kill(cluster.controller.pid, signal.SIGKILL)
        assert [job.get(TIMEOUT_S) for job in jobs] == [n**2 for n in range(TASKS)]
        task_ids = [job.msg_ids[0] for job in jobs]
        records = recorded(rc, task_ids)
        assert sorted(str(record["msg_id"]) for record in records) == sorted(task_ids)
        assert {record["status"] for record in records} == {"ok"}
