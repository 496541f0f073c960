"""What a pickler of the user's choice adds; a small one stands for dill."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import parallelz
from parallelz import Client, DirectView, LoadBalancedView, SerializationError

pytestmark = pytest.mark.process

DILL = """
import cloudpickle, io, pickle, threading

class Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj):
        if type(obj) is type(threading.Lock()):
            return (threading.Lock, ())
        return super().reducer_override(obj)

def dumps(obj):
    file = io.BytesIO()
    Pickler(file, 5).dump(obj)
    return file.getvalue()

def loads(data):
    return pickle.loads(data)
"""


@pytest.fixture
def dill(dv: DirectView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be a dill on both sides."""
    (tmp_path / "dill.py").write_text(DILL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "dill", raising=False)
    find = f"import sys; sys.modules.pop('dill', None); sys.path.insert(0, {str(tmp_path)!r})"
    dv.execute(find, block=True)
    yield
    dv.use_cloudpickle()
    dv.execute("sys.path.pop(0); sys.modules.pop('dill', None)", block=True)
    sys.modules.pop("dill", None)


def by_value() -> Callable[[object], str]:
    return lambda thing: type(thing).__name__


def test_dill_sends_what_could_not_be_sent_both_ways(
    dill: None, dv: DirectView, lv: LoadBalancedView
) -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        lv.apply_sync(by_value(), lock)
    dv.use_dill()
    kind = type(lock).__name__
    assert lv.apply_sync(by_value(), lock) == kind
    assert lv.map_sync(by_value(), [lock, 1]) == [kind, "int"]
    assert type(lv.apply_sync(threading.Lock)) is type(lock)
    held = {"lock": lock}
    assert lv.apply_sync(lambda: len(held)) == 1
    with pytest.raises(SerializationError):
        lv.apply_sync(by_value(), sys._getframe())


@pytest.mark.parametrize("name", ["use_cloudpickle", "use_pickle"])
def test_the_others_are_as_at_the_start(
    dill: None, dv: DirectView, lv: LoadBalancedView, name: str
) -> None:
    dv.use_dill()
    getattr(dv, name)()
    with pytest.raises(SerializationError, match="lock"):
        lv.apply_sync(by_value(), threading.Lock())
    with pytest.raises(parallelz.RemoteError, match="lock"):
        lv.apply_sync(threading.Lock)
    assert lv.apply_sync(lambda: "by value") == "by value"


def test_without_dill_the_error_says_what_to_do(
    rc: Client, dv: DirectView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    with pytest.raises(ImportError, match="pip install dill"):
        dv.use_dill()
    with pytest.raises(ImportError, match="pip install dill"):
        parallelz.use_dill()


def test_without_dill_on_the_engines_the_error_is_theirs(dill: None, rc: Client) -> None:
    rc[1].execute("import sys; sys.modules['dill'] = None", block=True)
    with pytest.raises(ImportError, match="pip install dill"):
        rc[1].use_dill()
