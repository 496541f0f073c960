"""Engines as jobs of a real Slurm."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers_controllers import ControllerSuite, controller_process, wait_for_end
from helpers_launchers import TIMEOUT_S, LauncherSuite, wait_until
from helpers_slurm import Slurm, running_slurm

from parallelz import Cluster, ClusterError, EngineError
from parallelz.cli.common import DONE, FAILED
from parallelz.cli.ipclusterz import main
from parallelz.cluster import ClusterRunning

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with running_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(autouse=True)
def _configuration(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)


def slurm_cluster(profile_dir: Path, n: int, **options: Any) -> Cluster:
    return Cluster(n=n, profile_dir=profile_dir, engines="slurm", launcher_options=options)


class TestSlurm(LauncherSuite):
    options: ClassVar[dict[str, Any]] = {"engines": "slurm"}


class TestSlurmOverNodes(LauncherSuite):
    options: ClassVar[dict[str, Any]] = {
        "engines": "slurm",
        "launcher_options": {"nodes": 2, "walltime": "10:00", "queue": "main"},
    }


def test_jobs_have_what_was_asked_for(tmp_path: Path) -> None:
    def job_facts() -> dict[str, str]:
        import os

        names = ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK")
        return {name: os.environ.get(name, "") for name in names}

    with slurm_cluster(tmp_path, 3, nodes=2, cores=2) as rc:
        facts = rc[:].apply_sync(job_facts)
        by_job = sorted(facts, key=lambda each: each["SLURM_JOB_ID"])
        assert sorted(each["SLURM_CPUS_PER_TASK"] for each in by_job) == ["2", "4", "4"]
        assert isinstance(rc.cluster, Cluster)
        jobs = rc.cluster.engine_sets["1"].to_facts().details["jobs"].split()
        assert {each["SLURM_JOB_ID"] for each in facts} == set(jobs)


def test_a_cluster_of_jobs_can_be_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with slurm_cluster(tmp_path, 2, nodes=2) as rc:
        assert isinstance(rc.cluster, Cluster)
        jobs = rc.cluster.engine_sets["1"].to_facts().details["jobs"]
        wait_until(rc, lambda: main(["status", f"--profile-dir={tmp_path}"]) == DONE)
        assert f"engines 1    running  jobs {jobs} " in capsys.readouterr().out
        subprocess.run(["scancel", jobs.split()[0]], check=True)
        wait_until(rc, lambda: main(["status", f"--profile-dir={tmp_path}"]) == FAILED)
        assert "1 ended, 1 running" in capsys.readouterr().out


def test_a_job_that_never_starts_says_why(tmp_path: Path) -> None:
    cluster = slurm_cluster(tmp_path, 1, queue="closed")
    cluster.engine_timeout = 5.0
    with pytest.raises(TimeoutError, match=r"slurm job \d+ waits: PartitionDown"), cluster:
        pass


def test_what_sbatch_says_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"sbatch failed .*invalid partition"):
        slurm_cluster(tmp_path, 1, queue="nowhere").start_cluster_sync()


def test_a_job_that_is_cancelled_behind_our_back_is_told(tmp_path: Path) -> None:
    cluster = slurm_cluster(tmp_path, 1)
    with cluster as rc:
        engines = cluster.engine_sets["1"]
        result = rc[0].apply_async(time.sleep, TIMEOUT_S)
        subprocess.run(["scancel", engines.to_facts().details["jobs"]], check=True)
        with pytest.raises(EngineError):
            result.get(TIMEOUT_S)
        assert engines.wait(TIMEOUT_S)
        assert "CANCELLED" in engines.explain_end()


def test_what_fails_in_a_job_is_told(tmp_path: Path) -> None:
    cluster = slurm_cluster(tmp_path, 1, python="/no/such/python")
    with pytest.raises(
        ClusterError, match=r"exit code 127 \(FAILED NonZeroExitCode\)"
    ) as caught:
        cluster.start_and_connect_sync()
    assert "/no/such/python" in str(caught.value)


def test_engines_drain_before_the_walltime(tmp_path: Path) -> None:
    def run(directory: str, number: int) -> int:
        import time
        from pathlib import Path

        Path(directory, f"begun-{number}").touch()
        time.sleep(1)
        return number

    cluster = slurm_cluster(tmp_path / "profile", 1, walltime=60, drain_s=57)
    with cluster as rc:
        lv = rc.load_balanced_view()
        results = [lv.apply_async(run, str(tmp_path), number) for number in range(10)]
        wait_until(rc, lambda: not rc.ids)
        begun = len(list(tmp_path.glob("begun-*")))
        assert 0 < begun < 10
        assert [result.get(TIMEOUT_S) for result in results[:begun]] == [*range(begun)]
        assert cluster.engine_sets["1"].wait(TIMEOUT_S)
        assert cluster.engine_sets["1"].poll() == 0
        cluster.start_engines_sync(1, launcher_options={}, engines="local")
        assert [result.get(TIMEOUT_S) for result in results] == [*range(10)]


IMPATIENT = (
    "import parallelz.launch.batch_controller as b;"
    " b.OWNER_SIGN_PERIOD_S, b.OWNER_SILENCE_S = 0.1, 2;"
)


class TestSlurmController(ControllerSuite):
    options: ClassVar[dict[str, Any]] = {"controller": "slurm"}
    section = "SlurmController"
    prelude = IMPATIENT


class TestAllInSlurm(ControllerSuite):
    options: ClassVar[dict[str, Any]] = {
        "controller": "slurm",
        "controller_launcher_options": {"walltime": "10:00"},
        "engines": "slurm",
    }
    section = "SlurmController"
    prelude = IMPATIENT

    @property
    def arguments(self) -> list[str]:
        return [*super().arguments, "--engines=slurm"]


def controller_job(profile_dir: Path, **options: Any) -> Cluster:
    return Cluster(
        1, profile_dir=profile_dir, controller="slurm", controller_launcher_options=options
    )


def test_a_controller_that_never_starts_says_why(tmp_path: Path) -> None:
    cluster = controller_job(tmp_path, queue="closed")
    cluster.engine_timeout = 5.0
    with pytest.raises(ClusterError, match=r"ready in 5 s: slurm job \d+ waits: PartitionDown"):
        cluster.start_and_connect_sync()
    assert list((tmp_path / "security").iterdir()) == []
    assert "PENDING" not in subprocess.check_output(["squeue", "-h", "-o", "%T"], text=True)


def test_what_fails_in_the_job_of_a_controller_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"(?s)127.*no/such/python"):
        controller_job(tmp_path, python="/no/such/python").start_and_connect_sync()
    assert list((tmp_path / "security").iterdir()) == []


def test_a_controller_whose_job_is_cancelled_behind_our_back_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with controller_job(tmp_path) as rc:
        assert isinstance(rc.cluster, Cluster)
        controller = rc.cluster.controller
        assert controller is not None
        subprocess.run(["scancel", controller.to_facts().details["jobs"]], check=True)
        assert controller.wait(TIMEOUT_S)
        assert "CANCELLED" in controller.explain_end()


def test_a_controller_in_a_job_outlives_us(tmp_path: Path) -> None:
    code = f"""
import parallelz
cluster = parallelz.Cluster(
    2, profile_dir={str(tmp_path)!r}, controller="slurm", engines="slurm", shutdown_atexit=False
)
with cluster.start_cluster_sync().connect_client_sync() as rc:
    cluster.wait_for_engines_sync(rc, 2)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S)
    controller = controller_process(tmp_path)
    cluster = Cluster.from_file(profile_dir=tmp_path)
    with cluster.connect_client_sync() as rc:
        assert rc[:].apply_sync(abs, -1) == [1, 1]
    with pytest.raises(ClusterRunning):
        Cluster(1, profile_dir=tmp_path, cluster_id="").start_cluster_sync()
    cluster.stop_cluster_sync()
    wait_for_end(controller)
    assert list((tmp_path / "security").iterdir()) == []


def test_a_job_that_starts_too_late_touches_nothing(tmp_path: Path) -> None:
    cluster = controller_job(tmp_path / "late", queue="closed")
    cluster.engine_timeout = 1.0
    with pytest.raises(ClusterError):
        cluster.start_cluster_sync()
    script = tmp_path / "late" / "log" / "controller" / "job-1.sh"
    with Cluster(1, profile_dir=tmp_path / "late") as rc:
        done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "the cluster was stopped before" in done.stderr
        assert rc[0].apply_sync(abs, -1) == 1
