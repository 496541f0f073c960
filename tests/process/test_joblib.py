"""Engines as a backend of joblib."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest

import parallelz
from parallelz import Client, LoadBalancedView, RemoteError

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def _backend(lv: LoadBalancedView) -> Iterator[None]:
    lv.register_joblib_backend()
    with joblib.parallel_config(backend="parallelz"):
        yield


def test_jobs_run_on_engines_and_come_back_in_order(rc: Client) -> None:
    pids = rc[:].apply_sync(os.getpid)
    found = joblib.Parallel()(joblib.delayed(lambda x: (x, os.getpid()))(x) for x in range(100))
    assert [x for x, _ in found] == list(range(100))
    assert {pid for _, pid in found} <= set(pids)


def test_all_engines_are_the_usual_number_of_jobs() -> None:
    assert joblib.effective_n_jobs() == 2
    assert joblib.effective_n_jobs(-1) == 2
    assert joblib.effective_n_jobs(1) == 1
    assert joblib.effective_n_jobs(64) == 2


def test_what_a_job_raises_is_raised_and_the_backend_can_be_used_again() -> None:
    def fail_at_seven(x: int) -> int:
        if x == 7:
            raise ValueError(f"bad {x}")
        return x

    with pytest.raises(ValueError, match="bad 7") as caught:
        joblib.Parallel()(joblib.delayed(fail_at_seven)(x) for x in range(1000))
    assert isinstance(caught.value, RemoteError)
    assert joblib.Parallel()(joblib.delayed(fail_at_seven)(x) for x in range(3)) == [0, 1, 2]


def test_a_time_out_is_kept(rc: Client) -> None:
    def wait() -> None:
        threading.Event().wait(60)

    with pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(timeout=0.2)([joblib.delayed(wait)()])
    rc.interrupt()
    assert joblib.Parallel()([joblib.delayed(abs)(-1)]) == [1]


def test_results_can_be_had_as_they_come(tmp_path: Path) -> None:
    def wait_for(path: str) -> str:
        while path and not os.path.exists(path):
            threading.Event().wait(0.01)
        return path

    late = str(tmp_path / "go")
    jobs = [joblib.delayed(wait_for)(path) for path in (late, "")]
    found = joblib.Parallel(return_as="generator_unordered", batch_size=1)(jobs)
    assert next(found) == ""
    Path(late).touch()
    assert list(found) == [late]


def test_a_parallel_inside_a_job_runs_where_the_job_does() -> None:
    def outer(x: int) -> list[int]:
        import joblib

        return list(joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(x, y) for y in range(3)))

    found = joblib.Parallel()(joblib.delayed(outer)(x) for x in range(3))
    assert found == [[1, 0, 0], [1, 1, 1], [1, 2, 4]]


def test_the_backend_can_find_the_cluster_by_itself(
    cluster_profile_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Client] = []

    class Found(Client):
        def __init__(self) -> None:
            super().__init__(profile_dir=cluster_profile_dir)
            made.append(self)

    monkeypatch.setattr("parallelz.client.client.Client", Found)
    parallelz.register_joblib_backend("found")
    with joblib.parallel_config(backend="found"):
        assert joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
    made[0].close()
