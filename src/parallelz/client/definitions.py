"""What the controller knows of this client's functions, and what it must be told first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from parallelz.ids import Digest
from parallelz.protocol.conditions import dependent
from parallelz.protocol.envelope import Item
from parallelz.protocol.functions import (
    DEFINITIONS_MAX,
    Definition,
    DefinitionCache,
    Reference,
    SentDefinitions,
)
from parallelz.protocol.messages import DefineFunction

UserFunction = Callable[..., object] | Reference
"""What users can have called on engines."""

Function = UserFunction | Definition


class Definitions:
    """Which functions the controller knows, and what they are."""

    def __init__(self) -> None:
        self._cache = DefinitionCache()
        # Not a simple lock: pickling runs code of the user, which may submit.
        self._cache_lock = threading.RLock()
        self._sent = SentDefinitions()
        self._kept: OrderedDict[Digest, Definition] = OrderedDict()

    def of(self, function: Function) -> Definition:
        """Return the definition of a function as it is now."""
        if isinstance(function, Definition):
            return function
        if not callable(function) and not isinstance(function, Reference):
            raise TypeError(f"f must be callable, not {type(function)}")
        with self._cache_lock:
            if isinstance(function, dependent):
                return function.definition(self.of)
            return self._cache.definition_of(function)

    def needed(self, definition: Definition) -> Item | None:
        """Return the message that must precede the use of `definition`, if any."""
        if not self._sent.need(definition.digest):
            return None
        self._kept[definition.digest] = definition
        if len(self._kept) > DEFINITIONS_MAX:
            self._kept.popitem(last=False)
        return _define(definition)

    def anew(self) -> list[Item]:
        """Return all definitions once more, for a controller that knows none."""
        self._sent = SentDefinitions()
        for digest in self._kept:
            self._sent.need(digest)
        return [_define(definition) for definition in self._kept.values()]


def _define(definition: Definition) -> Item:
    data, buffers = definition.payload
    message = DefineFunction(definition.digest, definition.name, data, len(buffers))
    return (message, buffers)
