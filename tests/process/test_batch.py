"""Engines as jobs of batch systems that cannot run here, by fakes of their commands."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers_controllers import ControllerSuite
from helpers_launchers import TIMEOUT_S, LauncherSuite, N, wait_until

from parallelz import Cluster, ClusterError, settings
from parallelz.launch import batch, batch_queue
from parallelz.launch.batch_queue import FAILURES_MAX, BatchQueue
from parallelz.launch.registry import controller_launcher

pytestmark = [pytest.mark.process, pytest.mark.slow]

FAKE = Path(__file__).parents[1] / "fake_batch.py"
COMMANDS = ("qsub", "qstat", "qdel", "qsig", "qacct", "bsub", "bjobs", "bkill")
COMMANDS += ("condor_submit", "condor_q", "condor_rm", "condor_history")
SYSTEMS = ("pbs", "sge", "lsf", "htcondor")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the fakes on the path; return the directory whose files make them misbehave."""
    programs, state = tmp_path / "bin", tmp_path / "fake"
    programs.mkdir()
    state.mkdir()
    for name in COMMANDS:
        program = programs / name
        program.write_text(f"#!{sys.executable} -SE\n" + FAKE.read_text())
        program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_BATCH", str(state))
    return state


def fresh_queue(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the test have a queue of its own, which nobody has made fail before."""
    monkeypatch.setenv("FAKE_BATCH_SYSTEM", name)
    engines = batch.ENGINES[name]
    queue = BatchQueue(engines.system)
    monkeypatch.setattr(engines, "queue", queue)
    monkeypatch.setattr(controller_launcher(name), "queue", queue)


class _Fake(LauncherSuite):
    name: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _system(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh_queue(monkeypatch, self.name)


class TestPBS(_Fake):
    name = "pbs"
    options: ClassVar[dict[str, Any]] = {"engines": "pbs", "launcher_options": {"nodes": 2}}


class TestLSF(_Fake):
    name = "lsf"
    options: ClassVar[dict[str, Any]] = {"engines": "lsf"}


class TestSGE(_Fake):
    name = "sge"
    options: ClassVar[dict[str, Any]] = {"engines": "sge"}

    def test_a_signal_reaches_what_engines_do(self, cluster: Cluster, tmp_path: Path) -> None:
        with cluster, pytest.raises(ClusterError, match="sge cannot send signals"):
            cluster.signal_engines_sync(10)


class TestHTCondor(_Fake):
    name = "htcondor"
    options: ClassVar[dict[str, Any]] = {"engines": "htcondor"}

    def test_a_signal_reaches_what_engines_do(self, cluster: Cluster, tmp_path: Path) -> None:
        with cluster, pytest.raises(ClusterError, match="htcondor cannot send signals"):
            cluster.signal_engines_sync(10)


class _FakeController(ControllerSuite):
    name: ClassVar[str]
    prelude = (
        "import parallelz.launch.batch_controller as b;"
        " b.OWNER_SIGN_PERIOD_S, b.OWNER_SILENCE_S = 0.1, 2;"
    )

    @pytest.fixture(autouse=True)
    def _system(self, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fresh_queue(monkeypatch, self.name)


class TestPBSController(_FakeController):
    name = "pbs"
    section = "PBSController"
    options: ClassVar[dict[str, Any]] = {"controller": "pbs", "engines": "pbs"}


class TestSGEController(_FakeController):
    name = "sge"
    section = "SGEController"
    options: ClassVar[dict[str, Any]] = {"controller": "sge"}


class TestLSFController(_FakeController):
    name = "lsf"
    section = "LSFController"
    options: ClassVar[dict[str, Any]] = {"controller": "lsf"}


class TestHTCondorController(_FakeController):
    name = "htcondor"
    section = "HTCondorController"
    options: ClassVar[dict[str, Any]] = {"controller": "htcondor"}


@pytest.fixture(params=SYSTEMS)
def cluster(
    request: pytest.FixtureRequest, fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    fresh_queue(monkeypatch, request.param)
    return Cluster(n=1, profile_dir=tmp_path / "profile", engines=request.param)


def test_a_job_that_never_starts_says_why(cluster: Cluster, fake: Path) -> None:
    (fake / "hold").write_text("nobody has so much memory here")
    cluster.engine_timeout = 2.0
    with pytest.raises(TimeoutError, match=r"job 1.* waits: .*(so much memory|in the state)"):
        cluster.start_and_connect_sync()
    assert cluster.engine_sets == {}


def test_all_that_can_be_stopped_is_if_jobs_are_not_cancelled(
    cluster: Cluster, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "REFUSAL_WAIT_S", 0.1)
    (fake / "hold").write_text("later")
    cluster.start_cluster_sync()
    added = cluster.start_engines_sync(1, engines="local")
    jobs, local = cluster.engine_sets["1"], cluster.engine_sets[added]
    controller = cluster.controller
    assert controller is not None
    (fake / "refuse").write_text("these are not yours")
    with pytest.raises(ClusterError, match=r"has not cancelled the jobs 1.*: .* not yours"):
        cluster.stop_cluster_sync()
    assert [controller.state, local.state, jobs.state] == ["after", "after", "running"]
    assert not settings.cluster_file(cluster.profile_dir, cluster.cluster_id).exists()
    (fake / "refuse").unlink()
    cluster.stop_cluster_sync()
    assert jobs.state == "after"
    assert cluster.engine_sets == {}


def test_a_system_is_asked_for_the_state_of_a_set(cluster: Cluster, fake: Path) -> None:
    (fake / "hold").write_text("later")
    cluster.start_cluster_sync()
    facts = cluster.engine_sets["1"].to_facts()
    assert batch.state_of_jobs(facts) == "waiting"
    (fake / "fail").write_text("the server is on holiday")
    assert batch.state_of_jobs(facts) == "unknown"
    (fake / "fail").unlink()
    cluster.stop_cluster_sync()
    assert batch.state_of_jobs(facts) in {"ended", "unknown"}  # where nothing is kept


def test_a_job_that_is_lost_has_ended(
    cluster: Cluster, fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_queue, "UNSEEN_GRACE_S", 0.5)
    with cluster as rc:
        engines = cluster.engine_sets["1"]
        wait_until(rc, lambda: not engines.why_waiting())  # it was listed
        (fake / "lose").touch()
        assert engines.wait(TIMEOUT_S)
        assert "does not know it any more" in engines.explain_end()
        (fake / "lose").unlink()
        rc.shutdown()  # the system has forgotten it, and we have not


@pytest.mark.parametrize("switch", ["fail", "garbage"])
def test_engines_outlive_a_queue_that_does_not_work(
    cluster: Cluster, fake: Path, switch: str
) -> None:
    with cluster as rc:
        queue = type(cluster.engine_sets["1"]).queue  # type: ignore[attr-defined]
        (fake / switch).write_text("the server is on holiday")
        queue.hurry()
        give_up_s = time.monotonic() + TIMEOUT_S
        while not queue.is_open:
            assert time.monotonic() < give_up_s
            queue.hurry()
            threading.Event().wait(0.1)
        assert cluster.engine_sets["1"].state == "running"
        assert rc[0].apply_sync(lambda: 1) == 1
        with pytest.raises(ClusterError, match=r"has not worked lately: .*holiday"):
            cluster.start_engines_sync(1)
        (fake / switch).unlink()
        queue.hurry()
        give_up_s = time.monotonic() + TIMEOUT_S
        while queue.is_open:
            assert time.monotonic() < give_up_s
            threading.Event().wait(0.1)
        cluster.start_engines_sync(1)
        rc.wait_for_engines(2, timeout=TIMEOUT_S)


def test_the_first_failure_of_a_submission_is_told(cluster: Cluster, fake: Path) -> None:
    (fake / "fail").write_text("no such project")
    with pytest.raises(ClusterError, match="failed with exit code 1: no such project"):
        cluster.start_cluster_sync()
    assert FAILURES_MAX > 1


def test_where_no_jobs_can_be_submitted_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_queue(monkeypatch, "lsf")
    cluster = Cluster(n=N, profile_dir=tmp_path, engines="lsf")
    with pytest.raises(ClusterError, match="there is no program 'bsub' here"):
        cluster.start_cluster_sync()
