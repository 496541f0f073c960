"""Which of a controller's addresses a peer tries, for how long, and when it is no use.

A controller may have addresses that are not reachable from everywhere, or that are somebody
else's there. The keys tell whether the right one answers; the first at which it does is kept
for good, as after that a controller that is away comes back to the same address.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PATIENCE_S = 2.0  # with an address that says nothing
PATIENCE_MAX_S = 10.0
FAILURES_COUNT_MAX = 6
FAILURES_S = 5.0  # shorter than a client waits: it is to tell its user why


class Attempts:
    """What was tried to reach a controller; no I/O.

    Parameters
    ----------
    urls
        Its addresses, in the order to try them.
    now_s
        Seconds of a clock that does not go back.

    Attributes
    ----------
    over_s
        When another address is to be tried; infinity: never.
    """

    def __init__(self, urls: Sequence[str], now_s: float) -> None:
        self._urls = list(urls)
        self._index = 0
        self._patience_s = PATIENCE_S
        # At which address the exchange of keys failed: since when, how often.
        self._failures: dict[str, tuple[float, int]] = {}
        self._is_hopeless = False
        self.over_s = now_s + PATIENCE_S if len(self._urls) > 1 else math.inf

    @property
    def url(self) -> str:
        """The address that is tried now."""
        return self._urls[self._index]

    def is_of_another(self, url: str) -> bool:
        """Whether this is one of the addresses that are not tried now."""
        return url in self._urls and url != self.url  # libzmq may write names as numbers

    def succeeded(self) -> None:
        """Take in that the right controller answered."""
        self._failures.clear()
        self._is_hopeless = False
        self.over_s = math.inf

    def is_over(self, now_s: float) -> bool:
        """Whether it is time to try another address."""
        return now_s >= self.over_s

    def is_closed_for_good(self) -> bool:
        """Whether to go on at once, as nobody listens here; not from the last, or it spins."""
        return self.over_s < math.inf and self._index + 1 < len(self._urls)

    def next(self, now_s: float) -> str:
        """Return the next address, which is tried from now on."""
        self._index += 1
        if self._index == len(self._urls):
            self._index = 0
            self._patience_s = min(2 * self._patience_s, PATIENCE_MAX_S)
        self.over_s = now_s + self._patience_s
        return self.url

    def failed_handshake(self, now_s: float, *, is_denied: bool) -> str:
        """Take in that keys were exchanged in vain; return, once, why that is hopeless.

        Parameters
        ----------
        now_s
            The time.
        is_denied
            Whether the other side said that our key is not allowed. Else it only closed the
            connection, as also one does that is just ending.
        """
        first_s, count = self._failures.get(self.url, (now_s, 0))
        self._failures[self.url] = first_s, count + 1
        is_early = count + 1 < FAILURES_COUNT_MAX or now_s - first_s < FAILURES_S
        if self._is_hopeless or (is_early and not is_denied):
            return ""
        self._is_hopeless = True
        what = "does not know this key" if is_denied else "ends each exchange of keys"
        return (
            f"the controller at {self.url} {what}: the connection file is not of the cluster"
            " that runs there now; copy it again (each start makes new keys, unless it is with"
            " --reuse)"
        )
