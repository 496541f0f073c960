"""Engines as jobs of a real Grid Engine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers_launchers import TIMEOUT_S, LauncherSuite
from helpers_sge import SGE, running_sge

from parallelz import Cluster, ClusterError, EngineError

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def sge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SGE]:
    with running_sge(tmp_path_factory.mktemp("sge")) as running:
        yield running


@pytest.fixture(autouse=True)
def _configuration(sge: SGE, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sge.environment.items():
        monkeypatch.setenv(name, value)


def sge_cluster(profile_dir: Path, n: int, **options: Any) -> Cluster:
    return Cluster(n=n, profile_dir=profile_dir, engines="sge", launcher_options=options)


class _OverSGE(LauncherSuite):
    def test_a_signal_reaches_what_engines_do(self, cluster: Cluster, tmp_path: Path) -> None:
        with cluster, pytest.raises(ClusterError, match="sge cannot send signals"):
            cluster.signal_engines_sync(10)


class TestSGE(_OverSGE):
    options: ClassVar[dict[str, Any]] = {"engines": "sge"}


class TestSGEOverNodes(_OverSGE):
    options: ClassVar[dict[str, Any]] = {
        "engines": "sge",
        "launcher_options": {"nodes": 2, "walltime": "10:00", "queue": "all.q"},
    }


def test_jobs_have_what_was_asked_for(tmp_path: Path) -> None:
    def job_facts() -> dict[str, str]:
        import os
        import resource

        memory, _ = resource.getrlimit(resource.RLIMIT_AS)
        names = ("JOB_ID", "NSLOTS", "PE", "QUEUE")
        return {"memory": str(memory), **{name: os.environ.get(name, "") for name in names}}

    asked = {"nodes": 2, "cores": 2, "memory": "8GB", "queue": "all.q", "walltime": 600}
    with sge_cluster(tmp_path, 3, **asked) as rc:
        facts = rc[:].apply_sync(job_facts)
        by_job = sorted(facts, key=lambda each: each["JOB_ID"])
        assert [each["NSLOTS"] for each in by_job] == ["4", "4", "2"]
        assert {each["PE"] for each in facts} == {"smp"}
        assert {each["QUEUE"] for each in facts} == {"all.q"}
        assert isinstance(rc.cluster, Cluster)
        jobs = rc.cluster.engine_sets["1"].to_facts().details["jobs"].split()
        assert {each["JOB_ID"] for each in facts} == set(jobs)


def test_a_parallel_environment_can_be_chosen(tmp_path: Path) -> None:
    with sge_cluster(tmp_path, 2, parallel_environment="spare") as rc:
        assert rc[:].apply_sync(os.getenv, "PE") == ["spare"] * 2
    with pytest.raises(ClusterError, match=r"\"nosuch\" does not exist[^`]*`qconf -spl` lists"):
        sge_cluster(tmp_path, 2, parallel_environment="nosuch").start_cluster_sync()


def test_a_job_that_never_starts_says_why(tmp_path: Path) -> None:
    cluster = sge_cluster(tmp_path, 1, queue="closed.q")
    cluster.engine_timeout = 5.0
    why = r'sge job \d+ waits: in the state qw; .*"closed.q@localhost" .* disabled'
    with pytest.raises(TimeoutError, match=why), cluster:
        pass


def test_what_qsub_says_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"qsub failed .*unknown queue .nowhere"):
        sge_cluster(tmp_path, 1, queue="nowhere").start_cluster_sync()


def test_a_job_that_is_cancelled_behind_our_back_is_told(tmp_path: Path) -> None:
    cluster = sge_cluster(tmp_path, 1)
    with cluster as rc:
        engines = cluster.engine_sets["1"]
        result = rc[0].apply_async(time.sleep, TIMEOUT_S)
        subprocess.run(["qdel", engines.to_facts().details["jobs"]], check=True)
        with pytest.raises(EngineError):
            result.get(TIMEOUT_S)
        assert engines.wait(TIMEOUT_S)
        assert "with exit code 137" in engines.explain_end()


def test_what_fails_in_a_job_is_told(tmp_path: Path) -> None:
    cluster = sge_cluster(tmp_path, 1, python="/no/such/python")
    with pytest.raises(ClusterError, match="exit code 127") as caught:
        cluster.start_and_connect_sync()
    assert "/no/such/python" in str(caught.value)
