"""The scripts of batch jobs, with fields such as ``${n}``; no I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from parallelz.errors import ClusterError

_FIELD = re.compile(
    r"""
    (?P<dollar>\$\$)
    | \$\{ (?P<braced>[^{}]*) \}
    | (?<!\$) \{ (?P<plain>[A-Za-z_]\w*) \}
    """,
    re.VERBOSE,
)
_SUM = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:([*/+-])\s*(\d+)\s*)?")


def fill(template: str, fields: Mapping[str, str | int]) -> str:
    """Return a template with its fields filled in.

    Parameters
    ----------
    template
        ``${name}`` and ``{name}`` stand for a field. ``${n/4}`` computes with a field that is a
        number, by one of ``* / + -`` and a whole number; a quotient is rounded up. ``$$`` is a
        dollar sign, so ``$${HOME}`` is the shell's own. Braces with something else in them
        stay as they are.

    Raises
    ------
    ClusterError
        If a field in ``${}`` is unknown, or cannot be computed with.
    """

    def filled(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        if found["plain"] is not None:
            return str(fields.get(found["plain"], found[0]))
        return _computed(found["braced"], fields)

    return _FIELD.sub(filled, template)


def _computed(text: str, fields: Mapping[str, str | int]) -> str:
    parts = _SUM.fullmatch(text)
    name = parts[1] if parts else text.strip()
    if parts is None or name not in fields:
        near = difflib.get_close_matches(name, fields, n=1)
        hint = f"did you mean ${{{near[0]}}}?" if near else f"there are {', '.join(fields)}"
        raise ClusterError(
            f"the template of the job has ${{{text}}}, which is no field; {hint}"
            f" For the shell's own write $${{{text}}}"
        )
    value, operator, number = fields[name], parts[2], int(parts[3] or 0)
    if not operator:
        return str(value)
    if not isinstance(value, int) or (operator == "/" and number == 0):
        raise ClusterError(f"the template of the job cannot compute ${{{text}}}")
    match operator:
        case "*":
            return str(value * number)
        case "/":
            return str(-(-value // number))
        case "+":
            return str(value + number)
        case _:
            return str(value - number)
