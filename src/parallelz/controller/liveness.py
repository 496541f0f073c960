"""Is a peer dead, frozen, or only out of reach? Asked when a line to it broke.

libzmq answers signs of life in a thread of its own, so a line breaks when the process has
ended or is stopped, or the network is gone; not when user code holds the GIL.
"""

from __future__ import annotations

import enum

import psutil

from parallelz.protocol.messages import PeerInfo


class Verdict(enum.Enum):
    """What a broken line means."""

    DEAD = "dead"
    FROZEN = "frozen"
    AWAY = "away"


def judge(peer: PeerInfo, host_id: str) -> Verdict:
    """Return what became of a peer; only processes of this host can be looked at."""
    if peer.host_id != host_id or peer.pid <= 0:
        return Verdict.AWAY
    try:
        status = psutil.Process(peer.pid).status()
    except psutil.NoSuchProcess:
        return Verdict.DEAD
    except (psutil.AccessDenied, OSError):  # or no more files can be opened
        return Verdict.AWAY
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return Verdict.DEAD
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return Verdict.FROZEN
    return Verdict.AWAY
