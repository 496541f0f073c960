from __future__ import annotations

import functools
import json
import math
import os.path
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelz.errors import SerializationError, UnknownFunction
from parallelz.ids import Digest
from parallelz.protocol import payload
from parallelz.protocol.failures import describe
from parallelz.protocol.functions import (
    DefinitionCache,
    FunctionTable,
    KnownDefinitions,
    Named,
    Reference,
    SentDefinitions,
    named_definition,
    resolve_references,
)
from parallelz.protocol.pickling import Supplies, current_supplies, use_supplies


class Client:
    """A user's __main__ and what makes definitions of its functions."""

    def __init__(self, code: str = "") -> None:
        self.main: dict[str, Any] = {"__name__": "__main__"}
        self.cache = DefinitionCache()
        self.run(code)

    def run(self, code: str) -> None:
        exec(code, self.main)

    def digest_of(self, name: str) -> Digest:
        return self.cache.definition_of(self.main[name]).digest


class Engine:
    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {}
        self.table = FunctionTable(self.namespace)

    def take(self, client: Client, function: str | Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(function, str):
            function = client.main[function]
        definition = client.cache.definition_of(function)
        self.table.define(definition.digest, definition.name, *definition.payload)
        return self.table.resolve(definition.digest)


@pytest.fixture(autouse=True)
def _namespace_of_this_process() -> Any:
    before = use_supplies(Supplies({}))
    yield
    use_supplies(before)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize("function", [json.dumps, os.path.join, json.JSONEncoder.encode])
def test_a_function_of_a_module_goes_by_name(function: Any, engine: Engine) -> None:
    client = Client()
    assert engine.take(client, function) is function
    sent = payload.load(*client.cache.definition_of(function).payload)
    assert sent == Named(function.__module__, function.__qualname__)


def test_a_function_can_be_named_without_importing_it(engine: Engine) -> None:
    definition = named_definition("colorsys", "rgb_to_hsv")
    assert definition == named_definition("colorsys", "rgb_to_hsv")
    engine.table.define(definition.digest, definition.name, *definition.payload)
    assert engine.table.resolve(definition.digest)(1, 1, 1) == (0.0, 0.0, 1)


def test_a_module_that_the_engine_lacks_is_an_error_of_the_task_each_time(
    engine: Engine,
) -> None:
    definition = named_definition("no_such_module_here", "f")
    engine.table.define(definition.digest, definition.name, *definition.payload)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
            engine.table.resolve(definition.digest)


def test_a_function_of_main_has_the_engines_namespace_as_its_globals(engine: Engine) -> None:
    f = engine.take(Client("def f(x): return a + b + x"), "f")
    assert f.__globals__ is engine.namespace
    engine.namespace.update(a=1, b=2)
    assert f(27) == 30


def test_helpers_modules_classes_and_small_values_come_along(engine: Engine) -> None:
    client = Client(
        "import math as m\n"
        "LIMIT = 10\n"
        "class Scale:\n"
        "    def by(self, x): return x * LIMIT\n"
        "def even(n): return n == 0 or odd(n - 1)\n"
        "def odd(n): return n != 0 and even(n - 1)\n"
        "def f(x): return (m.floor(x), Scale().by(x), even(4), [LIMIT for _ in 'a'])\n"
    )
    assert engine.take(client, "f")(2.5) == (2, 25.0, True, [10])
    assert engine.namespace["even"].__globals__ is engine.namespace


def test_a_value_that_stays_at_home_is_not_replaced_by_an_earlier_one(engine: Engine) -> None:
    client = Client("x = 1\ndef f(): return x\ndef g(): return x + 1\n")
    assert engine.take(client, "f")() == 1
    assert engine.take(client, "g")() == 2
    client.run("import threading; x = threading.Lock()")
    with pytest.raises(NameError, match="name 'x' is not defined") as caught:
        engine.take(client, "f")()
    info, _ = describe(caught.value)
    assert "'x' of the client did not come along: it cannot be pickled" in info.traceback
    engine.namespace["x"] = 5  # as by a push
    assert engine.take(client, "f")() == 5


def test_defaults_closure_attributes_and_names_come_along(engine: Engine) -> None:
    client = Client(
        "def make(k):\n"
        "    def f(x, y=2, *, z=3):\n"
        "        'doc'\n"
        "        return (x, y, z, k, f.tag)\n"
        "    f.tag = 't'\n"
        "    return f\n"
        "f = make(4)\n"
    )
    f = engine.take(client, "f")
    assert f(1) == (1, 2, 3, 4, "t")
    assert (f.__qualname__, f.__doc__) == ("make.<locals>.f", "doc")


def test_a_name_that_the_user_set_on_the_engine_wins(engine: Engine) -> None:
    client = Client("def helper(): return 'client'\ndef f(): return helper()")
    engine.namespace["helper"] = lambda: "engine"
    assert engine.take(client, "f")() == "engine"
    del engine.namespace["helper"]
    assert engine.take(client, "f")() == "client"
    engine.namespace["helper"] = lambda: "engine again"
    assert engine.take(client, "f")() == "engine again"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("k = 1\ndef f(): return k", "k = 2"),
        ("k = [1]\ndef f(): return k[0]", "k[0] = 2"),
        ("def g(): return 1\ndef f(): return g()", "def g(): return 2"),
        ("def h(): return 1\ndef g(): return h()\ndef f(): return g()", "def h(): return 2"),
        ("def g(x=1): return x\ndef f(): return g()", "g.__defaults__ = (2,)"),
        ("def g(): return 1\ndef f(): return g()", "g.__code__ = (lambda: 2).__code__"),
        ("def f(x=1): return x", "f.__defaults__ = (2,)"),
        ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2"),
        ("def f(x=[1]): return x[0]", "f.__defaults__[0][0] = 2"),
        ("def f(): return f.tag\nf.tag = 1", "f.tag = 2"),
        ("def make(k): return lambda: k\nf = make(1)", "f.__closure__[0].cell_contents = 2"),
        ("def make(k): return lambda: k\nf = make(1)", "f = make(2)"),
        ("class K:\n  def m(self): return 1\ndef f(): return K().m()", "K.m = lambda self: 2"),
        ("def f(): return abs(-1)", "abs = lambda x: 2"),
        ("class K: v = 1\nk = K()\ndef f(): return k.v", "k.v = 2"),
    ],
)
def test_redefining_anything_takes_effect_at_the_next_call(
    before: str, after: str, engine: Engine
) -> None:
    client = Client(before)
    assert engine.take(client, "f")() == 1
    client.run(after)
    assert engine.take(client, "f")() == 2


@pytest.mark.parametrize(
    "code",
    [
        "def f(x): return len(x)",
        "import math\nK = (1, 'a')\ndef g(): return math.pi\ndef f(x=1): return g(), K",
        "data = {'mutable': [1, 2]}\ndef f(): return data",
        "def make(k): return lambda: k\nf = make({1: 2})",
    ],
)
def test_the_same_function_has_the_same_digest_so_it_is_sent_once(code: str) -> None:
    client = Client(code)
    digests = {client.digest_of("f") for _ in range(3)}
    assert len(digests) == 1
    client.cache = DefinitionCache()
    assert client.digest_of("f") in digests


def test_functions_made_again_and_again_of_the_same_code_are_the_same() -> None:
    client = Client("def make(k): return lambda x: x + k")
    first, second, other = (client.main["make"](k) for k in (1, 1, 2))
    assert first is not second
    digests = [client.cache.definition_of(f).digest for f in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]


def test_two_clients_with_different_helpers_of_one_name_get_their_own(engine: Engine) -> None:
    code = "def helper(): return {0}\ndef f(): return helper() + {0}"
    one, two = Client(code.format(1)), Client(code.format(10))
    for _ in range(2):
        assert engine.take(one, "f")() == 2
        assert engine.take(two, "f")() == 20


def test_a_function_inside_arguments_behaves_the_same(engine: Engine) -> None:
    client = Client("def helper(): return a\ndef f(): return helper()")
    sent = payload.dump((1, ({"f": client.main["f"]},), {}))
    arrived = payload.load(*sent)
    assert isinstance(arrived, tuple)
    f = arrived[1][0]["f"]
    assert f.__globals__ is engine.namespace
    engine.namespace["a"] = 5
    assert f() == 5


@pytest.mark.parametrize(
    ("value", "reason"),
    [("'x' * 100_000", "larger than 64 kB"), ("__import__('threading').Lock()", "pickle")],
)
def test_what_stays_at_home_is_a_name_error_with_a_hint(
    value: str, reason: str, engine: Engine
) -> None:
    f = engine.take(Client(f"data = {value}\ndef f(): return data"), "f")
    with pytest.raises(NameError) as caught:
        f()
    info, _ = describe(caught.value)
    assert "'data' of the client did not come along" in info.traceback
    assert reason in info.traceback
    engine.namespace["data"] = "pushed"
    assert f() == "pushed"


HELP = [1, 2]


def helper_of_this_module(x: int) -> int:
    return x + len(HELP)


def test_a_lambda_of_another_module_does_not_see_the_users_names(engine: Engine) -> None:
    client = Client()
    engine.namespace.update(math="the user's", helper_of_this_module="too")
    f = engine.take(client, lambda x: helper_of_this_module(math.floor(x)) + np.int64(HELP[0]))
    assert f(1.5) == 4
    assert f.__globals__ is not engine.namespace
    assert "np" not in engine.namespace


def test_what_imports_from_c_finds_the_builtins_in_such_a_function(engine: Engine) -> None:
    taken = engine.take(Client(), lambda: 1)
    assert taken.__globals__ is not engine.namespace
    assert "__builtins__" in taken.__globals__


def test_functions_of_one_module_still_share_their_globals(engine: Engine) -> None:
    def inner() -> int:
        return len(HELP)

    def outer() -> Any:
        return HELP, inner

    arrived = engine.take(Client(), outer)
    assert arrived()[1].__globals__ is arrived.__globals__


class Adder:
    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, x: int) -> int:
        return self.k + x

    def method(self, x: int) -> int:
        return self.k * x


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (Adder(3), 8),
        (Adder(3).method, 15),
        (functools.partial(pow, 2), 32),
        (functools.partial(lambda k, x: k + x, 1), 6),
        (float, 5.0),
        (math.sqrt, math.sqrt(5)),
        (np.negative, -5),
    ],
    ids=["object", "method", "partial", "partial of a lambda", "type", "built-in", "ufunc"],
)
def test_any_callable_can_be_sent(function: Any, result: float, engine: Engine) -> None:
    assert engine.take(Client(), function)(5) == result


def test_a_function_that_cannot_be_sent_says_which_part_of_it() -> None:
    lock = threading.Lock()

    def guarded() -> Any:
        return lock

    with pytest.raises(
        SerializationError, match="function guarded, variable 'lock' of guarded"
    ):
        DefinitionCache().definition_of(guarded)


def test_tracebacks_show_the_users_own_lines(
    engine: Engine, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("\n\ndef f(x):\n    y = 1\n    return y / x  # my line\n")
    client = Client()
    client.main["__file__"] = str(script)
    exec(compile(script.read_text(), str(script), "exec"), client.main)
    f = engine.take(client, "f")
    script.write_text("# changed since\n" * 20)
    with pytest.raises(ZeroDivisionError) as caught:
        f(0)
    text = "".join(traceback.format_exception(caught.value))
    assert f'{script}", line 5, in f\n    return y / x  # my line' in text


@pytest.mark.process
def test_a_script_in_another_process_sends_what_works_here(
    engine: Engine, tmp_path: Any
) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import sys, math\n"
        "from parallelz.protocol.functions import DefinitionCache\n"
        "class Box:\n"
        "    def __init__(self, x): self.x = x\n"
        "def helper(x): return Box(math.floor(x))\n"
        "def f(x): return helper(x).x + a\n"
        "definition = DefinitionCache().definition_of(f)\n"
        "assert not definition.payload.buffers\n"
        "sys.stdout.buffer.write(definition.payload.data)\n"
    )
    data = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    engine.table.define(Digest(b"1"), "f", data)
    engine.namespace["a"] = 10
    assert engine.table.resolve(Digest(b"1"))(2.5) == 12


def test_a_reference_stands_for_what_the_engine_has() -> None:
    namespace: dict[str, object] = {"a": [1, 2], "n": math}
    args = (Reference("a"), [Reference("a[1]")], (1, Reference("n.pi")), 5, [[Reference("a")]])
    kwargs = {"k": {"x": Reference("a")}, "y": Reference("a")}
    arrived = payload.load(*payload.dump((args, kwargs)))
    assert isinstance(arrived, tuple)
    resolved, named = resolve_references(*arrived, namespace)
    assert resolved[:4] == ([1, 2], [2], (1, math.pi), 5)
    assert resolved[0] is namespace["a"]
    assert resolved[4] == [[Reference("a")]], "only the first level"
    assert named == {"k": {"x": [1, 2]}, "y": [1, 2]}
    with pytest.raises(NameError, match="missing"):
        resolve_references((Reference("missing"),), {}, namespace)


def test_a_reference_can_be_the_function_and_is_looked_up_at_each_call(engine: Engine) -> None:
    engine.namespace["g"] = lambda: 1
    assert engine.take(Client(), Reference("g"))() == 1  # type: ignore[arg-type]
    engine.namespace["g"] = lambda: 2
    assert engine.take(Client(), Reference("g"))() == 2  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="made of a str"):
        Reference(3)  # type: ignore[arg-type]


def test_a_function_found_when_its_task_arrives_outlives_its_eviction(engine: Engine) -> None:
    client = Client("def f(): return 1")
    digest = client.digest_of("f")
    engine.table.define(digest, "f", *client.cache.definition_of(client.main["f"]).payload)
    found = engine.table.find(digest)
    for number in range(600):
        engine.table.define(Digest(b"%d" % number), "", b"")
    with pytest.raises(UnknownFunction, match=digest.hex()):
        engine.table.find(digest)
    assert found.resolve()() == 1


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_both_ends_of_a_connection_remember_the_same_definitions(
    numbers: list[int], length_max: int
) -> None:
    sent = SentDefinitions(length_max)
    known: KnownDefinitions[int] = KnownDefinitions(length_max)
    for number in numbers:
        digest = Digest(bytes([number]))
        if sent.need(digest):
            known.put(digest, number)
        assert known.get(digest) == number
        assert list(known) == list(sent)
        assert len(list(known)) <= length_max


def test_a_functions_namespace_is_main_on_a_client() -> None:
    before = use_supplies(Supplies(sys.modules["__main__"].__dict__))
    assert current_supplies().namespace is sys.modules["__main__"].__dict__
    use_supplies(before)


def test_what_c_code_imports_is_found_from_a_function_by_value() -> None:
    def importer() -> object:
        return globals()["__builtins__"]

    assert importer.__module__ not in ("__main__", "__mp_main__")
    sent = payload.load(*payload.dump(importer))
    assert callable(sent)
    assert sent() is not None
