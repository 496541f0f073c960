"""The controllers of a simulation, one after the other.

Each is the real one. One that is killed leaves its turn wherever it is, between any two things
that it says: what it has said goes on its way, and all that it knew is gone. After a while the
next one begins with `resume`, with what the recorder has and what peers tell it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from parallelz.controller.controller import Controller
from parallelz.controller.liveness import Verdict
from parallelz.controller.recording import Recording
from parallelz.core.placement import SCHEMES, LeastLoad, Room
from parallelz.errors import ParallelzError
from parallelz.protocol.connection import ConnectionInfo
from parallelz.protocol.messages import PeerInfo
from parallelz.testing.network import ControllerKilled, Network
from parallelz.testing.peers import SimRecorder, token_of
from parallelz.testing.watch import Watch, WatchedScheduler
from parallelz.transport.security import ClusterSecrets

THINKING_S = 2e-6  # how much time the controller spends between two looks at the clock
TURNS_MAX = 100_000
AWAY_MIN_S = 0.1
AWAY_MAX_S = 3.0
RECOVERY_S = 2.0  # in which one that has come back may be killed again
USES_MAX = 60
RUNS_PER_LIFE = 1_000_000  # fewer runs of a task are numbered by one controller


class TooBusy(ParallelzError):
    """A controller turns and turns."""


class WatchedRecording(Recording):
    """The real one, which also tells when it acknowledges what is not recorded."""

    has_let_go = False

    def _let_go(self) -> None:
        self.has_let_go = True
        super()._let_go()


class Controllers:
    """The controller of a simulation, whichever it is now.

    Parameters
    ----------
    host
        Where it runs.
    start_recorder
        None: nothing is recorded.
    judging
        Says of a peer whose line broke how it is.
    crash_again
        Probability that one that has just come back is killed again.

    Attributes
    ----------
    crashes_s
        When one was killed.
    watch
        Sees what all of them decide.
    """

    def __init__(
        self,
        network: Network,
        host: str,
        start_recorder: Callable[[], SimRecorder] | None,
        judging: Callable[[PeerInfo, str], Verdict],
        crash_again: float,
    ) -> None:
        self.crashes_s: list[float] = []
        self.watch = Watch()
        self._network = network
        self._timeline = network.timeline
        self._host = host
        self._start_recorder = start_recorder
        self._judging = judging
        self._crash_again = crash_again
        self._turn_count = 0
        self._is_spared = False
        self._recordings: list[WatchedRecording] = []
        self._recorder: SimRecorder | None = None
        random = self._timeline.random
        self._scheme: type[Room] = LeastLoad
        self._hwm: int | None = None
        self._draw = Random(random.random()).randrange
        if random.random() >= 0.7:  # else as it is when nobody wishes otherwise
            self._scheme = random.choice([s for s in SCHEMES.values() if s.has_dependencies])
            self._hwm = random.choice([None, 0, 1, 3])
        self.scheduler, self.current = self._new(resume=False)

    def _new(self, *, resume: bool) -> tuple[WatchedScheduler, Controller]:
        host = self._host
        infos = {
            role: ConnectionInfo(
                cluster_id="", role=role, token=token_of(role), host=host, host_id=host
            )
            for role in ("client", "engine", "recorder")
        }
        recording = WatchedRecording(
            self._start if self._start_recorder is not None else None,
            clock=self._clock,
            wall_clock=self._timeline.wall_clock,
        )
        self._recordings.append(recording)
        life = len(self.crashes_s)
        scheduler = WatchedScheduler(
            self.watch, self._scheme, self._hwm, self._draw, life * RUNS_PER_LIFE
        )
        controller = Controller(
            ClusterSecrets("", [], "", infos),
            recording,
            router=self._network.router,
            clock=self._clock,
            judging=self._judging,
            controller_id=f"controller-{life}",
            scheduler=scheduler,
            resume=resume,
        )
        return scheduler, controller

    def _start(self) -> SimRecorder:
        assert self._start_recorder is not None
        self._recorder = self._start_recorder()
        return self._recorder

    def _clock(self) -> float:
        self._timeline.now_s += THINKING_S
        return self._timeline.now_s

    @property
    def is_forgetful(self) -> bool:
        """Whether something was acknowledged that was not recorded."""
        is_without = self._start_recorder is None
        return is_without or any(recording.has_let_go for recording in self._recordings)

    @property
    def is_away(self) -> bool:
        """Whether there is none now, or soon will be none."""
        return self._network.is_down or self._network.router.uses_left is not None

    # -- turns and deaths ------------------------------------------------------------------

    def turn(self) -> None:
        """Let the controller do one turn, or come back."""
        self._turn_count += 1
        if self._turn_count > TURNS_MAX:
            raise TooBusy(f"the controller was not quiet after {TURNS_MAX} turns")
        try:
            self.current.turn()
            self.current.validate()
        except ControllerKilled:
            self._replace()

    def kill_soon(self) -> None:
        """Have the controller killed after some things that it does, or none."""
        if not (self.is_away or self._is_spared):
            random = self._timeline.random
            self._network.router.uses_left = int(USES_MAX * random.random() ** 2)

    def spare(self) -> None:
        """Have none killed from now on."""
        self._is_spared = True
        self._network.router.uses_left = None

    def _replace(self) -> None:
        timeline, random = self._timeline, self._timeline.random
        timeline.note("controller", "ends", "it was killed")
        self.crashes_s.append(timeline.now_s)
        self._network.close_router()
        self.current.close()
        if self._recorder is not None:
            self._recorder.controller_is_gone()
        away_s = AWAY_MIN_S + (AWAY_MAX_S - AWAY_MIN_S) * random.random() ** 3
        timeline.run(timeline.now_s + away_s, lambda: False)
        timeline.note("controller", "comes back")
        self._network.new_router()
        self.scheduler, self.current = self._new(resume=True)
        if random.random() < self._crash_again:
            timeline.after(RECOVERY_S * random.random(), self.kill_soon)
