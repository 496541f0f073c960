"""Controllers, recorders and engines are killed again and again under a mixed load.

What the other tests kill one by one dies here at the same time, also while the rest is still
recovering. Whatever can be known must be right then: results, and that nothing starts twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from parallelz import AsyncResult, Client, Cluster
from parallelz.errors import EngineError, ImpossibleDependency

pytestmark = [pytest.mark.process, pytest.mark.slow]

SEEDS = [int(seed) for seed in os.environ.get("PARALLELZ_SEEDS", "1,2").split(",")]
KILLS = 3
TIMEOUT_S = 60
LARGE_BYTES = 1_200_000  # too large for the database
RETRIES = 3


def make_work(directory: Path) -> Callable[..., tuple[int, bytes]]:
    path = str(directory)

    def work(number: int, seconds: float, blob: bytes, *earlier: tuple[int, bytes]) -> object:
        descriptor = os.open(f"{path}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{number}\n".encode())
        os.close(descriptor)
        time.sleep(seconds)
        return 3 * number + sum(value for value, _ in earlier), blob

    return work  # type: ignore[return-value]


class Killer(threading.Thread):
    """Kills the controller, and with it sometimes its recorder and an engine."""

    def __init__(self, rc: Client, seed: int) -> None:
        super().__init__()
        self._rc = rc
        self._chance = random.Random(seed)
        self._pause = threading.Event()
        self.has_killed_engines = False

    def run(self) -> None:
        chance = self._chance
        cluster = self._rc.cluster
        assert isinstance(cluster, Cluster)
        for _ in range(KILLS):
            self._pause.wait(chance.uniform(0.2, 1.2))
            assert cluster.controller is not None
            pid = cluster.controller.pid
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(pid).children()
                if children and chance.random() < 0.4:
                    children[0].kill()
                psutil.Process(pid).kill()
            self._pause.wait(chance.uniform(0, 0.4))
            engines = list(self._rc.connection.ledger.engines.values())
            if engines and chance.random() < 0.4:
                self.has_killed_engines = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(engines).peer.pid, signal.SIGKILL)


class Load:
    """Submits all kinds of tasks, and knows what they must come to."""

    def __init__(self, rc: Client, work: Callable[..., tuple[int, bytes]], seed: int) -> None:
        self._rc = rc
        self._work = work
        self._chance = random.Random(seed)
        self._once = rc.load_balanced_view()
        self._again = rc.load_balanced_view(retries=RETRIES)
        self.results: dict[int, AsyncResult] = {}
        self.expected: dict[int, int] = {}
        self.repeatable: set[int] = set()

    def submit(self) -> None:
        chance, number = self._chance, len(self.expected)
        blob = bytes(LARGE_BYTES if chance.random() < 0.03 else chance.randrange(100))
        args = (number, chance.uniform(0, 0.004), blob)
        kind = chance.random()
        value = 3 * number
        if kind < 0.5 or not self.results or (kind > 0.8 and not self._rc.ids):
            result = self._once.apply_async(self._work, *args)
        elif kind < 0.7:
            self.repeatable.add(number)
            result = self._again.apply_async(self._work, *args)
        elif kind < 0.8:
            earlier = chance.choice(list(self.results))
            value += self.expected[earlier]
            try:
                result = self._once.apply_async(self._work, *args, self.results[earlier])
            except EngineError:
                return  # that one was lost with its engine
        else:
            result = self._rc[chance.choice(self._rc.ids)].apply_async(self._work, *args)
        self.results[number] = result
        self.expected[number] = value


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_hangs_is_wrong_or_runs_twice_whatever_dies(tmp_path: Path, seed: int) -> None:
    started = tmp_path / "started"
    started.mkdir()
    with Cluster(n=3, profile_dir=tmp_path / "profile", restart=True) as rc:
        load = Load(rc, make_work(started), seed)
        killer = Killer(rc, seed)
        killer.start()
        while killer.is_alive():
            load.submit()
            rc.connection.wait(lambda: False, 0.001)
        killer.join()
        failures = Counter[str]()
        for number, result in load.results.items():
            try:
                value, _ = result.get(TIMEOUT_S)
                assert value == load.expected[number]
            except (EngineError, ImpossibleDependency) as error:
                failures[type(error).__name__] += 1
        assert killer.has_killed_engines or not failures
        counts = Counter(
            int(line) for path in started.iterdir() for line in path.read_text().split()
        )
        for number, count in counts.items():
            assert count <= (1 + RETRIES if number in load.repeatable else 1), number
        ids = [task_id for result in load.results.values() for task_id in result.msg_ids]
        check_history(rc, ids)


def check_history(rc: Client, task_ids: list[str]) -> None:
    """Check that each task ends in the database, once the last recovery is over."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        records = rc.db_query({"msg_id": {"$in": task_ids}}, keys=["completed"])
        assert len(records) == len(task_ids)
        if all(record["completed"] is not None for record in records):
            return
        assert time.monotonic() < give_up_s, "some tasks never ended in the database"
