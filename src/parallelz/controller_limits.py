"""How patient a controller is, and how much it keeps; for configuration and command lines."""

from __future__ import annotations

import msgspec

from parallelz.errors import ClusterError


class ControllerLimits(msgspec.Struct, frozen=True):
    """How long a controller waits for those who are away, and how much it keeps.

    Attributes
    ----------
    away_grace_s
        Seconds after which an engine of another host that gives no sign of life is given up;
        its tasks end with EngineError or are run again.
    client_grace_s
        The same for a client. Its tasks go on, and their results wait in the history.
    unrecorded_s
        If nothing could be recorded for so many seconds, tasks go on without the history.
    unrecorded_bytes_max
        How much waits for a recorder that does not keep up; what is more is not recorded.
    peer_bytes_max
        How much the controller keeps of the arguments of each client, and of the results of
        each engine, that go by sockets; what is more waits where it is. May be exceeded by one
        call or result.
    """

    away_grace_s: float = 15.0
    client_grace_s: float = 60.0
    unrecorded_s: float = 10.0
    unrecorded_bytes_max: int = 512 * 1024 * 1024
    peer_bytes_max: int = 4 * 1024 * 1024 * 1024

    def encode(self) -> str:
        """Return it as the text of a command line."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> ControllerLimits:
        """Return what `encode` returned.

        Raises
        ------
        ClusterError
            If that was not it.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ClusterError(f"{text!r} are no limits of a controller: {error}") from error


USUAL_LIMITS = ControllerLimits()
