"""The everyday calls, on real engines."""

from __future__ import annotations

import math
import operator
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import parallelz
from parallelz import Client, Cluster, DirectView, LoadBalancedView

pytestmark = pytest.mark.process

TIMEOUT_S = 30


def test_round_trip(lv: LoadBalancedView) -> None:
    assert lv.apply_sync(lambda x, y=1: x + y, 2, y=3) == 5


def test_importable_function_goes_by_name(lv: LoadBalancedView) -> None:
    assert lv.apply_sync(math.sqrt, 16) == 4.0


def test_closure_and_helper_function_come_along(lv: LoadBalancedView) -> None:
    factor = 3

    def helper(x: int) -> int:
        return x * factor

    def work(x: int) -> int:
        return helper(x) + 1

    assert lv.map_sync(work, range(5)) == [1, 4, 7, 10, 13]


def test_map_keeps_the_order_of_its_input(lv: LoadBalancedView) -> None:
    assert lv.map_sync(operator.neg, range(1000)) == [-n for n in range(1000)]
    assert lv.map_sync(operator.add, range(100), range(100), chunksize=7) == [
        2 * n for n in range(100)
    ]


def test_direct_map_cuts_and_joins(dv: DirectView) -> None:
    assert dv.map_sync(operator.neg, range(101)) == [-n for n in range(101)]
    assert dv.map_sync(operator.neg, []) == []


def test_imap_reads_an_endless_iterator_with_back_pressure(lv: LoadBalancedView) -> None:
    taken = []

    def endless() -> object:
        for number in range(10**9):
            taken.append(number)
            yield number

    results = lv.imap(operator.neg, endless(), max_outstanding=10)
    assert [next(results) for _ in range(20)] == [-n for n in range(20)]
    assert len(taken) <= 40


def test_names_live_on_the_engines(dv: DirectView) -> None:
    dv.push({"a": 27, "b": 10}, block=True)
    assert dv.apply_sync(eval, "1") == [1, 1]
    assert dv["a"] == [27, 27]
    dv["c"] = "see"
    assert dv.pull(["a", "c"], block=True) == [[27, "see"], [27, "see"]]
    dv.execute("d = a + b", block=True)
    assert dv["d"] == [37, 37]


def test_single_engine_gives_the_bare_value(rc: Client) -> None:
    rc[0]["x"] = 5
    assert rc[0]["x"] == 5
    assert rc[0].apply_sync(abs, -1) == 1
    assert rc[[0]].apply_sync(abs, -1) == [1]


def test_bound_function_gets_the_namespace(dv: DirectView) -> None:
    dv.push({"b": 4}, block=True)

    def double(ns: object) -> int:
        ns.b *= 2  # type: ignore[attr-defined]
        return ns.b  # type: ignore[attr-defined]

    assert dv.apply_sync_bound(double) == [8, 8]
    assert dv["b"] == [8, 8]


def test_missing_name_is_a_name_error(dv: DirectView) -> None:
    with pytest.raises(parallelz.CompositeError) as info:
        dv.pull("nothing_of_the_kind", block=True)
    with pytest.raises(NameError):
        info.value.raise_exception(0)


def test_scatter_and_gather(dv: DirectView) -> None:
    dv.scatter("part", range(11), block=True)
    assert dv["part"] == [list(range(6)), list(range(6, 11))] or [
        list(part) for part in dv["part"]
    ] == [list(range(6)), list(range(6, 11))]
    assert list(dv.gather("part", block=True)) == list(range(11))
    data = np.arange(10.0).reshape(5, 2)
    dv.scatter("rows", data, block=True)
    gathered = dv.gather("rows", block=True)
    assert isinstance(gathered, np.ndarray)
    assert (gathered == data).all()


def test_arrays_arrive_read_only(dv: DirectView) -> None:
    big = np.zeros(100_000)
    assert dv.apply_sync(lambda a: bool(a.flags.writeable), big) == [False, False]
    results = dv.apply_sync(lambda n: __import__("numpy").ones(n), 100_000)
    assert all(not r.flags.writeable for r in results)


def test_error_is_also_what_it_was_and_shows_the_users_lines(lv: LoadBalancedView) -> None:
    def divide(x: int) -> float:
        return x / 0  # the culprit

    with pytest.raises(ZeroDivisionError) as info:
        lv.apply_sync(divide, 1)
    assert isinstance(info.value, parallelz.RemoteError)
    assert "the culprit" in "\n".join(info.value.render_traceback())


def test_unpicklable_argument_fails_at_the_call(lv: LoadBalancedView) -> None:
    with pytest.raises(parallelz.SerializationError, match="lock"):
        lv.apply_async(print, {"lock": threading.Lock()})


def test_unpicklable_result_is_the_tasks_error(lv: LoadBalancedView) -> None:
    with pytest.raises(parallelz.RemoteError, match="lock"):
        lv.apply_sync(lambda: __import__("threading").Lock())


def test_system_exit_ends_the_task_and_not_the_engine(lv: LoadBalancedView) -> None:
    with pytest.raises(parallelz.RemoteError, match="SystemExit"):
        lv.apply_sync(exit, 3)
    assert lv.apply_sync(abs, -1) == 1


def test_output_comes_back_with_the_result(lv: LoadBalancedView, dv: DirectView) -> None:
    ar = lv.apply_async(lambda: print("said so"))
    ar.get(TIMEOUT_S)
    assert ar.stdout == "said so\n"
    ar = dv.execute("import sys\nprint('out'); print('err', file=sys.stderr)\n1 + 1")
    ar.get(TIMEOUT_S)
    assert ar.stdout == ["out\n", "out\n"]
    assert ar.stderr == ["err\n", "err\n"]


def test_run_executes_a_file(dv: DirectView, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("answer = 6 * 7\n")
    dv.run(str(script), block=True)
    assert dv["answer"] == [42, 42]


def test_redefinition_takes_effect_and_the_engines_own_names_win(dv: DirectView) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec("def helper(): return 1\ndef f(): return helper()", namespace)
    assert dv.apply_sync(namespace["f"]) == [1, 1]
    exec("def helper(): return 2", namespace)
    assert dv.apply_sync(namespace["f"]) == [2, 2]
    dv.execute("def helper(): return 3", block=True)
    assert dv.apply_sync(namespace["f"]) == [3, 3]


def test_dependencies_hold(lv: LoadBalancedView) -> None:
    import time

    first = lv.apply_async(time.time)
    with lv.temp_flags(after=[first]):
        second = lv.apply_async(time.time)
    assert second.get(TIMEOUT_S) >= first.get(TIMEOUT_S)
    failing = lv.apply_async(operator.truediv, 1, 0)
    with lv.temp_flags(after=[failing]):
        never = lv.apply_async(abs, 1)
    with pytest.raises(parallelz.ImpossibleDependency, match=failing.msg_ids[0]):
        never.get(TIMEOUT_S)


def test_metadata_tells_when_where_and_how_long(lv: LoadBalancedView) -> None:
    ar = lv.apply_async(abs, -1)
    ar.get(TIMEOUT_S)
    metadata = ar.metadata
    assert metadata["status"] == "ok"
    assert metadata["engine_id"] in (0, 1)
    assert metadata["submitted"] <= metadata["received"]
    assert metadata["started"] <= metadata["completed"]
    assert metadata["started"].tzinfo is not None


def test_abort_ends_what_has_not_started(rc: Client, lv: LoadBalancedView) -> None:
    import time

    running = [lv.apply_async(time.sleep, 0.3) for _ in range(2)]
    waiting = [lv.apply_async(abs, n) for n in range(5)]
    rc.abort(waiting, block=True)
    for ar in waiting:
        with pytest.raises(parallelz.TaskAborted):
            ar.get(TIMEOUT_S)
    assert [ar.get(TIMEOUT_S) for ar in running] == [None, None]


def test_clear_leaves_no_user_names(rc: Client, dv: DirectView) -> None:
    dv.push({"x": 1}, block=True)  # or the clearing, which passes all queues, comes before it
    rc.clear(block=True)
    with pytest.raises(parallelz.CompositeError):
        dv.pull("x", block=True)


def test_barrier_waits_for_everything(rc: Client, lv: LoadBalancedView) -> None:
    results = [lv.apply_async(abs, n) for n in range(50)]
    assert rc.barrier(timeout=TIMEOUT_S)
    assert all(ar.ready() for ar in results)
    assert not rc.outstanding


def test_queue_status_counts(rc: Client, lv: LoadBalancedView) -> None:
    lv.map_sync(abs, range(10))
    status = rc.queue_status()
    assert set(status) == {0, 1, "unassigned"}
    assert status["unassigned"] == 0
    assert status[0]["completed"] + status[1]["completed"] >= 10


def test_history_can_be_asked(rc: Client, lv: LoadBalancedView) -> None:
    ar = lv.apply_async(abs, -7)
    ar.get(TIMEOUT_S)
    (row,) = rc.db_query({"msg_id": ar.msg_ids[0]})
    assert row["status"] == "ok"


def test_client_may_be_used_from_several_threads(lv: LoadBalancedView) -> None:
    results: dict[int, object] = {}

    def work(number: int) -> None:
        results[number] = [lv.apply_sync(operator.mul, number, k) for k in range(30)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert results == {n: [n * k for k in range(30)] for n in range(4)}


def test_callback_may_wait_for_another_task(lv: LoadBalancedView) -> None:
    done = threading.Event()
    answers = []

    def callback(ar: object) -> None:
        answers.append(lv.apply_sync(abs, -2))
        done.set()

    lv.apply_async(abs, -1).add_done_callback(callback)
    assert done.wait(TIMEOUT_S)
    assert answers == [2]


def test_second_client_of_the_same_cluster(rc: Client, cluster_profile_dir: Path) -> None:
    with Client(profile_dir=cluster_profile_dir) as other:
        assert other.ids == rc.ids
        assert other[:].apply_sync(abs, -3) == [3, 3]


def test_balanced_task_waits_for_an_engine_and_says_so(tmp_path: Path) -> None:
    cluster = Cluster(profile_dir=tmp_path)
    cluster.start_controller_sync()
    try:
        with cluster.connect_client_sync() as rc:
            with pytest.raises(parallelz.NoEnginesRegistered):
                rc[:].apply_sync(abs, 1)
            ar = rc.load_balanced_view().apply_async(abs, -1)
            with pytest.warns(match="no engines"):
                assert not ar.wait(0.5)
            cluster.start_engines_sync(1)
            assert ar.get(TIMEOUT_S) == 1
    finally:
        cluster.stop_cluster_sync()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_with_a_client_of_its_own_can_work(
    rc: Client, cluster_profile_dir: Path
) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Client(profile_dir=cluster_profile_dir) as own:
                os.write(writing, repr(own[:].apply_sync(abs, -2)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "[2, 2]"
    os.waitpid(pid, 0)
    assert rc[:].apply_sync(abs, -1) == [1, 1]


def test_a_text_that_cannot_be_encoded_holds_up_no_other_task(lv: LoadBalancedView) -> None:
    def odd() -> int:
        return 1

    odd.__name__ = "odd-\udc80"
    results = [lv.apply_async(odd), lv.apply_async(abs, -2)]
    assert [each.get(30) for each in results] == [1, 2]
