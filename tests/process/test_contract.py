"""Any process may be killed in the middle of 10,000 tasks, and nothing gets lost or runs twice.

Every task notes its start in a file of its engine, before anything else, so that what really
began is known whatever was killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from parallelz import AsyncResult, Client, Cluster, EngineError

pytestmark = [pytest.mark.process, pytest.mark.slow]

SEEDS = [int(seed) for seed in os.environ.get("PARALLELZ_SEEDS", "1").split(",")]
TASKS = 10_000
ENGINES = 4
SECONDS_MAX = 0.005
TIMEOUT_S = 90


def make_work(directory: Path) -> Callable[[int, float], int]:
    path = str(directory)

    def work(number: int, seconds: float) -> int:
        descriptor = os.open(f"{path}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)
        time.sleep(seconds)
        return 3 * number

    return work


def durations(seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(0, SECONDS_MAX) for _ in range(TASKS)]


def starts(directory: Path) -> Counter[int]:
    """Return how often each task started."""
    return Counter(
        int(line) for path in directory.iterdir() for line in path.read_text().split()
    )


def pids_of(rc: Client) -> dict[int, int]:
    return {e: info.peer.pid for e, info in rc.connection.ledger.engines.items()}


def controller_pid(cluster: Cluster) -> int:
    assert cluster.controller is not None
    return cluster.controller.pid


def recorder_pid(cluster: Cluster) -> int:
    (child,) = psutil.Process(controller_pid(cluster)).children()
    return child.pid


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def victims(what: str, cluster: Cluster, rc: Client, chance: random.Random) -> list[int]:
    """Return whom to kill."""
    engines = pids_of(rc)
    match what:
        case "recorder":
            return [recorder_pid(cluster)]
        case "controller":
            return [controller_pid(cluster)]
        case "controller and recorder":
            return [recorder_pid(cluster), controller_pid(cluster)]
        case "an engine":
            return [engines[chance.choice(sorted(engines))]]
        case "all engines":
            return list(engines.values())
        case _:
            raise ValueError(what)


def check_history(rc: Client, task_ids: list[str], failed: set[str]) -> None:
    """Check that each task has ended exactly once in the database, as its client was told."""
    query = {"msg_id": {"$in": task_ids}}
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        records = rc.db_query(query, keys=["status", "completed"])
        if all(record["completed"] is not None for record in records):
            break
        assert time.monotonic() < give_up_s, "some tasks never ended in the database"
    assert sorted(str(record["msg_id"]) for record in records) == sorted(task_ids)
    lost = {str(record["msg_id"]) for record in records if record["status"] != "ok"}
    assert lost == failed


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(n=ENGINES, profile_dir=tmp_path / "profile", restart=True)
    with cluster as rc:
        rc[:].scatter("names", list(range(ENGINES)), block=True)
        yield cluster


@pytest.fixture
def started(tmp_path: Path) -> Path:
    directory = tmp_path / "started"
    directory.mkdir()
    return directory


def values_and_failures(result: AsyncResult) -> tuple[list[object], set[str]]:
    """Return what each task came to, and the ids of those that were lost with an engine."""
    values: list[object] = []
    failed: set[str] = set()
    for value, task_id in zip(
        result.get(TIMEOUT_S, return_exceptions=True), result.msg_ids, strict=True
    ):
        if isinstance(value, EngineError):
            failed.add(task_id)
        values.append(value)
    return values, failed


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "what", ["recorder", "controller", "controller and recorder", "an engine", "all engines"]
)
def test_nothing_is_lost_and_nothing_runs_twice(
    cluster: Cluster, started: Path, what: str, seed: int
) -> None:
    chance = random.Random(seed)
    with cluster.connect_client_sync() as rc:
        rc.hub_history()  # the recorder is there
        before = pids_of(rc)
        result = rc.load_balanced_view().map_async(
            make_work(started), range(TASKS), durations(seed), chunksize=1
        )
        until = chance.randrange(TASKS // 20, TASKS // 2)
        rc.wait([result.msg_ids[until]], TIMEOUT_S)
        kill(*victims(what, cluster, rc, chance))
        values, failed = values_and_failures(result)
        wrong = [
            v for n, v in enumerate(values) if v != 3 * n and not isinstance(v, EngineError)
        ]
        assert wrong == []
        counts = starts(started)
        assert max(counts.values()) == 1
        ended_well = {n for n, value in enumerate(values) if not isinstance(value, EngineError)}
        assert ended_well <= counts.keys()
        if what == "all engines":  # one that is killed may just be between two tasks
            assert failed, "the killed engines had started something"
        if "engine" not in what:
            assert failed == set()
            assert pids_of(rc) == before
            assert rc[:].gather("names", block=True) == list(range(ENGINES))
        check_history(rc, list(result.msg_ids), failed)


SCRIPT = """
    import sys
    sys.path[:0] = {path!r}
    from pathlib import Path
    from parallelz import Client
    from test_contract import TASKS, durations, make_work

    rc = Client(profile_dir={profile!r})
    work = make_work(Path({started!r}))
    work.__module__ = "__main__"
    lv = rc.load_balanced_view()
    result = lv.map_async(work, range(TASKS), durations({seed}), chunksize=1)
    rc.wait([result.msg_ids[{until}]])
    print(rc.connection.session_id, flush=True)
    rc.wait()
"""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_client_that_is_killed_comes_back_and_collects(
    cluster: Cluster, started: Path, seed: int
) -> None:
    until = random.Random(seed).randrange(TASKS // 20, TASKS // 2)
    script = textwrap.dedent(SCRIPT).format(
        path=[str(Path(__file__).parent)],
        profile=str(cluster.profile_dir),
        started=str(started),
        seed=seed,
        until=until,
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        session = process.stdout.readline().strip()
        process.kill()
    with cluster.connect_client_sync() as rc:
        result = rc.get_result([f"{session}-{number}" for number in range(TASKS)])
        values, failed = values_and_failures(result)
        assert values == [3 * number for number in range(TASKS)]
        assert starts(started) == Counter(range(TASKS))
        check_history(rc, list(result.msg_ids), failed)
