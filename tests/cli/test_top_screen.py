"""What `ipclusterz top` shows of two moments."""

from __future__ import annotations

from msgspec.structs import replace

from parallelz.cli.top_screen import Moment, Usage, lines_of, rates_of
from parallelz.ids import EngineId, SessionId
from parallelz.protocol.answers import EngineLoad, Failure, Overview, Queue


def engine(number: int, ended_count: int = 0, *, is_busy: bool = False) -> EngineLoad:
    return EngineLoad(
        EngineId(number),
        host="node1",
        host_id="node1/1",
        pid=1000 + number,
        state="busy" if is_busy else "idle",
        task="'night run' (a-7)" if is_busy else "",
        function="simulate" if is_busy else "",
        for_s=3.21 if is_busy else 0.0,
        placed_count=3 if is_busy else 0,
        direct_count=0,
        ended_count=ended_count,
    )


EARLIER = Overview(77, [engine(0, 10), engine(1, 1)], [], 0, 0, {"ok": 11}, [], "")
LATER = Overview(
    77,
    [engine(0, 30, is_busy=True), engine(1, 2), engine(2, 0)],
    [
        Queue("", SessionId("a"), "ann@login pid 5", 1200),
        Queue("has the label 'gpu'", SessionId("b"), "", 1),
    ],
    ready_count=1201,
    waiting_count=4,
    ended_counts={"ok": 31, "error": 1, "aborted": 500},
    failures=[Failure(2.0, "a-3", EngineId(1), "ValueError: no\ngood \x1b[2J")],
    trouble="",
)
BEFORE = Moment(100.0, EARLIER, {})
NOW = Moment(102.0, LATER, {EngineId(0): Usage(99.6, 120_000_000)})


def test_all_of_it_on_one_screen() -> None:
    assert lines_of(BEFORE, NOW) == [
        "3 engines: 1 busy, 2 idle",
        "10.5 tasks/s: 1 run, 2 placed ahead, 1,201 ready, 4 wait for others",
        "ended since the controller 77 was started: 31 ok, 1 error, 500 aborted",
        "",
        "ENGINE  HOST    PID  STATE  CPU%  MEMORY  AHEAD  DIRECT  ENDED  TASKS/S    FOR  RUNS",
        "     0  node1  1000  busy    100  120 MB      2       0     30     10.0  3.2 s"
        "  simulate 'night run' (a-7)",
        "     1  node1  1001  idle      -       -      0       0      2      0.5",
        "     2  node1  1002  idle      -       -      0       0      0        -",
        "",
        "WAITING",
        "  1,200 for any engine, of ann@login pid 5",
        "  1 for an engine that has the label 'gpu', of b, who is away",
        "",
        "LATEST ERRORS",
        "  2.0 s ago, a-3 on engine 1: ValueError: no good ?[2J",
    ]


def test_without_a_moment_before_nobody_knows_how_fast_it_goes() -> None:
    assert rates_of(None, NOW) == (None, {})
    assert lines_of(None, NOW)[1].startswith("- tasks/s: 1 run")


def test_counts_of_a_controller_before_are_not_compared() -> None:
    restarted = Moment(NOW.at_s, replace(LATER, controller_pid=78), {})
    assert rates_of(BEFORE, restarted) == (None, {})


def test_a_history_that_is_not_written_is_told() -> None:
    troubled = Moment(NOW.at_s, replace(LATER, trouble="the disk is full"), {})
    assert "the history is not written: the disk is full" in lines_of(None, troubled)


def test_what_is_busy_is_shown_where_not_all_has_room() -> None:
    engines = [engine(number, is_busy=number == 90) for number in range(100)]
    crowded = Moment(NOW.at_s, replace(LATER, engines=engines), {})
    lines = lines_of(None, crowded, 20)
    assert len(lines) == 20
    shown = [line.split()[0] for line in lines if "node1" in line]
    assert shown[0] == "0"
    assert shown[-1] == "90"
    assert f"... and {100 - len(shown)} more" in lines
    assert "LATEST ERRORS" in lines


def test_no_height_is_too_low() -> None:
    for height in range(20):
        assert len(lines_of(BEFORE, NOW, height)) <= height
