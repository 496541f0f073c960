"""Memory that processes share: what is read stays, what is not needed is used again."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parallelz.errors import SerializationError
from parallelz.ids import SessionId
from parallelz.protocol.envelope import Buffer
from parallelz.protocol.shared import SharedBuffer, SharedRef, view_of
from parallelz.settings import SHARED_MEMORY_DIR_VARIABLE, shared_memory_root
from parallelz.transport.pool import Pool
from parallelz.transport.security import new_secrets
from parallelz.transport.shared_memory import (
    Leases,
    Sweeper,
    directory_for,
    is_usable,
    make_directory,
)

pytestmark = pytest.mark.skipif(
    not shared_memory_root().is_dir(), reason="this system has no /dev/shm"
)

MIB = 1024 * 1024
ALICE = SessionId("a11ce")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=shared_memory_root(), prefix="pz-") as root:
        path = Path(root) / "parallelz-test"
        assert make_directory(path)
        yield path


@pytest.fixture
def pool(directory: Path) -> Iterator[Pool]:
    pool = Pool(directory, ALICE)
    yield pool
    pool.close()


def only(buffers: object) -> SharedBuffer:
    """Return the one buffer that was placed."""
    (buffer,) = buffers  # type: ignore[misc, attr-defined]
    assert isinstance(buffer, SharedBuffer)
    return buffer


def files(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.rglob("*") if p.is_file())


def test_what_was_placed_can_be_read_and_not_written(directory: Path, pool: Pool) -> None:
    first, second = os.urandom(MIB), os.urandom(3 * MIB)
    placed = pool.place([first, memoryview(second)])
    leases = Leases(directory)
    read = [leases.take(each.ref) for each in placed if isinstance(each, SharedBuffer)]
    assert [bytes(view_of(each)) for each in read] == [first, second]
    assert all(view_of(each).readonly for each in read)


def test_small_buffers_stay_where_they_are(pool: Pool) -> None:
    small = bytes(MIB)
    assert pool.place([small]) == [small]


def test_what_is_read_is_not_written_over(directory: Path, pool: Pool) -> None:
    placed = only(pool.place([b"a" * 2 * MIB]))
    read = view_of(Leases(directory).take(placed.ref))
    part = read[10:20]
    del placed, read
    again = only(pool.place([b"b" * 2 * MIB]))
    assert again.ref.segment == 1
    assert bytes(part) == b"a" * 10


def test_what_nobody_needs_is_used_again(directory: Path, pool: Pool) -> None:
    placed = only(pool.place([b"a" * 2 * MIB]))
    read = Leases(directory).take(placed.ref)
    del placed, read
    gc.collect()
    again = only(pool.place([b"b" * 2 * MIB]))
    assert again.ref.segment == 0
    assert bytes(view_of(Leases(directory).take(again.ref))[:3]) == b"bbb"


def test_what_was_meant_before_is_not_taken_for_what_is_there_now(
    directory: Path, pool: Pool
) -> None:
    old = only(pool.place([b"a" * 2 * MIB])).ref
    new = only(pool.place([b"b" * 2 * MIB])).ref
    assert (new.segment, new.generation) == (old.segment, old.generation + 1)
    for stale in (Leases(directory).take(old), Leases(directory).hold(old)):
        with pytest.raises(SerializationError, match="used for something else"):
            view_of(stale)


def test_who_passes_it_on_keeps_it_there(directory: Path, pool: Pool) -> None:
    held = Leases(directory).hold(only(pool.place([b"a" * 2 * MIB])).ref)
    pool.place([b"b" * 2 * MIB])
    assert bytes(view_of(Leases(directory).take(held.ref))[:3]) == b"aaa"


def test_a_name_that_leads_elsewhere_is_not_followed(directory: Path) -> None:
    ref = SharedRef("../x", 0, 1, 0, 10)
    with pytest.raises(SerializationError, match="not the name of a pool"):
        view_of(Leases(directory).take(ref))


def test_many_mappings_are_copies(
    directory: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallelz.transport.shared_memory.MAPPINGS_COUNT_MAX", 1)
    leases = Leases(directory)
    read = [view_of(leases.take(only(pool.place([c * 2 * MIB])).ref)) for c in (b"a", b"b")]
    assert [bytes(view[-2:]) for view in read] == [b"aa", b"bb"]
    assert only(pool.place([b"c" * 2 * MIB])).ref.segment == 1  # the copy holds nothing


def test_at_the_limit_buffers_stay_where_they_are_and_it_is_said_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(directory, ALICE, bytes_max=5 * MIB)
    with caplog.at_level(logging.WARNING):
        kept = [pool.place([bytes(2 * MIB)]) for _ in range(4)]
    pool.close()
    shared = [isinstance(buffers[0], SharedBuffer) for buffers in kept]
    assert shared == [True, True, False, False]
    assert caplog.text.count("shared memory is at its limit") == 1


def test_room_for_another_size_is_made_by_what_is_idle(directory: Path) -> None:
    pool = Pool(directory, ALICE, bytes_max=5 * MIB)
    pool.place([bytes(2 * MIB)])
    pool.place([bytes(2 * MIB)])
    assert only(pool.place([bytes(4 * MIB)])).nbytes == 4 * MIB
    pool.close()


def test_so_many_at_once_and_no_more_and_it_is_said(
    directory: Path,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("parallelz.transport.pool.SEGMENTS_COUNT_MAX", 2)
    with caplog.at_level(logging.WARNING):
        kept = [pool.place([bytes(2 * MIB)]) for _ in range(3)]
    assert [isinstance(b[0], SharedBuffer) for b in kept] == [True, True, False]
    assert "in use at once" in caplog.text


def test_closing_waits_for_who_is_writing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(directory, ALICE)
    is_writing, may_go_on = threading.Event(), threading.Event()
    write = os.pwrite

    def write_slowly(fd: int, data: bytes, offset: int) -> int:
        is_writing.set()
        assert may_go_on.wait(10)
        return write(fd, data, offset)

    monkeypatch.setattr("os.pwrite", write_slowly)
    with ThreadPoolExecutor(2) as threads:
        placing = threads.submit(pool.place, [b"x" * 2 * MIB])
        assert is_writing.wait(10)
        closing = threads.submit(pool.close)
        with pytest.raises(TimeoutError):
            closing.result(0.05)
        may_go_on.set()
        placed = only(placing.result(10))
        closing.result(10)
    assert bytes(view_of(Leases(directory).take(placed.ref))[-1:]) == b"x"


def test_a_full_file_system_is_no_failure(
    directory: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> int:
        raise OSError(28, "No space left on device")

    buffer = bytes(2 * MIB)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", fail)
        assert pool.place([buffer]) == [buffer]
    assert files(directory) == []
    assert isinstance(pool.place([buffer])[0], SharedBuffer)


def test_a_file_that_somebody_removed_is_not_used_again(directory: Path, pool: Pool) -> None:
    pool.place([bytes(2 * MIB)])
    (directory / ALICE / "0").unlink()
    placed = only(pool.place([b"x" * 2 * MIB]))
    assert bytes(view_of(Leases(directory).take(placed.ref))[:1]) == b"x"


def test_memory_goes_back_to_the_system_after_a_while(directory: Path, pool: Pool) -> None:
    buffer = only(pool.place([bytes(2 * MIB)]))
    now_s = 1e9
    pool.tick(now_s)
    assert files(directory) == ["0"]
    del buffer
    pool.tick(now_s)
    assert files(directory) == []


def test_closing_leaves_only_what_somebody_reads(directory: Path) -> None:
    pool = Pool(directory, ALICE)
    unread, read = pool.place([bytes(2 * MIB)]), pool.place([bytes(3 * MIB)])
    kept = Leases(directory).hold(only(read).ref)
    del unread, read
    pool.close()
    assert files(directory) == ["1"]
    assert len(view_of(Leases(directory).take(kept.ref))) == 3 * MIB


def test_a_closed_pool_shares_nothing(directory: Path) -> None:
    pool = Pool(directory, ALICE)
    pool.close()
    pool.close()
    buffer = bytes(2 * MIB)
    assert pool.place([buffer]) == [buffer]


# -- what is left by the dead -------------------------------------------------------------

OWNER = """
import sys
import tempfile
from pathlib import Path
from parallelz.transport.pool import Pool
placed = Pool(Path(sys.argv[1]), "dead").place([b"x" * 2 * 2**20, b"y" * 2 * 2**20])
more = Pool(Path(sys.argv[1]), "dead2").place([b"z" * 2 * 2**20])
print(*(n for each in placed for n in (each.ref.segment, each.ref.offset)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has two pools."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline().split()[0] == "0"
            yield process
        finally:
            process.kill()


def test_the_pools_of_the_living_are_left(
    directory: Path, owner: subprocess.Popen[str]
) -> None:
    sweeper = Sweeper(directory)
    sweeper.sweep()
    sweeper.sweep()
    assert files(directory) == ["0", "0"]
    sweeper.close()
    assert not directory.exists()


def test_the_pools_of_the_dead_are_removed_but_for_what_is_read(
    directory: Path, owner: subprocess.Popen[str]
) -> None:
    sweeper = Sweeper(directory)
    ref = SharedRef("dead", 0, 1, os.sysconf("SC_PAGESIZE"), 2 * MIB)
    held: Buffer | None = Leases(directory).hold(ref)
    owner.kill()
    owner.wait()
    sweeper.sweep()
    assert files(directory) == ["0", "0"]  # its last words may be on their way
    sweeper.sweep()
    assert files(directory) == ["0"]
    read = view_of(Leases(directory).take(ref))
    assert held is not None
    held = None
    sweeper.sweep()
    assert files(directory) == ["0"]
    assert bytes(read[:2]) == b"xx"
    del read
    sweeper.sweep()
    assert list(directory.iterdir()) == []
    sweeper.close()


def test_a_new_cluster_removes_old_ones_all_of_which_are_dead(
    directory: Path, owner: subprocess.Popen[str]
) -> None:
    young = directory.with_name("parallelz-young")
    make_directory(young)
    long_ago = directory.with_name("parallelz-long-ago")
    make_directory(long_ago)
    for path in (long_ago, directory):
        os.utime(path, (0, 0))
    Sweeper(directory.with_name("parallelz-new")).close()
    assert sorted(p.name for p in directory.parent.iterdir()) == [
        "parallelz-test",  # its owner lives
        "parallelz-young",
    ]


# -- where there is none ------------------------------------------------------------------


def test_a_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    assert not is_usable(path)
    assert not is_usable(tmp_path / "missing")
    link = tmp_path / "link"
    make_directory(tmp_path / "mine")
    link.symlink_to(tmp_path / "mine")
    assert not is_usable(link)


def test_where_there_can_be_no_directory_nothing_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert not make_directory(tmp_path / "file" / "x")
    monkeypatch.setenv(SHARED_MEMORY_DIR_VARIABLE, str(tmp_path / "none"))
    info = new_secrets("", runtime_dir=tmp_path).infos["client"]
    assert info.shared_memory == ""
    assert directory_for(info) is None
