"""The view for calls to very many engines, by the name that users know."""

from __future__ import annotations

from parallelz.client.direct import DirectView


class BroadcastView(DirectView):
    """Engines that all run each call; results are always lists, also those of one engine.

    Any `DirectView` sends a call once, however many engines it is for: this one is not faster.
    """
