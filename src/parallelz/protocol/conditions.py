"""Functions that run only where a condition holds: ``@depend``, ``@require``, ``@interactive``.

Where it does not, the task ends on that engine with `UnmetDependency` and goes to another one.

Theory of operation
-------------------
A `dependent` function travels as a `Guard`: the definition of its condition, the condition's
arguments, and the definition of the function, each still pickled. So the condition is looked at
*before* the function is unpickled; a function that refers to a module which the engine lacks
could not even be unpickled there, and that would be an error instead of another engine. As both
are definitions, what `functions` knows about using one again holds for them too, and a function
that is sent often costs two looks at a cache.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Generic, NamedTuple, ParamSpec, TypeVar, cast

from parallelz.errors import UnmetDependency
from parallelz.protocol import payload
from parallelz.protocol.functions import DefinedFunction, Definition, define
from parallelz.protocol.payload import Payload
from parallelz.protocol.pickling import current_supplies

Task = Callable[..., object]
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Task)


class _Sent(NamedTuple):
    """The definition that was made of these two."""

    task: Definition
    condition: Definition
    definition: Definition


class dependent(Generic[P, R]):
    """A function that runs only on engines where a condition holds.

    Calling it here looks at the condition here.

    Parameters
    ----------
    task
        What to call with the arguments of the call.
    f
        The condition, called before each run on the engine, in its namespace. If it returns
        exactly False, or raises `UnmetDependency`, the task goes to another engine.
    *args, **kwargs
        What `f` is called with, as it is when the function is first sent.
    """

    def __init__(
        self, task: Callable[P, R], f: Callable[..., object], /, *args: object, **kwargs: object
    ) -> None:
        for function in (task, f):
            if not callable(function):
                raise TypeError(f"a condition and its task are functions, not {function!r}")
        self.func = task
        self.condition = f
        self.args = args
        self.kwargs = kwargs
        self._arguments: Payload | None = None
        self._sent: _Sent | None = None
        functools.update_wrapper(self, task, updated=())

    def __repr__(self) -> str:
        return f"<dependent {_name_of(self.func)} on {_name_of(self.condition)}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Look at the condition, then call the function.

        Raises
        ------
        UnmetDependency
            If the condition does not hold.
        """
        _check(self.condition, self.args, self.kwargs)
        return self.func(*args, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        return (_dependent, (self.func, self.condition, self.args, self.kwargs))

    def definition(self, definition_of: Callable[[Task], Definition]) -> Definition:
        """Return what to send, made of the definitions of the function and its condition."""
        task, condition = definition_of(self.func), definition_of(self.condition)
        sent = self._sent
        if sent is not None and sent.task == task and sent.condition == condition:
            return sent.definition
        if self._arguments is None:
            self._arguments = payload.dump((self.args, self.kwargs))
        guard = Guard(condition.name, condition.payload, self._arguments, task.payload)
        definition = define(task.name, payload.dump(guard))
        self._sent = _Sent(task, condition, definition)
        return definition


def _dependent(
    task: Callable[P, R], f: Task, args: tuple[object, ...], kwargs: dict[str, object]
) -> dependent[P, R]:
    return dependent(task, f, *args, **kwargs)


def depend(
    f: Callable[..., object], /, *args: object, **kwargs: object
) -> Callable[[Callable[P, R]], dependent[P, R]]:
    """Return a decorator: the function runs only where ``f(*args, **kwargs)`` holds.

    Parameters
    ----------
    f
        Called on the engine before each run. If it returns exactly False, the task goes to an
        engine that it has not been tried on; `ImpossibleDependency` if there is none.
    """
    return lambda task: dependent(task, f, *args, **kwargs)


def require(*objects: object, **mapping: object) -> Callable[[Callable[P, R]], dependent[P, R]]:
    """Return a decorator: the function runs only where it has what it needs.

    Parameters
    ----------
    *objects
        Names of modules, or modules: imported on the engine, into its namespace. Functions and
        classes: set there by their name, unless the user has set that name otherwise.
    **mapping
        Other objects to set there, by name.

    Raises
    ------
    TypeError
        If something among `objects` has no name of its own.
    """
    modules: list[str] = []
    for thing in objects:
        if isinstance(thing, str):
            modules.append(thing)
        elif isinstance(thing, ModuleType):
            modules.append(thing.__name__)
        elif callable(thing) and isinstance(getattr(thing, "__name__", None), str):
            mapping[_name_of(thing)] = thing
        else:
            raise TypeError(
                "require takes modules, their names, functions and classes; other objects by"
                f" name, such as require(x=...); not {thing!r}"
            )
    return depend(provide, modules, mapping)


def provide(modules: list[str], values: dict[str, object]) -> bool:
    """Import modules into the engine's namespace and set names there, for `require`.

    Raises
    ------
    UnmetDependency
        If there is no such module.
    """
    supplies = current_supplies()
    for name in modules:
        try:
            __import__(name)
        except ImportError as error:
            raise UnmetDependency(f"module {name!r} cannot be imported: {error}") from error
        top = name.partition(".")[0]
        supplies.supply({top: sys.modules[top]})
    supplies.supply(values)
    return True


def interactive(f: F) -> F:
    """Return the function as if it had been typed in: its globals are those of ``__main__``.

    On engines that is their namespace. Its closure and defaults are kept.
    """
    if not isinstance(f, FunctionType):
        return f
    main = sys.modules["__main__"].__dict__
    made = FunctionType(f.__code__, main, f.__name__, f.__defaults__, f.__closure__)
    made.__kwdefaults__ = f.__kwdefaults__
    functools.update_wrapper(made, f)
    del made.__dict__["__wrapped__"]  # the original would travel along
    made.__module__ = "__main__"
    return cast("F", made)


class Guard:
    """A `dependent` function on an engine.

    Parameters
    ----------
    name
        Of the condition.
    condition, task
        Definitions, unpickled when they are first called: the task not before the condition
        held.
    arguments
        What the condition is called with: a tuple and a dictionary.
    """

    def __init__(
        self, name: str, condition: Payload, arguments: Payload, task: Payload
    ) -> None:
        self._made_of = (name, condition, arguments, task)
        supplies = current_supplies()
        self._condition = DefinedFunction(supplies, name, *condition)
        self._task = DefinedFunction(supplies, "", *task)
        self._arguments: tuple[tuple[object, ...], dict[str, object]] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (Guard, self._made_of)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Look at the condition, then call the function."""
        if self._arguments is None:
            loaded = payload.load(*self._made_of[2])
            self._arguments = cast("tuple[tuple[object, ...], dict[str, object]]", loaded)
        _check(self._condition.resolve(), *self._arguments)
        return self._task.resolve()(*args, **kwargs)


def _check(condition: Task, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    if condition(*args, **kwargs) is False:
        raise UnmetDependency(f"{_name_of(condition)} returned False")


def _name_of(function: object) -> str:
    return str(getattr(function, "__name__", None) or type(function).__name__)
