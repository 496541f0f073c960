"""Functions that run only where a condition holds."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable

import pytest

from parallelz import UnmetDependency, depend, dependent, interactive, require
from parallelz.protocol.functions import DefinitionCache, FunctionTable
from parallelz.protocol.pickling import current_supplies, use_supplies


class Engine:
    """What an engine does with definitions."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__builtins__": __builtins__}
        self.cache = DefinitionCache()
        self.table = FunctionTable(self.names)
        self.defined: set[bytes] = set()

    def of(self, function: Callable[..., object]) -> object:
        if isinstance(function, dependent):
            return function.definition(self.of)  # type: ignore[arg-type]
        return self.cache.definition_of(function)

    def run(self, function: Callable[..., object], *args: object) -> object:
        digest, name, (data, buffers) = self.of(function)  # type: ignore[misc]
        if digest not in self.defined:
            self.table.define(digest, name, data, buffers)
            self.defined.add(digest)
        return self.table.resolve(digest)(*args)


@pytest.fixture
def engine() -> object:
    before = current_supplies()
    yield Engine()
    use_supplies(before)


def in_main(code: str) -> dict[str, object]:
    """Run code as if it were typed in."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(code, namespace)
    return namespace


def double(x: int) -> int:
    """Return twice as much."""
    return 2 * x


def is_large(x: int, than: int = 3) -> object:
    return x > than


def test_it_runs_where_the_condition_holds(engine: Engine) -> None:
    assert engine.run(depend(is_large, 4)(double), 5) == 10
    assert engine.run(dependent(double, is_large, 4, than=2), 5) == 10
    assert engine.run(depend(len, [])(double), 1) == 2  # 0 is not False
    with pytest.raises(UnmetDependency, match="is_large returned False"):
        engine.run(depend(is_large, 1)(double), 5)


def test_it_keeps_its_name_and_its_documentation() -> None:
    guarded = depend(is_large, 4)(double)
    assert (guarded.__name__, guarded.__doc__) == ("double", "Return twice as much.")
    assert guarded.__wrapped__ is double
    assert guarded(2) == 4
    with pytest.raises(UnmetDependency):
        depend(is_large, 1)(double)(2)
    with pytest.raises(TypeError, match="functions"):
        dependent(double, 5)  # type: ignore[arg-type]


def test_it_can_be_pickled_by_itself(engine: Engine) -> None:
    again = pickle.loads(pickle.dumps(depend(is_large, 4)(double)))
    assert again(4) == 8
    assert engine.run(lambda: depend(is_large, 4)(double)(3)) == 6


def test_sent_again_it_is_the_same_definition(engine: Engine) -> None:
    code = "def yes(x): return x\ndef f(x): return helper(x)\ndef helper(x): return x"
    names = in_main(code)
    guarded = require("math", double)(depend(names["yes"], [1])(names["f"]))  # type: ignore[arg-type]
    first = engine.of(guarded)
    assert engine.of(guarded) is first
    assert engine.run(guarded, 3) == 3
    exec("def helper(x): return -x", names)
    assert engine.run(guarded, 3) == -3


def test_require_imports_modules_and_brings_functions(engine: Engine) -> None:
    task = in_main("def f(): return json.dumps([double(4), limit])")["f"]
    assert engine.run(require("json", "os.path", double, limit=7)(task)) == "[8, 7]"  # type: ignore[arg-type]
    assert {"json", "os", "double", "limit"} <= set(engine.names)


def test_names_that_the_user_set_on_the_engine_win(engine: Engine) -> None:
    engine.names["double"] = abs
    task = in_main("def f(): return double(-4)")["f"]
    assert engine.run(require(double)(task)) == 4  # type: ignore[arg-type]


def test_a_missing_module_is_unmet_also_if_the_function_refers_to_it(engine: Engine) -> None:
    module = types.ModuleType("only_here_of_all_places")
    sys.modules[module.__name__] = module
    names = in_main("import only_here_of_all_places\ndef f(): return only_here_of_all_places")
    guarded = require(module)(names["f"])  # type: ignore[arg-type]
    engine.of(guarded)
    del sys.modules[module.__name__]
    with pytest.raises(UnmetDependency, match="module 'only_here_of_all_places' cannot be"):
        engine.run(guarded)


def test_require_says_what_it_takes() -> None:
    with pytest.raises(TypeError, match="modules, their names, functions"):
        require(5)


def test_an_interactive_function_has_the_globals_of_main() -> None:
    def f(x: int, *, by: int = 2) -> object:
        return x * by, globals()["__name__"]

    made = interactive(f)
    assert made(2) == (4, "__main__")
    assert made.__module__ == "__main__"
    assert interactive(len) is len
