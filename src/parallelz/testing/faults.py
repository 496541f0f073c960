"""What goes wrong in a simulation, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random

from parallelz.testing.network import Mishaps

RARE = 0.5  # of each kind of fault, the part of simulations in which it happens at all
CRASHES = 1 / 3  # the part of simulations in which the controller is killed
FORGETFUL = 0.2  # of these, the part in which a recorder may lose all that it has stored


@dataclass
class Faults:
    """How often things go wrong.

    Attributes
    ----------
    drop, duplicate, overtake, delay
        Probability for each envelope, see `network.Mishaps`.
    line_break, partition
        Per second: a line breaks; a peer is out of reach for a while, in one direction or both.
    engine_crash, engine_pause, client_crash, client_pause, recorder_crash, recorder_pause,
    supervisor_crash, controller_crash
        Per second: a process is killed, or stopped for a while.
    controller_busy_s
        For how long at most the controller does not look at its lines.
    restart
        Probability that an engine which crashed is replaced before the network heals.
    store_loss
        Probability that a crashed recorder loses what it has stored.
    crash_together
        Probability that the recorder is killed together with the controller.
    crash_again
        Probability that a controller is killed while it recovers.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    delay: float = 0.0
    line_break: float = 0.0
    partition: float = 0.0
    engine_crash: float = 0.0
    engine_pause: float = 0.0
    client_crash: float = 0.0
    client_pause: float = 0.0
    recorder_crash: float = 0.0
    recorder_pause: float = 0.0
    supervisor_crash: float = 0.0
    controller_crash: float = 0.0
    controller_busy_s: float = 0.0
    restart: float = 0.7
    store_loss: float = 0.3
    crash_together: float = 0.3
    crash_again: float = 0.3

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        """Return some kinds of faults, and how often they happen, by chance.

        That half of the kinds are missing lets the others show what they alone can do.
        """
        most = cls(
            drop=0.02,
            duplicate=0.05,
            overtake=0.02,
            delay=0.05,
            line_break=3.0,
            partition=0.5,
            engine_crash=0.5,
            engine_pause=0.3,
            client_crash=0.05,
            client_pause=0.2,
            recorder_crash=0.3,
            recorder_pause=0.2,
            supervisor_crash=0.1,
            controller_busy_s=3.0,
        )
        drawn = cls()
        for field in fields(cls):
            if random.random() < RARE:
                value = getattr(most, field.name)
                setattr(drawn, field.name, value * random.random())
        if random.random() < CRASHES:
            drawn.controller_crash = 0.1 + 0.3 * random.random()
            if random.random() >= FORGETFUL:
                drawn.store_loss = 0.0
        return drawn

    @property
    def mishaps(self) -> Mishaps:
        """What goes wrong with single envelopes."""
        return Mishaps(self.drop, self.duplicate, self.overtake, self.delay)


class FaultPlan:
    """Does harm by chance, each kind at its rate, until it is stopped.

    Parameters
    ----------
    deeds
        What to do, by the rate per second.
    after
        Plans something for later.
    """

    def __init__(
        self,
        random: Random,
        deeds: list[tuple[float, Callable[[], None]]],
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.is_over = False
        self._random = random
        self._after = after
        for rate, deed in deeds:
            if rate > 0.0:
                self._plan(rate, deed)

    def _plan(self, rate: float, deed: Callable[[], None]) -> None:
        def strike() -> None:
            if not self.is_over:
                deed()
                self._plan(rate, deed)

        self._after(self._random.expovariate(rate), strike)
