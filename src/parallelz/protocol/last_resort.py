"""A pickler for what neither pickle nor cloudpickle can: dill, if the user wants it.

It is asked for a whole object after ours have failed. So what can be sent without it is sent as
ever: without a copy, and with functions that have the engine's namespace as their globals.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable

_dumps: Callable[[object], bytes] | None = None
_loads: Callable[[bytes], object] | None = None


def use_dill() -> None:
    """Let dill pickle what cannot be pickled otherwise, in this process.

    Where that arrives dill must be installed, too; see `DirectView.use_dill`.

    Raises
    ------
    ImportError
        If it is not installed here.
    """
    global _dumps, _loads
    try:
        import dill
    except ImportError:
        raise ImportError(
            f"dill is not installed for {sys.executable}: `pip install dill`, here and"
            " where the engines are"
        ) from None
    _dumps, _loads = dill.dumps, dill.loads


def use_cloudpickle() -> None:
    """Use nothing but pickle and, where that cannot, cloudpickle, as at the start."""
    global _dumps, _loads
    _dumps = _loads = None


def use_pickle() -> None:
    """Do as `use_cloudpickle`: functions always go by value where they must."""
    use_cloudpickle()


def dump_otherwise(obj: object) -> bytes | None:
    """Return the object pickled by what was chosen; None: nothing was."""
    if _dumps is None or _loads is None:
        return None
    return pickle.dumps(_Otherwise(_loads, _dumps(obj)), 5)


class _Otherwise:
    def __init__(self, loads: Callable[[bytes], object], data: bytes) -> None:
        self._how = (loads, (data,))

    def __reduce__(self) -> tuple[object, ...]:
        return self._how
