"""A whole cluster under faults, from a seed.

The controller, its core, the links, the engine's queue and the recorder are the real ones; the
network, time and processes are simulated. A simulation runs its workload under `Faults`, then
the network heals, and when all is quiet the promises of `promises.Promises` are checked. The
same seed gives the same journal, so that whatever is found can be looked at again:

    python -m parallelz.testing.simulation --seed 17
    python -m parallelz.testing.simulation --start 0 --count 200

The controller's waiting drives everything: `SimRouter.poll` lets simulated time pass until
something has come for it. So a controller that is not there could be left out of it as well.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from parallelz.controller.controller import Controller
from parallelz.controller.liveness import Verdict
from parallelz.core.board import STORY_LENGTH_MAX
from parallelz.errors import ParallelzError
from parallelz.ids import SessionId
from parallelz.protocol.messages import PeerInfo
from parallelz.testing.clients import SimClient
from parallelz.testing.contract import Contract
from parallelz.testing.controllers import Controllers
from parallelz.testing.engines import SimEngine
from parallelz.testing.faults import FaultPlan, Faults
from parallelz.testing.history import RecordLog, WitnessStore
from parallelz.testing.network import Network
from parallelz.testing.peers import SimProcess, SimRecorder, SimSupervisor
from parallelz.testing.promises import Promises
from parallelz.testing.rules import MoveRules, Rules, unix_s
from parallelz.testing.timeline import Timeline
from parallelz.testing.work import Witness
from parallelz.testing.workload import LABELS, RESOURCES, Script, Workload

P = TypeVar("P", bound=SimProcess)

HERE = "host-0"  # where the controller and the recorder run
QUIET_CHECK_S = 0.5
FAULTS_PERIOD_S = 12.0
LIMIT_S = 400.0  # simulated, for all
JOURNAL_TAIL = 60
HARM = ("freezes", "is cut off")
NO_HISTORY = 0.15  # part of the simulations in which nothing is recorded


class PromiseBroken(ParallelzError):
    """A simulation found a bug of parallelz."""


class Simulation:
    """One run of a cluster.

    Parameters
    ----------
    seed
        Decides all that is left to chance.
    faults, workload
        What goes wrong and what is to be done. None: drawn from the seed.
    """

    def __init__(
        self, seed: int, faults: Faults | None = None, workload: Workload | None = None
    ) -> None:
        self.seed = seed
        self.timeline = Timeline(seed)
        random = self.timeline.random
        self.faults = Faults.drawn(random) if faults is None else faults
        self.witness = Witness()
        self.log = RecordLog()
        self.keeps_history = random.random() >= NO_HISTORY
        self._processes: dict[int, SimProcess] = {}
        self._troubled: dict[str, None] = {}  # names of those who cannot be harmed further
        self._has_healed = False
        self.network = Network(
            self.timeline, self.faults.mishaps, self.faults.controller_busy_s
        )
        self._store = WitnessStore(self.log)
        self._was_store_lost = False
        self.controllers = Controllers(
            self.network,
            HERE,
            self._start_recorder if self.keeps_history else None,
            self._judge,
            self.faults.crash_again,
        )
        self.hosts = [HERE, *(f"host-{n}" for n in range(1, random.randint(1, 3)))]
        self.supervisors = [
            self._add(
                SimSupervisor(
                    self.network, f"supervisor-{n}", host, n + 1000, self.start_engine
                )
            )
            for n, host in enumerate(self.hosts)
            if random.random() < 0.7
        ]
        self.engines: list[SimEngine] = []
        self._engines_count = random.randint(1, 6)
        for _ in range(self._engines_count):
            self.start_engine(random.choice(self.hosts))
        self.clients: list[SimClient] = []
        for _ in range(random.randint(1, 3)):
            self._add_client()
        self.recorders: list[SimRecorder] = []
        self._script = Script(
            self.timeline, self.clients, self._add_client, workload or Workload()
        )
        self._plan = self._new_plan(random)

    @property
    def controller(self) -> Controller:
        """The one that there is now."""
        return self.controllers.current

    # -- building --------------------------------------------------------------------------

    def _judge(self, peer: PeerInfo, _: str) -> Verdict:
        process = self._processes[peer.pid]
        if peer.host != HERE:
            return Verdict.AWAY
        if not process.is_alive:
            return Verdict.DEAD
        return Verdict.FROZEN if process.is_frozen else Verdict.AWAY

    def _add(self, process: P) -> P:
        self._processes[process.peer.pid] = process
        return process

    def _add_client(self) -> None:
        number = len(self.clients)
        host = self.timeline.random.choice(self.hosts)
        self.clients.append(
            self._add(SimClient(self.network, f"client-{number}", host, number + 2000))
        )

    def start_engine(self, host: str) -> None:
        """Start one more engine; once the network has healed, one that can run anything."""
        number = len(self.engines)
        random = self.timeline.random
        labels, resources = LABELS, RESOURCES
        if not self._has_healed and random.random() < 0.7:
            labels = random.sample(LABELS, random.randint(0, len(LABELS)))
            resources = {"gpu": float(random.randint(0, 2))}
        engine = SimEngine(
            self.network,
            f"engine-{number}",
            host,
            number + 3000,
            self.witness,
            self._engine_ended,
            labels,
            resources,
        )
        self.engines.append(self._add(engine))
        for supervisor in self.supervisors:
            if supervisor.peer.host == host and supervisor.is_alive:
                supervisor.adopt(engine)

    def _engine_ended(self, engine: SimEngine, cause: str) -> None:
        for supervisor in self.supervisors:
            if supervisor.is_alive:
                supervisor.lost(engine, cause)
        if self._has_healed and not self.network.router.is_over:
            self.start_engine(HERE)  # one that was given up while it could not be reached

    def _start_recorder(self) -> SimRecorder:
        number = len(self.recorders)
        recorder = SimRecorder(
            self.network, f"recorder-{number}", HERE, number + 9000, self._store
        )
        self.recorders.append(self._add(recorder))
        return recorder

    # -- faults ----------------------------------------------------------------------------

    def _new_plan(self, random: Random) -> FaultPlan:
        faults = self.faults
        deeds = [
            (faults.line_break, self._break_a_line),
            (faults.partition, self._cut_off),
            (faults.engine_crash, lambda: self._crash(self.engines)),
            (faults.engine_pause, lambda: self._pause(self.engines, 6.0)),
            (faults.client_crash, lambda: self._crash(self.clients[1:])),
            (faults.client_pause, lambda: self._pause(self.clients, 70.0)),
            (faults.recorder_crash, self._crash_recorder),
            (faults.recorder_pause, lambda: self._pause(self.recorders, 20.0)),
            (faults.supervisor_crash, lambda: self._crash(self.supervisors)),
            (faults.controller_crash, self._crash_controller),
        ]
        self.timeline.after(FAULTS_PERIOD_S, self._heal)
        return FaultPlan(random, deeds, self.timeline.after)

    def _one_of(self, processes: Sequence[SimProcess]) -> SimProcess | None:
        fit = [p for p in processes if p.is_alive and p.name not in self._troubled]
        return self.timeline.random.choice(fit) if fit else None

    def _break_a_line(self) -> None:
        lines = list(self.network.lines.values())
        if lines:
            line = self.timeline.random.choice(lines)
            self.timeline.note(line.link.name, "breaks", f"fd {line.fd}")
            if self.timeline.random.random() < 0.5:
                line.break_here()
            else:
                line.break_there()

    def _cut_off(self) -> None:
        process = self._one_of(list(self._processes.values()))
        if process is None:
            return
        random = self.timeline.random
        up, down = random.choice([(True, True), (True, True), (True, False), (False, True)])
        duration_s = 25.0 * random.random() ** 3
        self._trouble(process, duration_s, lambda: self.network.heal(process.name))
        self.timeline.note(
            process.name, "is cut off", f"up={up} down={down} {duration_s:.3f} s"
        )
        self.network.cut(process.name, up=up, down=down)

    def _pause(self, processes: Sequence[SimProcess], most_s: float) -> None:
        process = self._one_of(processes)
        if process is not None:
            process.freeze()
            duration_s = most_s * self.timeline.random.random() ** 2
            self._trouble(process, duration_s, process.thaw)

    def _trouble(
        self, process: SimProcess, duration_s: float, relieve: Callable[[], None]
    ) -> None:
        self._troubled[process.name] = None

        def end() -> None:
            if process.name in self._troubled and not self._has_healed:
                del self._troubled[process.name]
                relieve()

        self.timeline.after(duration_s, end)

    def _crash(self, processes: Sequence[SimProcess]) -> None:
        process = self._one_of(processes)
        if process is None:
            return
        process.die("it was killed")
        random = self.timeline.random
        if isinstance(process, SimEngine) and random.random() < self.faults.restart:
            host = process.peer.host
            self.timeline.after(random.random(), lambda: self.start_engine(host))

    def _crash_recorder(self) -> None:
        self._crash(self.recorders)
        if self.timeline.random.random() < self.faults.store_loss:
            self._store = WitnessStore(self.log)
            self._was_store_lost = True

    def _crash_controller(self) -> None:
        self.controllers.kill_soon()
        if self.timeline.random.random() < self.faults.crash_together:
            self._crash_recorder()

    def _heal(self) -> None:
        """End all harm; what is gone is replaced."""
        self.timeline.note("network", "heals")
        self._plan.is_over = self._has_healed = True
        self.controllers.spare()
        for process in list(self._processes.values()):
            process.thaw()
        self.network.heal_all()
        living = sum(engine.is_alive for engine in self.engines)
        for _ in range(max(self._engines_count - living, 1)):
            self.start_engine(HERE)
        self.timeline.after(QUIET_CHECK_S, self._look)

    # -- running ---------------------------------------------------------------------------

    def run(self) -> None:
        """Run until all is quiet, check everything, and end the cluster.

        Raises
        ------
        PromiseBroken
            With the seed and the end of the journal.
        """
        try:
            self.calm()
            for broken in self._broken():
                raise PromiseBroken(broken)
            self.controller.stop("the simulation is over")
            self.controller.run()
            if any(recorder.is_alive for recorder in self.recorders):
                raise PromiseBroken("the recorder did not end with the controller")
        except (AssertionError, ParallelzError, LookupError) as error:
            raise PromiseBroken(self._report(error)) from error
        finally:
            self.controller.close()

    def calm(self) -> None:
        """Run until the network has healed and all is quiet, and check nothing."""
        while not self.network.router.is_over:
            self.controllers.turn()

    def advance(self, duration_s: float) -> None:
        """Let the cluster run for so long in simulated time, and check nothing at the end."""
        until_s = self.timeline.now_s + duration_s
        self.timeline.at(until_s, lambda: None)
        while self.timeline.now_s < until_s:
            self.controllers.turn()

    def close(self) -> None:
        """Free what a simulation holds that was not `run`."""
        self.controller.close()

    def _look(self) -> None:
        """End the simulation when there is nothing left to happen, or too late."""
        is_late = self.timeline.now_s > LIMIT_S and not self.controllers.is_away
        if is_late or not self._unrest():
            self.network.router.is_over = True
        else:
            self.timeline.after(QUIET_CHECK_S, self._look)

    def _unrest(self) -> list[str]:
        """Return what is still to come, in words."""
        unrest = [
            f"{count} {what}" for what, count in self.controller.remains().items() if count
        ]
        if self.controllers.is_away:
            unrest.append("the controller is away")
        if not self._script.is_over:
            unrest.append("clients still submit")
        unrest += [
            f"{c.name} waits" for c in self.clients if c.is_present and not c.is_satisfied
        ]
        unrest += [
            f"{e.name} is not idle" for e in self.engines if e.is_alive and not e.is_idle
        ]
        present = self.controllers.scheduler.roster.by_session
        unrest += [
            f"{e.name} has not joined"
            for e in self.engines
            if e.is_alive and e.session_id not in present
        ]
        return unrest

    def _broken(self) -> list[str]:
        unrest = [f"it is not quiet after {LIMIT_S:g} s: {what}" for what in self._unrest()]
        if unrest:
            return unrest
        log = self.log if self.keeps_history else None
        if self.controllers.crashes_s:
            return list(self.contract().broken())
        promises = Promises(self.clients, self.witness, self.controllers.watch, log)
        return [*promises.broken(), *self._broken_rules()]

    def contract(self) -> Contract:
        """Return what checks a simulation in which controllers were killed, at its end."""
        return Contract(
            self.clients,
            self.engines,
            self.supervisors,
            self.witness,
            self.controllers.watch,
            self._store if self.keeps_history else None,
            self.log,
            [unix_s(now_s) for now_s in self.controllers.crashes_s],
            is_forgetful=self._was_store_lost or self.controllers.is_forgetful,
        )

    def _broken_rules(self) -> Iterator[str]:
        plans = {t: plan for client in self.clients for t, plan in client.plans.items()}
        is_forgetful = self._was_store_lost or not self.keeps_history
        late_s = self.faults.controller_busy_s
        watch, scheduler = self.controllers.watch, self.controllers.scheduler
        yield from Rules(
            plans,
            self.witness,
            watch,
            self._sound_engines(),
            late_s,
            is_forgetful=is_forgetful,
        ).broken()
        rules = MoveRules(plans, watch, watch.engines, late_s)
        yield from rules.broken(scheduler.board.last_moves(STORY_LENGTH_MAX))

    def _sound_engines(self) -> dict[SessionId, float]:
        """Return engines that nothing kept apart from the controller, and when they ended.

        Nor their supervisors. What was lost on a line counts, too: an engine that runs a task
        learns of it only afterwards.
        """
        if self.faults.drop or self.faults.overtake:
            return {}
        connected = Counter(x.who for x in self.timeline.journal if x.what == "connects")
        twice = {who.rpartition("/")[0] for who, count in connected.items() if count > 1}
        unsound = {x.who for x in self.timeline.journal if x.what in HARM} | twice
        hosts = {s.peer.host for s in self.supervisors if s.name in unsound or not s.is_alive}
        return {
            engine.session_id: engine.ended_s
            for engine in self.engines
            if engine.name not in unsound and engine.peer.host not in hosts
        }

    def _report(self, error: Exception) -> str:
        tail = "\n".join(map(str, self.timeline.journal[-JOURNAL_TAIL:]))
        command = f"python -m parallelz.testing.simulation --seed {self.seed}"
        return f"{tail}\n{type(error).__name__}: {error}\n{self.faults}\n{command}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run simulations; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="parallelz.testing.simulation")
    parser.add_argument("--seed", type=int, help="run this one, and show its journal")
    parser.add_argument("--start", type=int, default=0, help="the first of many")
    parser.add_argument("--count", type=int, default=1, help="how many")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    seeds = [args.seed] if args.seed is not None else range(args.start, args.start + args.count)
    task_count = 0
    for seed in seeds:
        simulation = Simulation(seed)
        try:
            simulation.run()
        except PromiseBroken as error:
            sys.stderr.write(f"{error}\n")
            return 1
        finally:
            if args.seed is not None:
                sys.stdout.writelines(f"{line}\n" for line in simulation.timeline.journal)
        task_count += sum(len(client.plans) for client in simulation.clients)
    digest = f", journal {simulation.timeline.digest()}" if args.seed is not None else ""
    sys.stdout.write(
        f"{len(seeds)} simulations with {task_count} tasks kept all promises{digest}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
