"""The engines' namespaces, on real engines: names, parts, imports, references, cells."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import parallelz
from parallelz import Client, DirectView, LoadBalancedView, Reference, interactive

pytestmark = pytest.mark.process

TIMEOUT_S = 30


# -- names --------------------------------------------------------------------------------


def test_names_may_be_attributes_and_items(dv: DirectView) -> None:
    dv.execute("import types; a = types.SimpleNamespace(); x = [0, 1]", block=True)
    dv["a.b"] = 5
    dv["x[1]"] = 7
    assert dv["a.b"] == [5, 5]
    assert dv["x[1]"] == [7, 7]
    assert dv.pull(["a.b", "x"], block=True) == [[5, [0, 7]], [5, [0, 7]]]


def test_get_and_update_are_those_of_a_dict(dv: DirectView) -> None:
    dv.update({"p": 1, "q": 2})
    assert dv.get("p") == [1, 1]
    assert dv.pull(("p", "q"), block=True) == [[1, 2], [1, 2]]
    assert dv.push({"p": 3}, block=True) == [None, None]


def test_one_target_gives_the_bare_value_and_a_list_a_list(rc: Client) -> None:
    rc.push({"a": 1, "b": 2}, block=True)
    assert rc.pull("a", targets=0, block=True) == 1
    assert rc.pull(("a", "b"), targets=[0], block=True) == [[1, 2]]
    assert rc.pull(("a", "b"), block=True) == [[1, 2], [1, 2]]
    assert rc.push({"a": 5}, targets=0, block=True) is None
    assert rc[:].pull("a", targets=[1, 0], block=True) == [1, 5]
    assert rc[0].pull("a", targets=1, block=True) == 1


def test_what_is_no_name_is_refused_at_once(dv: DirectView) -> None:
    history = list(dv.history)
    for refused in (
        lambda: dv.push([("a", 1)]),  # type: ignore[arg-type]
        lambda: dv.push({1: 2}),  # type: ignore[dict-item]
        lambda: dv.pull([1]),  # type: ignore[list-item]
        lambda: dv.pull(5),  # type: ignore[arg-type]
        lambda: dv.get(["a"]),  # type: ignore[arg-type]
        lambda: dv.scatter(3, [1]),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            refused()
    for refused in (
        lambda: dv.push({"1x": 2}),
        lambda: dv.push({"f()": 2}),
        lambda: dv.update({"": 2}),
        lambda: dv.scatter("x y", [1]),
        lambda: dv.gather("x y"),
        lambda: dv["x["],
        lambda: dv.pull(["a", "x["]),
    ):
        with pytest.raises(ValueError, match="not a name"):
            refused()
    with pytest.raises(TypeError, match="not iterable"):
        iter(dv)  # type: ignore[call-overload]
    assert dv.history == history


def test_clear_of_some_engines_leaves_the_others(rc: Client, dv: DirectView) -> None:
    dv.push({"a": 1}, block=True)
    rc.clear(targets=0)
    assert dv.apply_sync_bound(lambda ns: "a" in ns) == [False, True]


def test_functions_see_the_namespace_as_their_globals(rc: Client, dv: DirectView) -> None:
    dv.push({"a": 10, "b": 20}, block=True)
    assert dv.apply_sync(interactive(lambda x: a + b + x), 27) == [57, 57]  # type: ignore[name-defined]  # noqa: F821
    assert rc.apply(interactive(lambda: a), block=True, targets=[1]) == [10]  # type: ignore[name-defined]  # noqa: F821


# -- parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 7])
@pytest.mark.parametrize("kind", [list, tuple, range])
def test_gather_undoes_scatter(
    dv: DirectView, kind: type[Sequence[int]], length: int, dist: str
) -> None:
    seq = range(length) if kind is range else kind(range(length))  # type: ignore[call-arg]
    assert dv.scatter("part", seq, dist, block=True) == [None, None]
    assert dv.gather("part", dist, block=True) == list(range(length))
    assert all(isinstance(part, kind) for part in dv["part"])


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("length", [0, 1, 7])
def test_arrays_are_cut_along_their_first_axis(dv: DirectView, length: int, dist: str) -> None:
    rows = np.arange(3 * length, dtype=np.int16).reshape(length, 3)
    dv.scatter("rows", rows, dist, block=True)
    assert [part.shape[1] for part in dv["rows"]] == [3, 3]
    gathered = dv.gather("rows", dist, block=True)
    assert gathered.dtype == np.int16
    np.testing.assert_array_equal(gathered, rows)


def test_what_is_only_iterable_is_scattered_as_a_list(dv: DirectView) -> None:
    dv.scatter("part", (n for n in range(5)), block=True)
    assert dv["part"] == [[0, 1, 2], [3, 4]]
    dv.scatter("part", {"a": 1, "b": 2}.values(), block=True)
    assert dv["part"] == [[1], [2]]
    with pytest.raises(TypeError, match="sequence to be cut"):
        dv.scatter("part", {"a": 1})
    with pytest.raises(TypeError, match="sequence to be cut"):
        dv.scatter("part", 5)  # type: ignore[arg-type]


def test_parts_of_text_stay_parts(dv: DirectView) -> None:
    dv.scatter("part", "abcde", block=True)
    assert dv.gather("part", block=True) == ["abc", "de"]
    dv.scatter("part", b"abcde", block=True)
    assert dv.gather("part", block=True) == [b"abc", b"de"]


def test_flatten_sets_a_part_of_length_one_to_its_item(rc: Client, dv: DirectView) -> None:
    dv.scatter("x", [1, 2], flatten=True, block=True)
    assert dv["x"] == [1, 2]
    assert dv.gather("x", block=True) == [1, 2]
    assert rc[0].scatter("x", [5], flatten=True, block=True) is None
    assert rc[0]["x"] == 5
    rc.scatter("x", range(4), "r", targets=[1, 0], block=True)
    assert rc.gather("x", "r", targets=[1, 0], block=True) == [0, 1, 2, 3]


def test_parts_that_were_changed_on_the_engines_are_gathered_too(dv: DirectView) -> None:
    dv.scatter("x", range(6), "r", block=True)
    dv.execute("x = [n for n in x if n % 4]", block=True)  # [2] and [1, 3, 5]
    assert dv.gather("x", block=True) == [2, 1, 3, 5]
    assert dv.gather("x", "r", block=True) == [2, 1, 3, 5]


def test_a_wrong_distribution_is_refused_at_once(dv: DirectView) -> None:
    for refused in (dv.gather, lambda key, dist: dv.scatter(key, [1, 2], dist)):
        with pytest.raises(ValueError, match="dist must be 'b'"):
            refused("x", "x")


@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_gather_can_be_iterated_while_parts_are_missing(
    rc: Client, dv: DirectView, tmp_path: Path, dist: str
) -> None:
    dv.scatter("x", range(5), dist, block=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    rc[1].apply_async(lambda path: open(path).read(), str(fifo))  # noqa: SIM115 - until told
    items = iter(dv.gather("x", dist, block=False))
    assert next(items) == 0
    fifo.write_text("go on")
    assert list(items) == [1, 2, 3, 4]


def test_a_failed_part_is_an_error(rc: Client, dv: DirectView) -> None:
    rc[0].push({"only_there": [1]}, block=True)
    with pytest.raises(parallelz.CompositeError, match="only_there"):
        dv.gather("only_there", block=True)


# -- cells and files ----------------------------------------------------------------------


def test_code_runs_as_a_cell_of_ipython(dv: DirectView) -> None:
    result = dv.execute("6 * 7", block=True)
    assert [each["data"]["text/plain"] for each in result.execute_result] == ["42", "42"]
    assert dv.execute("%who", block=True).stdout == ["Interactive namespace is empty.\n"] * 2
    with pytest.raises(parallelz.CompositeError, match="ZeroDivisionError"):
        dv.execute("1 / 0", block=True)


def test_a_cell_that_runs_can_be_given_up(rc: Client, tmp_path: Path) -> None:
    started, never = tmp_path / "started", tmp_path / "never"
    os.mkfifo(started)
    os.mkfifo(never)
    code = f"x = 1; open({str(started)!r}, 'w').close(); open({str(never)!r}).read()"
    result = rc[0].execute(code)
    started.read_text()  # until it runs
    rc.cancel(result)
    with pytest.raises(parallelz.TaskAborted):
        result.get(TIMEOUT_S)
    assert rc[0]["x"] == 1


def test_a_silent_cell_keeps_no_value(rc: Client) -> None:
    before = rc[0].execute("1", block=True).execute_result["execution_count"]
    assert rc[0].execute("2", silent=True, block=True).execute_result is None
    assert rc[0].execute("3", block=True).execute_result["execution_count"] == before + 1


def test_files_are_read_as_python_reads_them(rc: Client, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_bytes("# coding: latin-1\nname = 'é'\n".encode("latin-1"))
    rc.run(script, block=True)
    assert rc[0]["name"] == "é"
    with pytest.raises(FileNotFoundError):
        rc.run(tmp_path / "nothing.py")


def test_execute_and_run_for_other_engines(rc: Client, dv: DirectView, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("b = 2")
    dv.execute("a = 1", targets=1, block=True)
    dv.run(script, targets=[1], block=True)
    rc.execute("c = 3", targets=1, block=True)
    rc.run(script, targets=0, block=True)
    rc.view().execute("c = 4", targets=[1], block=True)
    names = dv.apply_sync_bound(lambda ns: sorted({"a", "b", "c"} & {*ns}))
    assert names == [["b"], ["a", "b", "c"]]


# -- imports ------------------------------------------------------------------------------


def test_imports_are_repeated_on_the_engines(
    dv: DirectView, capsys: pytest.CaptureFixture[str]
) -> None:
    with dv.sync_imports():
        import xml.dom
        from string import ascii_letters, digits
    assert capsys.readouterr().out == (
        "importing xml.dom on engine(s)\n"
        "importing ascii_letters,digits from string on engine(s)\n"
    )
    assert xml.dom.__name__ == "xml.dom"
    assert dv["xml.dom.__name__"] == ["xml.dom"] * 2
    assert dv["digits"] == [digits] * 2
    assert dv["ascii_letters"] == [ascii_letters] * 2


def test_quiet_imports_print_nothing(
    dv: DirectView, capsys: pytest.CaptureFixture[str]
) -> None:
    with dv.sync_imports(quiet=True):
        import colorsys
    assert capsys.readouterr().out == ""
    assert dv["colorsys.__name__"] == [colorsys.__name__] * 2


def test_importer_is_the_same_as_a_property(
    dv: DirectView, capsys: pytest.CaptureFixture[str]
) -> None:
    with dv.importer:
        import colorsys
    assert capsys.readouterr().out == "importing colorsys on engine(s)\n"
    assert dv["colorsys.__name__"] == [colorsys.__name__] * 2


def test_what_cannot_be_imported_here_is_not_imported_there(dv: DirectView) -> None:
    def import_both() -> None:
        import colorsys

        import no_such_module_at_all  # type: ignore[import-not-found]

        raise AssertionError(colorsys, no_such_module_at_all)

    history = list(dv.history)
    with pytest.raises(ModuleNotFoundError), dv.sync_imports(quiet=True):
        import_both()
    assert dv.history == history


def test_what_cannot_be_imported_there_is_their_error(
    dv: DirectView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with (
        pytest.raises(parallelz.CompositeError, match="only_here_module"),
        dv.sync_imports(quiet=True),
    ):
        import only_here_module  # type: ignore[import-not-found]  # noqa: F401
    sys.modules.pop("only_here_module")


def test_imports_for_engines_alone_are_refused(dv: DirectView) -> None:
    with (
        pytest.raises(NotImplementedError, match="execute"),
        dv.sync_imports(local=False),
    ):
        pass


# -- references ---------------------------------------------------------------------------


def test_references_stand_for_what_the_engine_has(dv: DirectView) -> None:
    dv.execute("class Holder: n = 4\nh = Holder(); x = [1, 2, 3]; twice = lambda y: 2 * y")
    calls = [
        (lambda x: sum(x), (Reference("x"),), {}, 6),
        (lambda y: y, (), {"y": Reference("h.n")}, 4),
        (lambda pair: pair[0] + pair[1], ([Reference("x[1]"), 1],), {}, 3),
        (lambda d: d["k"], ({"k": Reference("len(x)")},), {}, 3),
        (Reference("twice"), (Reference("h.n"),), {}, 8),
        (Reference("h.n.__add__"), (1,), {}, 5),
    ]
    for function, args, kwargs, expected in calls:
        assert dv.apply_sync(function, *args, **kwargs) == [expected] * 2  # type: ignore[arg-type]
    assert dv.map_sync(Reference("twice"), [1, 2, 3]) == [2, 4, 6]  # type: ignore[arg-type]
    assert dv.map_sync(lambda x: x, [Reference("h.n"), 1, Reference("x[2]")]) == [4, 1, 3]


def test_a_reference_to_nothing_is_a_name_error(lv: LoadBalancedView) -> None:
    with pytest.raises(NameError, match="nothing_such"):
        lv.apply_sync(abs, Reference("nothing_such"))
    with pytest.raises(TypeError, match="made of a str"):
        Reference(5)  # type: ignore[arg-type]


# -- maps ---------------------------------------------------------------------------------


def test_rows_of_arrays_are_items(dv: DirectView, lv: LoadBalancedView) -> None:
    rows = np.arange(10).reshape(5, 2)
    for view in (dv, lv):
        assert view.map_sync(lambda row: int(row.sum()), rows) == [1, 5, 9, 13, 17]
        assert view.map_sync(lambda r, n: int(r[0]) + n, rows, itertools.count()) == [
            0,
            3,
            6,
            9,
            12,
        ]


def test_reduce_combines_on_engines_in_order(dv: DirectView, lv: LoadBalancedView) -> None:
    words = [str(n) for n in range(100)]
    for view in (dv, dv.client[1], lv):
        assert view.reduce(lambda a, b: a + b, words) == "".join(words)
        assert view.reduce(lambda a, b: a + b, iter(words[:3]), "x") == "x012"
        assert view.reduce(lambda a, b: a + b, [], "x") == "x"
        with pytest.raises(TypeError, match="empty"):
            view.reduce(lambda a, b: a + b, [])
        with pytest.raises(TypeError, match="at most one initial"):
            view.reduce(lambda a, b: a + b, words, "x", "y")


def test_an_engine_keeps_the_text_of_the_last_cells_only(rc: Client) -> None:
    results = [rc[0].execute(f"x = {number}") for number in range(1100)]
    assert rc.wait(results, TIMEOUT_S)
    inputs = rc[0]["[text for text in In if text]"]
    assert (len(inputs), inputs[-1]) == (1000, "x = 1099")
    names = rc[0].apply_sync_bound(lambda ns: [name for name in ns if name.startswith("_i")])
    assert len(names) < 1010
