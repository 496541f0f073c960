"""Engines as a backend of joblib."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest

import parallelz
from parallelz import Client, LoadBalancedView, RemoteError

pytestmark = pytest.mark.process

TIMEOUT_S = 10.0


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


@pytest.fixture
def found(
    cluster_profile_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let ``Client()`` find the cluster, and joblib look for it."""
    (tmp_path / "profile_default").symlink_to(cluster_profile_dir)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    parallelz.register_joblib_backend("found")
    with joblib.parallel_config(backend="found"):
        yield


def open_sockets() -> set[str]:
    links = (os.readlink(f.path) for f in os.scandir("/proc/self/fd") if os.path.islink(f))
    return {link for link in links if link.startswith("socket:")}


@contextlib.contextmanager
def nothing_stays() -> Iterator[None]:
    """Check that the block leaves no socket open and no thread behind."""
    sockets, threads = open_sockets(), set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads
    deadline_s = time.monotonic() + TIMEOUT_S
    while not open_sockets() <= sockets:  # libzmq closes them in a thread of its own
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.01)


@pytest.mark.usefixtures("found")
def test_without_a_view_the_cluster_is_found_for_as_long_as_it_is_used() -> None:
    with nothing_stays():
        assert joblib.effective_n_jobs() == 2
    with nothing_stays():
        parallel = joblib.Parallel()
        assert parallel(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
    with nothing_stays():
        assert parallel(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
        assert joblib.Parallel(n_jobs=1)([joblib.delayed(abs)(-1)]) == [1]
    with nothing_stays(), joblib.Parallel(backend="found", n_jobs=-1) as parallel:
        ids = [parallel([joblib.delayed(os.getpid)()]) for _ in range(2)]
        assert [os.getpid()] not in ids


@pytest.mark.usefixtures("found")
def test_what_ends_early_leaves_no_client() -> None:
    with nothing_stays(), pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(divmod)(1, x) for x in (1, 0))
    with nothing_stays(), pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)([joblib.delayed(abs)(-1)])


@pytest.mark.usefixtures("found")
def test_two_at_a_time_have_a_client_each() -> None:
    with nothing_stays():
        arrays = joblib.Parallel(return_as="generator")(
            joblib.delayed(np.ones)(200_000) for _ in range(4)
        )
        first = next(arrays)
        assert joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
        later = list(arrays)
        assert sum(each.sum() for each in (first, *later)) == 800_000  # also without a client
        del first, later, arrays
