"""Sections as classes of traitlets: for help texts, commented files, and parsing."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from traitlets import Bool, Dict, Float, Int, List, TraitType, Unicode, Union
from traitlets.config import Configurable

from parallelz.launch.configuration import Command, config_file
from parallelz.launch.configuration_sections import sections_of

AnyTrait = TraitType[Any, Any]

_SIMPLE: dict[object, type[AnyTrait]] = {str: Unicode, int: Int, float: Float, bool: Bool}

_FILE_HEAD = """\
# Configuration of {command}: remove the "# " of what you want to set.
# All of it: ipclusterz --help-all. What is set here goes for all clusters of this profile.

c = get_config()  # noqa: F821 - traitlets defines it

"""


@functools.cache
def classes_of(command: Command) -> dict[str, type[Configurable]]:
    """Return the classes of all sections that a command understands, by their names."""
    return {name: _class(name, struct) for name, struct in sections_of(command).items()}


def help_text(command: Command) -> str:
    """Return all options of a command's sections: type, meaning, default."""
    return "\n\n".join(each.class_get_help() for each in classes_of(command).values())


def commented_file(command: Command) -> str:
    """Return a configuration file in which everything is explained, and commented out."""
    sections = [each.class_config_section() for each in classes_of(command).values()]
    return _FILE_HEAD.format(command=command) + "\n".join(sections)


def write_commented_file(profile_dir: Path, command: Command, *, overwrite: bool) -> bool:
    """Write a command's commented file unless there is one; return whether it was written."""
    path = config_file(profile_dir, command)
    try:
        with path.open("w" if overwrite else "x") as file:
            file.write(commented_file(command))
    except FileExistsError:
        return False
    return True


def attribute_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstrings of a struct and of its bases say of each attribute."""
    texts: dict[str, str] = {}
    for each in reversed(struct.__mro__[: struct.__mro__.index(msgspec.Struct)]):
        texts |= _own_texts(each)
    return texts


def _own_texts(struct: type[object]) -> dict[str, str]:
    _, _, listed = inspect.cleandoc(struct.__doc__ or "").partition("Attributes\n----------\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in listed.splitlines():
        if line and not line.startswith(" "):
            names = line.split(", ")
        elif line.strip():
            for name in names:
                texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return {name: text.replace("``", "") for name, text in texts.items()}


def _class(name: str, struct: type[msgspec.Struct]) -> type[Configurable]:
    texts = attribute_texts(struct)
    members: dict[str, object] = {
        field.name: _trait(field, texts.get(field.name, ""))
        for field in msgspec.structs.fields(struct)
    }
    members["__doc__"] = inspect.cleandoc(struct.__doc__ or "").partition("\n\nAttr")[0]
    return type(name, (Configurable,), members)


def _trait(field: msgspec.structs.FieldInfo, text: str) -> AnyTrait:
    make_default = field.default_factory
    default = field.default if make_default is msgspec.NODEFAULT else make_default()
    kinds = _alternatives(field.type)
    may_be_none = types.NoneType in kinds
    traits = [_one(kind) for kind in kinds if kind is not types.NoneType]
    trait: AnyTrait
    if len(traits) == 1:
        trait = traits[0](default_value=default, allow_none=may_be_none, help=text)
    else:
        # Whatever can be a number is one: so that comes first.
        alternatives = [make() for make in sorted(traits, key=lambda make: make is Unicode)]
        trait = Union(alternatives, default_value=default, allow_none=may_be_none, help=text)
    return trait.tag(config=True)


def _alternatives(kind: object) -> tuple[object, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _one(kind: object) -> Callable[..., AnyTrait]:
    """Return what makes the trait of one type."""
    match typing.get_origin(kind):
        case None:
            return _SIMPLE[kind]
        case builtin if builtin is list:
            (item,) = typing.get_args(kind)
            return functools.partial(List, _one(item)())
        case builtin if builtin is dict:
            # Of mixed values, texts of a command line among them, the launcher makes sense.
            _, value = typing.get_args(kind)
            value_trait = _SIMPLE[value]() if value in _SIMPLE else None
            return functools.partial(Dict, value_trait=value_trait, key_trait=Unicode())
        case other:
            raise TypeError(f"no trait stands for {other}")
