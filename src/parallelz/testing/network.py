"""A network as libzmq gives it, and some that is worse.

Between a peer's link (a DEALER) and the controller (a ROUTER) there is one *line* at a time. It
is reliable and in order while it lives. It can fall silent in one direction or both; the side
that hears nothing for the time of a heartbeat breaks it. When a line breaks, the first part of
what was on its way arrives, the next part is lost, and what the peer's side had not yet written
goes out on the next line, before the new greeting. The two sides learn of a break at different
times, and the next line may have the file descriptor of the last.

With `Mishaps` a line also drops, doubles and overtakes single envelopes, as TCP never does: the
numbers of envelopes must make up for that. A loss is noticed with the next envelope only, so
lines that lost something (to be overtaken by a greeting's answer is to be lost) are broken when
the network is said to be healthy again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from parallelz.errors import ParallelzError
from parallelz.protocol.envelope import Buffer, WireFrame
from parallelz.protocol.messages import Hello, Message
from parallelz.protocol.shared import Pieces, size_of, view_of
from parallelz.testing.timeline import Timeline
from parallelz.transport.link import LinkEnd
from parallelz.transport.router import Arrival
from parallelz.transport.router import Line as LineInfo
from parallelz.transport.sockets import Waker

HEARTBEAT_TIMEOUT_S = 2.0
LATENCY_MIN_S = 20e-6
LATENCY_MAX_S = 500e-6
RECONNECT_MIN_S = 0.02
RECONNECT_MAX_S = 1.0
RECEIVE_COUNT_MAX = 256
FIRST_FD = 10
PIECE_BYTES_MAX = 4096


@dataclass
class Mishaps:
    """Probabilities of what TCP does not do, for each envelope."""

    drop: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    delay: float = 0.0  # this one TCP does


NO_MISHAPS = Mishaps()


class Owner(Protocol):
    """The process that a link belongs to."""

    name: str
    is_alive: bool
    is_frozen: bool

    def notice(self, link: SimLink) -> None:
        """Something has come on this link."""


class ControllerKilled(ParallelzError):
    """The controller's process ends here, in the middle of whatever it does."""


class _Parcel:
    """Frames on their way."""

    __slots__ = ("due_s", "frames")

    def __init__(self, frames: list[WireFrame]) -> None:
        self.frames = frames
        self.due_s = 0.0


def _in_pieces(frames: list[WireFrame]) -> list[WireFrame]:
    """Return frames as they arrive: the first whole, of the others the large ones in pieces."""
    arrived = frames[:1]
    for frame in frames[1:]:
        if isinstance(frame, Pieces) or size_of(frame) < PIECE_BYTES_MAX:
            arrived.append(frame)
        else:
            view = view_of(frame)
            starts = range(0, len(view) + 1, PIECE_BYTES_MAX)
            arrived.append(Pieces(view[start : start + PIECE_BYTES_MAX] for start in starts))
    return arrived


class _Way:
    """One direction of a line."""

    def __init__(self) -> None:
        self.parcels: list[_Parcel] = []  # on their way, in order
        self.floor_s = 0.0  # nothing may arrive before
        self.is_silent = False
        self.silence = 0  # counts silences


class SimLine:
    """One connection between a peer and the controller."""

    def __init__(self, network: Network, link: SimLink, routing_id: bytes, fd: int) -> None:
        self.network = network
        self.link = link
        self.routing_id = routing_id
        self.fd = fd
        self.is_open_here = True  # at the controller
        self.is_open_there = True  # at the peer
        self.is_unsound = False
        self.up = _Way()
        self.down = _Way()

    @property
    def mishaps(self) -> Mishaps:
        """What goes wrong on this line now."""
        return NO_MISHAPS if self.link.is_spared else self.network.mishaps

    def send(self, way: _Way, frames: Sequence[WireFrame]) -> None:
        """Put frames on their way."""
        chance = self.network.timeline.random.random
        mishaps = self.mishaps
        copies = 1
        if mishaps.drop and chance() < mishaps.drop:
            self.is_unsound = True
            self.network.timeline.note(self.link.name, "drops")
            return
        if mishaps.duplicate and chance() < mishaps.duplicate:
            copies = 2
        for _ in range(copies):
            parcel = _Parcel(list(frames))
            way.parcels.append(parcel)
            self._schedule(way, parcel)

    def _schedule(self, way: _Way, parcel: _Parcel) -> None:
        timeline, mishaps = self.network.timeline, self.mishaps
        chance = timeline.random.random
        due_s = timeline.now_s + LATENCY_MIN_S + chance() * (LATENCY_MAX_S - LATENCY_MIN_S)
        if mishaps.delay and chance() < mishaps.delay:
            due_s += chance() * 0.2
        if mishaps.overtake and chance() < mishaps.overtake:
            due_s += chance() * 0.01  # what comes after it need not wait for it
            self.is_unsound = True
        else:
            due_s = way.floor_s = max(due_s, way.floor_s)
        parcel.due_s = due_s
        timeline.at(due_s, lambda: self._arrive(way, parcel, due_s))

    def _arrive(self, way: _Way, parcel: _Parcel, due_s: float) -> None:
        if way.is_silent or parcel.due_s != due_s or parcel not in way.parcels:
            return  # stuck, put off, or lost
        way.parcels.remove(parcel)
        if way is self.up and self.is_open_here:
            self.network.router.deliver(self, _in_pieces(parcel.frames))
        elif way is self.down and self.is_open_there:
            self.link.deliver(_in_pieces(parcel.frames))

    # -- silence and breaks ----------------------------------------------------------------

    def silence(self, way: _Way) -> None:
        """Let nothing through; who hears nothing for long breaks the line."""
        if way.is_silent:
            return
        way.is_silent = True
        way.silence += 1
        number = way.silence
        timeline = self.network.timeline
        patience_s = HEARTBEAT_TIMEOUT_S + timeline.random.random() * 0.5
        timeline.after(patience_s, lambda: self._time_out(way, number))

    def heal(self, way: _Way) -> None:
        """Let everything through again, first what is stuck."""
        if not way.is_silent:
            return
        way.is_silent = False
        for parcel in way.parcels:
            self._schedule(way, parcel)
        if not self.is_open_there and self.is_open_here:
            self._after_all(self.up, self.break_here)
        if not self.is_open_here and self.is_open_there:
            self._after_all(self.down, self.break_there)

    def _after_all(self, way: _Way, action: Callable[[], None]) -> None:
        """Do this when all that is on its way has arrived."""
        timeline = self.network.timeline
        timeline.at(max(timeline.now_s + LATENCY_MIN_S, way.floor_s), action)

    def _time_out(self, way: _Way, number: int) -> None:
        if not way.is_silent or way.silence != number:
            return
        if way is self.up:
            self.break_here()
        else:
            self.break_there()

    def break_here(self) -> None:
        """Close the controller's end."""
        if not self.is_open_here:
            return
        self.is_open_here = False
        self._cut(self.down)
        self.network.router.lose(self)
        if self.is_open_there and not self.down.is_silent:
            self._after_all(self.down, self.break_there)

    def break_there(self) -> None:
        """Close the peer's end."""
        if not self.is_open_there:
            return
        self.is_open_there = False
        unsent = self._cut(self.up)
        self.link.lose(self, unsent)
        if self.is_open_here and not self.up.is_silent:
            self._after_all(self.up, self.break_here)

    def _cut(self, way: _Way) -> list[list[WireFrame]]:
        """Lose some of what is on its way; return what was not even sent."""
        if not (self.is_open_here or self.is_open_there):
            self.network.lines.pop(self.routing_id, None)
        random = self.network.timeline.random
        first = random.randint(0, len(way.parcels))
        last = random.randint(first, len(way.parcels))
        unsent = [parcel.frames for parcel in way.parcels[last:]]
        del way.parcels[first:]
        return unsent


class SimLink(LinkEnd[Message]):
    """A peer's link: what `PeerLink` is, on a simulated line.

    Parameters
    ----------
    owner
        The process, which is told when there is something to `receive`.
    """

    def __init__(
        self,
        network: Network,
        owner: Owner,
        hello: Hello,
        incoming: object,
        *,
        settle: bool = True,
    ) -> None:
        timeline = network.timeline
        super().__init__(hello, incoming, settle=settle, clock=lambda: timeline.now_s)
        self.name = f"{owner.name}/{hello.link}"
        self.owner = owner
        # What a recorder has answered and what it acknowledges travel together, and TCP loses
        # neither alone. If it then dies, nobody could make up for that.
        self.is_spared = hello.role == "recorder"
        self.line: SimLine | None = None
        self._network = network
        self._outbox: deque[list[WireFrame]] = deque()
        self._inbox: deque[list[WireFrame]] = deque()
        self._news: deque[bool] = deque()  # of the connection: True when there is one
        self._greet()
        network.connect(self)

    def _send(self, frames: Sequence[WireFrame]) -> None:
        self._outbox.append(list(frames))
        self._drain()

    def _drain(self) -> None:
        line = self.line
        while line is not None and line.is_open_there and self._outbox:
            line.send(line.up, self._outbox.popleft())

    def open(self, line: SimLine) -> None:
        """Take in that there is a line."""
        self.line = line
        self._news.append(True)
        self._drain()
        self.owner.notice(self)

    def lose(self, line: SimLine, unsent: list[list[WireFrame]]) -> None:
        """Take in that the line broke; `unsent` goes out on the next one."""
        self.line = None
        self._outbox.extendleft(reversed(unsent))
        self._news.append(False)
        self.owner.notice(self)
        self._network.reconnect(self)

    def deliver(self, frames: list[WireFrame]) -> None:
        """Take in what has arrived; it is read by `receive`."""
        self._inbox.append(frames)
        self.owner.notice(self)

    def receive(self) -> list[tuple[Message, Sequence[Buffer]]]:
        """Take in what has arrived, as `PeerLink.receive` does."""
        while self._news:
            if self._news.popleft():
                self._connected()
            else:
                self._disconnected()
        items: list[tuple[Message, Sequence[Buffer]]] = []
        for _ in range(min(len(self._inbox), RECEIVE_COUNT_MAX)):
            first, *buffers = self._inbox.popleft()
            self._take_in(view_of(first), buffers, items)
        self._took_all()
        if self._inbox:
            self.owner.notice(self)
        return items


class SimRouter:
    """The controller's end: a `MessageRouter` whose waiting is what makes time pass.

    Attributes
    ----------
    is_over
        Ends `poll` at once.
    uses_left
        So often it can be used before the controller is killed. None: it is not.
    """

    def __init__(self, network: Network) -> None:
        self.lines: dict[bytes, SimLine] = {}
        self.is_over = False
        self.uses_left: int | None = None
        self._network = network
        self._inbox: deque[Arrival] = deque()
        self._broken: list[int] = []
        self._ending: dict[bytes, None] = {}  # broken, and sends still seem to succeed

    def deliver(self, line: SimLine, frames: list[WireFrame]) -> None:
        """Take in what has arrived."""
        self._inbox.append(Arrival(line.routing_id, view_of(frames[0]), frames[1:]))

    def lose(self, line: SimLine) -> None:
        """Take in that a line broke."""
        del self.lines[line.routing_id]
        self._ending[line.routing_id] = None
        self._broken.append(line.fd)
        self._network.free_fd(line.fd)

    # -- what the controller uses ----------------------------------------------------------

    def _use(self) -> None:
        if self.uses_left is None:
            return
        self.uses_left -= 1
        if self.uses_left < 0:
            raise ControllerKilled("it was killed")

    def receive(self, count_max: int) -> Iterable[Arrival]:
        """Yield what has arrived, at most `count_max`."""
        for _ in range(count_max):
            if not self._inbox:
                return
            self._use()
            yield self._inbox.popleft()

    def line_of(self, arrival: Arrival) -> LineInfo:
        """Return where a message came from."""
        return LineInfo(self._network.fds[arrival.routing_id], "")

    def send(self, routing_id: bytes, frames: Sequence[WireFrame]) -> bool:
        """Send, and return whether the line still exists."""
        self._use()
        line = self.lines.get(routing_id)
        if line is None:
            return routing_id in self._ending
        line.send(line.down, frames)
        return True

    def broken_fds(self) -> list[int]:
        """Return the lines that broke since the last call."""
        broken, self._broken = self._broken, []
        return broken

    def watch(self, waker: Waker) -> None:
        """Nobody wakes a controller that has no other thread."""

    def has_arrivals(self) -> bool:
        """Whether more could be received at once."""
        return bool(self._inbox)

    def poll(self, timeout_s: float) -> bool:
        """Let time pass until something has come; return whether that may be a break."""
        self._use()
        network = self._network
        timeline = network.timeline
        self._ending.clear()
        timeline.run(timeline.now_s + timeout_s, self._has_something)
        busy_s = network.busy_max_s * timeline.random.random() ** 8  # rarely long
        timeline.run(timeline.now_s + busy_s, lambda: False)
        return bool(self._broken)

    def _has_something(self) -> bool:
        return bool(self._inbox or self._broken or self.is_over)

    def close(self, linger_s: float) -> None:
        """Break all lines."""
        for line in list(self.lines.values()):
            line.break_here()


class Network:
    """All lines, and which peers cannot be reached.

    Parameters
    ----------
    mishaps
        What goes wrong with single envelopes.
    busy_max_s
        For how long at most a turn of the controller keeps it from looking at its lines.
    """

    def __init__(self, timeline: Timeline, mishaps: Mishaps, busy_max_s: float) -> None:
        self.timeline = timeline
        self.mishaps = mishaps
        self.busy_max_s = busy_max_s
        self.fds: dict[bytes, int] = {}  # by routing id, also of lines that are gone
        self.lines: dict[bytes, SimLine] = {}  # open at one end at least
        self.router = SimRouter(self)
        self.is_down = False  # nobody listens: the controller is gone
        self._free_fds: list[int] = []
        self._next_fd = FIRST_FD
        self._cut_up: dict[str, None] = {}  # names of peers that nobody hears
        self._cut_down: dict[str, None] = {}

    def connect(self, link: SimLink) -> None:
        """Make a line for a link now, or when that can be."""
        owner = link.owner
        if not owner.is_alive or link.line is not None:
            return
        is_cut = owner.name in self._cut_up or owner.name in self._cut_down
        if self.is_down or owner.is_frozen or is_cut:
            self.reconnect(link)
            return
        fd = heapq.heappop(self._free_fds) if self._free_fds else self._next_fd
        self._next_fd = max(self._next_fd, fd + 1)
        routing_id = len(self.fds).to_bytes(5, "big")
        self.fds[routing_id] = fd
        line = SimLine(self, link, routing_id, fd)
        self.lines[routing_id] = self.router.lines[routing_id] = line
        self.timeline.note(link.name, "connects", f"fd {fd}")
        link.open(line)

    def reconnect(self, link: SimLink) -> None:
        """Try to make a line after a while."""
        spread = self.timeline.random.random() ** 3
        delay_s = RECONNECT_MIN_S + (RECONNECT_MAX_S - RECONNECT_MIN_S) * spread
        if link.owner.is_alive:
            self.timeline.after(delay_s, lambda: self.connect(link))

    def close_router(self) -> None:
        """Break all lines as the controller ends, with what had come and was not read."""
        self.is_down = True
        self.router.close(0.0)

    def new_router(self) -> None:
        """Listen again, for another controller."""
        self.is_down = False
        self.router = SimRouter(self)

    def free_fd(self, fd: int) -> None:
        """Let a later line have this file descriptor."""
        heapq.heappush(self._free_fds, fd)

    def lines_of(self, name: str) -> list[SimLine]:
        """Return the lines of a peer, in the order in which they were made."""
        return [line for line in self.lines.values() if line.link.owner.name == name]

    def cut(self, name: str, *, up: bool, down: bool) -> None:
        """Let nothing through from (`up`) or to a peer."""
        if up:
            self._cut_up[name] = None
        if down:
            self._cut_down[name] = None
        for line in self.lines_of(name):
            if up:
                line.silence(line.up)
            if down:
                line.silence(line.down)

    def heal(self, name: str) -> None:
        """Let everything through again."""
        self._cut_up.pop(name, None)
        self._cut_down.pop(name, None)
        for line in self.lines_of(name):
            line.heal(line.up)
            line.heal(line.down)

    def heal_all(self) -> None:
        """Be reliable from now on."""
        self.mishaps = Mishaps()
        self.busy_max_s = 0.0
        for name in [*self._cut_up, *self._cut_down]:
            self.heal(name)
        for line in list(self.lines.values()):
            if line.is_unsound:
                line.break_there()
