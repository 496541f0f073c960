"""The recorder as a process of its own, started by the controller.

It reads its connection info, which holds a secret, from standard input. It acknowledges what it
was told when that is in the database, so that the controller keeps the rest for the next one.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from parallelz import settings
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.messages import AskHistory, Goodbye, Message, Refused, StoreRecords
from parallelz.protocol.roles import ToRecorder
from parallelz.store.choice import conninfo_of, is_postgresql
from parallelz.store.interface import Limits, Run, Store
from parallelz.store.memory import MemoryStore
from parallelz.store.recorder import Recorder
from parallelz.store.sqlite import SqliteStore
from parallelz.transport.peer import PeerLink, PeerPoller, endpoint_for, new_session_id
from parallelz.transport.sockets import term_context

logger = logging.getLogger(__name__)

PARENT_CHECK_PERIOD_S = 1.0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments that the controller gives."""
    parser = argparse.ArgumentParser(prog="parallelz.recorder")
    parser.add_argument("--store", required=True, help="see store.choice")
    parser.add_argument("--path", type=Path, required=True, help="of the SQLite database")
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--run", required=True, help="names this life of the cluster")
    parser.add_argument("--cluster", required=True, help="names the cluster")
    parser.add_argument("--max-age-s", type=float, help="forget what ended longer ago")
    parser.add_argument("--max-count", type=int, help="forget the oldest of more tasks")
    parser.add_argument("--max-bytes", type=int, help="the same by the size of the store")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Record until the controller says goodbye or is gone; return the exit status."""
    # Ctrl-C goes to all processes of a terminal; the controller tells when all is written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s",
    )
    info = ConnectionInfo.decode(sys.stdin.buffer.read())
    limits = Limits(args.max_age_s, args.max_count, args.max_bytes)
    # A database may be that of several hosts, on which directories are called the same.
    run = Run(args.run, f"{socket.gethostname()}:{args.cluster}")
    recorder = Recorder(_store_opener(args.store, args.path), run, limits)
    link: PeerLink[Message] = PeerLink(
        endpoint_for(info),
        "bulk",
        session_id=new_session_id(),
        role="recorder",
        token=info.token,
        incoming=ToRecorder,
        settle=False,
    )
    gc.freeze()  # what was imported lives as long as the process: never look at it again
    try:
        return 0 if record(link, recorder, args.parent_pid) else 1
    finally:
        link.close(settings.LINGER_S)
        recorder.close()
        term_context()


def record(link: PeerLink[Message], recorder: Recorder, parent_pid: int) -> bool:
    """Serve until the end; return whether that was meant."""
    poller = PeerPoller(link)
    is_ending = False
    while True:
        now_s = time.monotonic()
        due_s = min(link.tick(now_s), recorder.next_deadline_s())
        poller.poll(min(max(due_s - now_s, 0.0), PARENT_CHECK_PERIOD_S))
        messages = [message for message, _ in link.receive()]
        told = [m for m in messages if isinstance(m, StoreRecords | AskHistory)]
        for answer, buffers in recorder.handle(told, time.monotonic()):
            link.put(answer, buffers)
        is_ending |= any(isinstance(message, Goodbye) for message in messages)
        if not recorder.is_behind:  # else the database may work again before we are killed
            link.settle()
            if is_ending:
                recorder.finish()
                link.put(Goodbye("all is written"))
                link.flush()
                return True
        link.flush()
        if any(isinstance(message, Refused) for message in messages):
            return False
        if os.getppid() != parent_pid:
            logger.error("! the controller is gone")
            return False


def _store_opener(kind: str, path: Path) -> Callable[[], Store]:
    if is_postgresql(kind):
        # Not at the top: it takes a while, is not always installed and seldom needed.
        from parallelz.store.postgres import PostgresStore

        return lambda: PostgresStore(conninfo_of(kind))
    return MemoryStore if kind == "memory" else lambda: SqliteStore(path)


if __name__ == "__main__":
    sys.exit(main())
