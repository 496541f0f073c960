"""When a controller is started again, and when not: shown with scripts in its place."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from parallelz import settings
from parallelz.launch import cluster_file
from parallelz.launch.cluster_file import ClusterFacts
from parallelz.launch.launcher import ControllerOptions, Place
from parallelz.launch.local_controller import (
    RESTARTS_MAX,
    RESTARTS_PERIOD_S,
    LocalController,
    RestartLimit,
)

TIMEOUT_S = 10
SAY_READY = (
    "import os, sys, time; sys.argv[1] != 'None' and os.write(int(sys.argv[1]), b'ready')"
)
SLEEP = f"{SAY_READY}; time.sleep(60)"
DIE = f"{SAY_READY}; print('no more'); sys.exit(3)"


class ScriptController(LocalController):
    """Starts a few lines of Python as the controller, and other lines after the first death."""

    def __init__(self, profile_dir: Path, first: str, then: str) -> None:
        self.profile_dir = profile_dir
        self.socket_dir = cluster_file.establish(profile_dir, "")
        place = Place(profile_dir, "", os.getpid())
        super().__init__(place, ControllerOptions(), changing_facts=self.changing)
        self._first, self._then = first, then

    def _command(self, *, ready_fd: int | None = None, resume: bool = False) -> list[str]:
        code = self._then if resume else self._first
        return [sys.executable, "-c", code, str(ready_fd)]

    def changing(self) -> AbstractContextManager[ClusterFacts]:
        return cluster_file.changing(self.profile_dir, "", socket_dir=self.socket_dir)

    def written_pid(self) -> int:
        facts = cluster_file.read(settings.cluster_file(self.profile_dir, ""))
        assert facts is not None
        assert facts.controller is not None
        return facts.controller.pid

    def begin(self) -> None:
        """Start it and wait until it is ready, as a cluster does."""
        with self.changing() as facts:
            self.start()
            facts.controller = self.to_facts()
        self.wait_ready(TIMEOUT_S)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Told(logging.Handler):
    """Keeps what is logged, for tests to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.put(record.getMessage())

    def next(self) -> str:
        return self.texts.get(timeout=TIMEOUT_S)


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logger = logging.getLogger("parallelz.launch.local_controller")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[ScriptController]]:
    controllers: list[ScriptController] = []
    yield controllers
    for controller in controllers:
        controller.stop(grace_s=0)
        cluster_file.release(tmp_path / "p", "", socket_dir=controller.socket_dir)


def begin(
    made: list[ScriptController], tmp_path: Path, first: str = SLEEP, then: str = SLEEP
) -> ScriptController:
    controller = ScriptController(tmp_path / "p", first, then)
    made.append(controller)
    controller.begin()
    return controller


def test_a_few_restarts_in_a_short_time_are_allowed_and_then_no_more() -> None:
    limit = RestartLimit()
    assert [limit.allows_one_more(float(n)) for n in range(RESTARTS_MAX + 2)] == [
        *[True] * RESTARTS_MAX,
        False,
        False,
    ]


def test_restarts_that_are_far_apart_are_always_allowed() -> None:
    limit = RestartLimit()
    apart_s = RESTARTS_PERIOD_S / RESTARTS_MAX
    assert all(limit.allows_one_more(n * apart_s) for n in range(100))


@pytest.mark.process
def test_a_killed_controller_is_started_again_and_written_down(
    made: list[ScriptController], tmp_path: Path, told: Told
) -> None:
    controller = begin(made, tmp_path)
    before = controller.pid
    controller.kill()
    text = told.next()
    assert controller.state == "running"
    assert controller.poll() is None
    assert controller.pid != before
    assert controller.written_pid() == controller.pid
    assert text == (
        f"the controller was killed by signal 9 (SIGKILL); started again (pid {controller.pid})"
    )


@pytest.mark.process
def test_a_controller_that_dies_all_the_time_is_given_up_with_its_first_and_last_words(
    made: list[ScriptController], tmp_path: Path, told: Told
) -> None:
    ended = threading.Event()
    controller = ScriptController(
        tmp_path / "p", f"print('the cause', flush=True); {SLEEP}", DIE
    )
    made.append(controller)
    controller.on_stop(ended.set)
    controller.begin()
    controller.kill()
    assert ended.wait(TIMEOUT_S)
    assert (controller.state, controller.poll(), controller.has_failed) == ("after", 3, True)
    restarts = [told.next() for _ in range(RESTARTS_MAX)]
    assert all("started again" in text for text in restarts)
    assert told.next() == controller.explain_end()
    assert controller.explain_end().startswith(
        "the controller ended with exit code 3. It died 6 times within 60 s and is not"
        " started again. Its last words:\n\n"
    )
    assert "no more" in controller.explain_end()
    log = controller.log.read_text()
    assert log.startswith(
        "the cause\n"
        "= the controller was killed by signal 9 (SIGKILL); another one begins here\n"
    )
    assert log.count("no more") == RESTARTS_MAX


@pytest.mark.process
@pytest.mark.parametrize("code", ["0", "-signal.SIGTERM", "-signal.SIGINT"])
def test_a_controller_that_was_told_to_end_stays_away(
    made: list[ScriptController], tmp_path: Path, code: str
) -> None:
    end = "signal.signal(signal.SIGINT, signal.SIG_DFL); code and os.kill(os.getpid(), -code)"
    controller = begin(made, tmp_path, f"import signal; code = {code}; {SAY_READY}; {end}")
    assert controller.wait(TIMEOUT_S)
    assert not controller.has_failed


@pytest.mark.process
def test_a_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    controller = ScriptController(tmp_path / "p", "raise SystemExit('no such luck')", SLEEP)
    with pytest.raises(Exception, match="no such luck"):
        controller.begin()
    assert (controller.state, controller.has_failed) == ("after", False)
    cluster_file.release(tmp_path / "p", "", socket_dir=controller.socket_dir)


@pytest.mark.process
def test_a_controller_that_dies_while_it_is_stopped_stays_away(
    made: list[ScriptController], tmp_path: Path
) -> None:
    controller = begin(made, tmp_path)
    with controller.changing():  # nobody can be started meanwhile
        controller.kill()
        controller.terminate()
    assert controller.wait(TIMEOUT_S)
    assert (controller.poll(), controller.has_failed) == (-signal.SIGKILL, False)


@pytest.mark.process
def test_a_controller_that_dies_while_another_process_stops_it_stays_away(
    made: list[ScriptController], tmp_path: Path
) -> None:
    controller = begin(made, tmp_path)
    with controller.changing() as facts:
        controller.kill()
        facts.is_stopping = True
    assert controller.wait(TIMEOUT_S)
    assert not controller.has_failed


@pytest.mark.process
def test_a_controller_whose_files_are_gone_stays_away(
    made: list[ScriptController], tmp_path: Path
) -> None:
    controller = begin(made, tmp_path)
    cluster_file.release(tmp_path / "p", "", socket_dir=controller.socket_dir)
    controller.kill()
    assert controller.wait(TIMEOUT_S)
    assert not controller.has_failed


@pytest.mark.process
def test_a_controller_that_was_left_to_itself_stays_away(
    made: list[ScriptController], tmp_path: Path
) -> None:
    controller = begin(made, tmp_path)
    controller.leave()
    controller.kill()
    assert controller.wait(TIMEOUT_S)


@pytest.mark.process
def test_what_another_process_started_is_that_one_s_to_start_again(
    made: list[ScriptController], tmp_path: Path, told: Told
) -> None:
    controller = begin(made, tmp_path)
    other = LocalController.from_facts(
        controller.to_facts(), Place(tmp_path / "p", "", os.getpid())
    )
    assert (other.is_taken_up, controller.is_taken_up) == (True, False)
    controller.kill()
    assert other.wait(TIMEOUT_S)
    assert told.next()
    assert controller.state == "running"


@pytest.mark.process
def test_a_controller_that_cannot_be_started_again_is_given_up(
    made: list[ScriptController], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = begin(made, tmp_path)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    controller.kill()
    assert controller.wait(TIMEOUT_S)
    assert controller.has_failed
    assert "cannot be started again: [Errno 2] No such file" in controller.explain_end()
