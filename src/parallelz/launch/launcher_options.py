"""Options of a launcher, checked where they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from parallelz.errors import ClusterError
from parallelz.option_values import nearest

T = TypeVar("T", bound=msgspec.Struct)


def to_options(options_type: type[T], given: Mapping[str, Any], launcher: str) -> T:
    """Return what was given as the struct of a launcher.

    Numbers may be texts, as on a command line.

    Raises
    ------
    ClusterError
        If there is no such option, or what is given makes no sense; says which and why.
    """
    known = options_type.__struct_fields__
    for name in given:
        if name not in known:
            raise ClusterError(
                f"the launcher {launcher} has no option {name!r}; {nearest(name, known)}"
            )
    try:
        return msgspec.convert(dict(given), options_type, strict=False)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        shown = f"={given[name]!r}" if name in given else ""
        raise ClusterError(
            f"the launcher {launcher} cannot use its option {name}{shown}: {why}"
        ) from None
