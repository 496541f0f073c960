"""``python -m benchmarks.profile {submit,map,roundtrip}``: where the time goes.

The cluster runs as users run it; py-spy looks at client, controller, recorder and engines
from outside, so that small functions look no dearer than they are. Beside its samples stands
what the system counted: the CPU time of each process per task. A `poll` among the samples is
mostly waiting; the CPU time has none of that. Looking at other processes may need rights: the
capability ``SYS_PTRACE`` in a container, ``sudo`` on macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from benchmarks.peers.peer import Peer, with_children

DEFAULT_VENVS = Path(__file__).parent / ".venvs"
SAMPLES_PER_S = 250
NOOPS_PER_RUN = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--lines", type=int, default=15, help="functions per process")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_VENVS, metavar="DIR")
    parser.epilog = "py-spy is taken from the environment DIR/py-spy, else from the PATH."
    args = parser.parse_args()
    found = shutil.which(args.venvs / "py-spy" / "bin" / "py-spy") or shutil.which("py-spy")
    if found is None:
        parser.error("py-spy is not installed: pip install py-spy")
    spy = Path(found)
    with tempfile.TemporaryDirectory(prefix="profile") as directory:
        os.environ["IPYTHONDIR"] = directory
        # Now only: it reads the environment, and needs no cluster to show the help.
        from benchmarks.peers.parallelz_peer import ParallelzPeer

        peer = ParallelzPeer()
        peer.start()
        try:
            _profile(peer, args, spy, Path(directory))
        finally:
            peer.stop()
    return 0


def submit(peer: Peer) -> int:
    from benchmarks.peers.workload import noop

    return len(peer.collect(peer.submit(noop, range(NOOPS_PER_RUN))))


def map_(peer: Peer) -> int:
    return len(peer.map_single(range(NOOPS_PER_RUN)))


def roundtrip(peer: Peer) -> int:
    for number in range(100):
        peer.call(number)
    return 100


WORKS: dict[str, Callable[[Peer], int]] = {
    "submit": submit,
    "map": map_,
    "roundtrip": roundtrip,
}


def processes_of(controller_pid: int) -> dict[str, int]:
    """Return the processes of this process's cluster, by what they are to a reader."""
    named = {"client": os.getpid()}
    engine_count = 0
    for pid in with_children([os.getpid()]):
        command = " ".join(psutil.Process(pid).cmdline())
        if pid == controller_pid:
            named["controller"] = pid
        elif "recorder" in command:
            named["recorder"] = pid
        elif "parallelz.engine" in command and not psutil.Process(pid).children():
            named[f"engine {engine_count}"] = pid
            engine_count += 1
    return named


def _profile(peer: Peer, args: argparse.Namespace, spy: Path, directory: Path) -> None:
    run = WORKS[args.work]
    run(peer)  # what only the first tasks do is not what is asked
    processes = processes_of(peer.controller_pids()[0])
    with _watched(spy, processes, directory):
        before_s = {name: _cpu_s(pid) for name, pid in processes.items()}
        count, begin_s = 0, time.perf_counter()
        while time.perf_counter() - begin_s < args.seconds:
            count += run(peer)
        elapsed_s = time.perf_counter() - begin_s
        used_s = {name: _cpu_s(pid) - before_s[name] for name, pid in processes.items()}
    print(
        f"{args.work}: {count:,} tasks in {elapsed_s:.1f} s, {count / elapsed_s:,.0f} tasks/s,"
    )
    print("a little slower than without being looked at")
    for name in processes:
        share, per_task = used_s[name] / elapsed_s, used_s[name] / count
        print(f"\n{name}: {share:.0%} of a core, {per_task * 1e6:.1f} µs of CPU per task")
        path = directory / f"{name}.raw"
        stacks = parse_stacks(path.read_text()) if path.exists() else Counter()
        print(render_profile(stacks, args.lines))


def parse_stacks(text: str) -> Counter[tuple[str, ...]]:
    """Return how often each stack was seen, from py-spy's raw format.

    A function is named ``name (file)``, whichever of its lines was running.
    """
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack:
            stacks[tuple(_function(frame) for frame in stack.split(";"))] += int(count)
    return stacks


def render_profile(stacks: Mapping[tuple[str, ...], int], length: int) -> str:
    """Return the functions that themselves took most, and what share is below each."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for function in set(stack):
            cumulative[function] += count
    total = sum(own.values())
    if not total:
        return "  (it was never seen working)"
    lines = [f"  {total:,} samples", "    itself  with callees"]
    for function, count in own.most_common(length):
        lines.append(
            f"    {count / total:6.1%}  {cumulative[function] / total:12.1%}  {function}"
        )
    return "\n".join(lines)


def _function(frame: str) -> str:
    """Drop the line number: ``run (a/b.py:12)`` becomes ``run (a/b.py)``."""
    name, separator, _ = frame.rpartition(":")
    return f"{name})" if separator and frame.endswith(")") else frame


@contextlib.contextmanager
def _watched(spy: Path, processes: Mapping[str, int], directory: Path) -> Iterator[None]:
    """Have all processes sampled for the length of a ``with`` block; files are there after."""
    watchers = []
    try:
        for name, pid in processes.items():
            watchers.append(_start_spy(spy, pid, directory / f"{name}.raw"))
        yield
    finally:
        for watcher in watchers:
            watcher.send_signal(signal.SIGINT)
        for watcher in watchers:
            try:
                watcher.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                watcher.kill()
                watcher.communicate()


def _start_spy(spy: Path, pid: int, out: Path) -> subprocess.Popen[bytes]:
    command = [str(spy), "record", "--pid", str(pid), "--format", "raw", "--output", str(out)]
    command += ["--rate", str(SAMPLES_PER_S), "--duration", "unlimited", "--nonblocking"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert watcher.stdout is not None
    said = watcher.stdout.readline()  # it samples once it has said so
    if watcher.poll() is not None:
        raise RuntimeError(f"py-spy cannot look at {pid}: {said.decode(errors='replace')}")
    return watcher


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())
