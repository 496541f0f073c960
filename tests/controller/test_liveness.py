"""What a broken line means, asked of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from parallelz.controller.liveness import Verdict, judge
from parallelz.protocol.messages import PeerInfo

HERE = "this host"


def peer(pid: int, host_id: str = HERE) -> PeerInfo:
    return PeerInfo("name", host_id, pid)


def test_process_that_lives_is_only_out_of_reach() -> None:
    assert judge(peer(os.getpid()), HERE) is Verdict.AWAY


def test_process_of_another_host_cannot_be_looked_at() -> None:
    assert judge(peer(os.getpid(), "another host"), HERE) is Verdict.AWAY


@pytest.mark.parametrize("pid", [0, -1])
def test_pid_that_cannot_be_harms_nobody(pid: int) -> None:
    assert judge(peer(pid), HERE) is Verdict.AWAY


def test_pid_beyond_all_is_of_no_process() -> None:
    assert judge(peer(2**40), HERE) is Verdict.DEAD


@pytest.mark.process
def test_stopped_process_is_frozen_and_a_killed_one_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert judge(peer(process.pid), HERE) is Verdict.FROZEN
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert judge(peer(process.pid), HERE) is Verdict.DEAD
