"""Functions of a module that is on the client's path, and not on that of the engines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest

from parallelz import Client, LoadBalancedView

pytestmark = pytest.mark.process

SOURCE = """
from dataclasses import dataclass
import math

LIMIT = 10
TABLE = list(range(100_000))

@dataclass
class Point:
    x: int
    def doubled(self):
        return Point(scaled(self.x))

def scaled(x):
    return min(math.floor(2 * x), LIMIT)

def large():
    return len(TABLE)
"""


ADVICE = "cloudpickle.register_pickle_by_value(own_helpers)"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "own_helpers.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    import own_helpers

    yield own_helpers
    if "own_helpers" in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(own_helpers)
    del sys.modules["own_helpers"]


def test_an_engine_without_the_module_says_what_to_do(
    module: ModuleType, rc: Client, lv: LoadBalancedView
) -> None:
    def import_it(x: int) -> None:
        import own_helpers  # noqa: F401

    directory = rc[0].apply_sync(os.getcwd)
    with pytest.raises(ModuleNotFoundError) as caught:
        lv.apply_sync(module.scaled, 1)
    told = "".join(caught.value.__notes__)
    assert f"no module 'own_helpers': it looks in {directory}" in told
    assert sys.executable in told
    assert ADVICE in told
    for refused in (
        lambda: lv.apply_sync(abs, module.Point(1)),  # an argument
        lambda: lv.apply_sync(lambda: module.scaled(1)),  # a global
        lambda: rc[0].execute("import own_helpers", block=True),
    ):
        with pytest.raises(ModuleNotFoundError) as caught:
            refused()
        assert ADVICE in "".join(caught.value.__notes__)
    (error,) = lv.map(import_it, [1], return_exceptions=True, block=True)
    assert ADVICE in "".join(error.__notes__)


def test_what_is_in_a_module_goes_by_value_if_the_user_wants_it(
    module: ModuleType, lv: LoadBalancedView
) -> None:
    cloudpickle.register_pickle_by_value(module)
    assert lv.map_sync(module.scaled, [1.5, 20]) == [3, 10]
    point = lv.apply_sync(module.Point.doubled, module.Point(2))
    assert point == module.Point(4)
    assert type(point) is module.Point
    assert lv.apply_sync(lambda: module.scaled(2)) == 4
    module.LIMIT = 5  # type: ignore[attr-defined]
    assert lv.apply_sync(module.scaled, 20) == 5
    assert lv.apply_sync(lambda: module.scaled(20)) == 5
    with pytest.raises(NameError, match="'TABLE' of the client did not come along"):
        lv.apply_sync(module.large)
    cloudpickle.unregister_pickle_by_value(module)
    with pytest.raises(ModuleNotFoundError):
        lv.apply_sync(module.scaled, 7)


def test_a_package_stands_for_the_modules_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lv: LoadBalancedView
) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "inner.py").write_text("def one(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import own_package.inner

    cloudpickle.register_pickle_by_value(own_package)
    try:
        assert lv.apply_sync(own_package.inner.one) == 1
    finally:
        cloudpickle.unregister_pickle_by_value(own_package)
        for name in ("own_package", "own_package.inner"):
            del sys.modules[name]
