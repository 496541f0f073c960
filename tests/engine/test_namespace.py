"""The engine's names: a mapping with attributes, and the module ``__main__``."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator

import pytest

from parallelz.engine.namespace import Main


@pytest.fixture
def main() -> Iterator[Main]:
    before = sys.modules["__main__"]
    yield Main()
    sys.modules["__main__"] = before


def test_names_are_items_and_attributes(main: Main) -> None:
    names = main.namespace
    names.a = 1
    names["b"] = names.a + 1
    assert (names.b, "a" in names, main.names["a"]) == (2, True, 1)
    del names.a
    assert "a" not in names


def test_missing_name_says_which(main: Main) -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = main.namespace.nothing
    with pytest.raises(AttributeError, match="'nothing'"):
        del main.namespace.nothing
    assert not hasattr(main.namespace, "nothing")


def test_classes_made_on_the_engine_can_be_pickled(main: Main) -> None:
    exec("class A: pass", main.names)
    instance = main.names["A"]()  # type: ignore[operator]
    assert type(pickle.loads(pickle.dumps(instance))) is main.names["A"]


def test_namespace_itself_cannot_be_sent_and_says_so(main: Main) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(main.namespace)


def test_clear_lets_others_prepare_while_the_names_are_still_there(main: Main) -> None:
    main.names["x"] = 1
    seen: list[bool] = []
    main.before_clear.append(lambda: seen.append("x" in main.names))
    main.clear()
    assert seen == [True]
    assert "x" not in main.names
