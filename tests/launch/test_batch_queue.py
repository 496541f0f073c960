"""The commands of a batch system that fail, hang or are not there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from parallelz.errors import ClusterError
from parallelz.launch import batch_queue
from parallelz.launch.batch import BatchEngines, PBSEngines
from parallelz.launch.batch_queue import FAILURES_MAX, BatchQueue, QueueError
from parallelz.launch.batch_system import Job
from parallelz.launch.launcher import Place
from parallelz.launch.pbs import PBS

TIMEOUT_S = 20

LISTED = "printf 'Job Id: 1.s\\n    job_state = R\\nJob Id: 2.s\\n    job_state = R\\n'"
GONE = "echo 'qstat: Unknown Job Id 1.s' >&2; exit 153"


class Programs:
    """Shell commands that stand for those of PBS."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, **bodies: str) -> None:
        for name, body in bodies.items():
            made = self._directory / f".{name}"
            made.write_text(f"#!/bin/sh\n{body}\n")
            made.chmod(0o700)
            made.replace(self._directory / name)  # never half a program

    def forbid(self, name: str) -> None:
        """Leave a file that may be executed, and is no program."""
        (self._directory / name).write_bytes(b"\0")


class Held:
    """A set with some jobs, which notes when all have ended."""

    def __init__(self, *job_ids: str) -> None:
        self.jobs = dict.fromkeys(job_ids, Job("waiting"))
        self.ended = threading.Event()

    is_stopping = False

    @property
    def open_jobs(self) -> Sequence[str]:
        return [job_id for job_id, job in self.jobs.items() if job.state != "ended"]

    def take(self, job_id: str, job: Job) -> None:
        self.jobs[job_id] = job
        if not self.open_jobs:
            self.ended.set()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setattr(batch_queue, "SUBMIT_PERIOD_S", 0.0)
    monkeypatch.setattr(batch_queue, "PERIOD_FIRST_S", 0.02)
    monkeypatch.setattr(batch_queue, "PERIOD_MAX_S", 0.1)
    monkeypatch.setattr(batch_queue, "UNSEEN_GRACE_S", 0.0)
    return Programs(directory)


@pytest.fixture
def engines(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BatchEngines:
    monkeypatch.setattr(PBSEngines, "queue", BatchQueue(PBS()))
    (tmp_path / "log").mkdir()
    programs.write(qsub='echo "$(basename "$1" | tr -dc 0-9).s"', qstat=LISTED, qdel="exit 0")
    return PBSEngines(Place(tmp_path, "", None), 2, launcher_options={"nodes": 2})


def end(programs: Programs, engines: BatchEngines) -> None:
    """Have no job left, and nobody who asks for one."""
    programs.write(qstat=GONE)
    engines.queue.hurry()
    assert engines.wait(TIMEOUT_S)


def test_refused_submissions_do_not_keep_later_ones_from_the_system(
    programs: Programs,
) -> None:
    queue = BatchQueue(PBS())
    programs.write(qsub="echo no such queue >&2; exit 1")
    for _ in range(FAILURES_MAX + 1):
        with pytest.raises(QueueError, match="exit code 1: no such queue"):
            queue.submit("", "job")
    programs.write(qsub="echo 7.s")
    assert queue.submit("", "job") == "7.s"


def test_a_command_that_hangs_leaves_the_others_to_be_asked(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_queue, "COMMAND_TIMEOUT_S", 0.5)
    programs.write(qstat=f'[ "$1" = -x ] && exec sleep 60\n{GONE}')
    held = Held("1.s")
    BatchQueue(PBS()).watch(held)
    assert held.ended.wait(TIMEOUT_S)
    assert "does not know it any more" in held.jobs["1.s"].why


def test_a_program_that_cannot_be_run_is_asked_again(programs: Programs) -> None:
    programs.write(qstat=LISTED)
    programs.forbid("qstat")
    queue = BatchQueue(PBS())
    held = Held("1.s")
    queue.watch(held)
    give_up_s = time.monotonic() + TIMEOUT_S
    while not queue.is_open:
        assert time.monotonic() < give_up_s
        held.ended.wait(0.02)
    assert "qstat" in queue.last_error
    programs.write(qstat=GONE)
    assert held.ended.wait(TIMEOUT_S)
    assert not queue.is_open


def test_jobs_that_end_before_they_are_cancelled_are_stopped(
    programs: Programs, engines: BatchEngines
) -> None:
    engines.start()
    programs.write(qstat=GONE, qdel="echo 'qdel: Job has finished 1.s' >&2; exit 35")
    engines.stop()
    assert engines.state == "after"


def test_a_system_that_takes_long_to_cancel_is_asked_less_and_less(
    programs: Programs,
    engines: BatchEngines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("parallelz.launch.batch.CANCEL_TIMEOUT_S", 3.0)
    monkeypatch.setattr(batch_queue, "PERIOD_MAX_S", 15.0)
    engines.start()
    asked = tmp_path / "asked"
    programs.write(qstat=f"echo >> {asked}\n{LISTED}")
    with pytest.raises(ClusterError, match=r"has not ended jobs 1\.s 2\.s within 3 s"):
        engines.stop(grace_s=0.0)
    assert 1 <= len(asked.read_text()) <= 9  # periods add up to 3 s in 7 steps from 0.02 s
    end(programs, engines)


def test_a_job_that_is_not_listed_for_a_moment_has_not_ended(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_queue, "UNSEEN_GRACE_S", 60.0)
    times = tmp_path / "times"
    first = f"printf x >> {times}; [ $(wc -c < {times}) = 4 ]"
    programs.write(qstat=f'[ "$1" = -x ] && exit 1\n{first} && {{ {LISTED}; exit; }}\n{GONE}')
    held = Held("1.s")
    queue = BatchQueue(PBS())
    queue.watch(held)
    give_up_s = time.monotonic() + TIMEOUT_S
    while not times.exists() or len(times.read_text()) < 8:
        assert time.monotonic() < give_up_s
        assert not held.ended.wait(0.02)
    assert held.jobs["1.s"] == Job("running")
    held.is_stopping = True  # then it has, if it is not listed
    assert held.ended.wait(TIMEOUT_S)


def test_a_cancellation_that_is_refused_is_told(
    programs: Programs, engines: BatchEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallelz.launch.batch.REFUSAL_WAIT_S", 0.3)
    engines.start()
    programs.write(qdel="echo 'qdel: Unauthorized Request' >&2; exit 159")
    with pytest.raises(ClusterError, match="Unauthorized Request"):
        engines.terminate()
    assert engines.state == "running"
    assert not engines.is_stopping
    end(programs, engines)


def test_jobs_that_a_failed_start_leaves_are_named(
    programs: Programs, engines: BatchEngines
) -> None:
    programs.write(
        qsub='case "$1" in *job-1.sh) echo 1.s;; *) echo no more >&2; exit 1;; esac',
        qdel="echo no server >&2; exit 1",
    )
    with pytest.raises(ClusterError, match=r"no more.*1\.s.*no server"):
        engines.start()


def test_jobs_are_taken_up_without_the_template_they_were_made_of(
    programs: Programs, engines: BatchEngines, tmp_path: Path
) -> None:
    engines.start()
    moved = {**engines.launcher_options, "template": str(tmp_path / "no such file")}
    facts = msgspec.structs.replace(engines.to_facts(), launcher_options=moved)
    other = PBSEngines.from_facts(facts, Place(tmp_path, "", None), set_id="1")
    assert other.state == "running"
    end(programs, other)
