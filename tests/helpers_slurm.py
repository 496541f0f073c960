"""A real Slurm with one node, which is this host, as long as tests need it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
WAIT_S = 60
CPU_COUNT = 16  # what it believes that there is
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes=localhost MaxTime=60 State=DOWN
"""


def find(program: str) -> str | None:
    """Return the path of a program; daemons are not on everybody's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def obstacle() -> str:
    """Return why there can be no Slurm on this machine; "": there can."""
    missing = [program for program in PROGRAMS if find(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "only root can run the daemons of Slurm"


class Slurm:
    """The daemons; whoever has `configuration` as SLURM_CONF in the environment finds them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "spool"):
            (directory / name).mkdir()
        controller_port, node_port = _free_ports(2)
        self.configuration = directory / "slurm.conf"
        text = CONFIGURATION.format(
            directory=directory,
            controller_port=controller_port,
            node_port=node_port,
            cpus=CPU_COUNT,
        )
        self.configuration.write_text(text)
        key = directory / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def _start(self, *command: str) -> None:
        with (self._directory / f"{command[0]}.out").open("ab") as output:
            daemon = subprocess.Popen(
                [str(find(command[0])), *command[1:]],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._daemons.append(daemon)

    def start(self) -> None:
        """Start it, and wait until its node can be used."""
        here = self._directory
        files = [f"--{name}-file={here}/munge.{name}" for name in ("pid", "log", "seed")]
        self._start(
            "munged",
            "--foreground",
            "--force",
            f"--socket={here}/munge.socket",
            f"--key-file={here}/munge.key",
            *files,
        )
        self._wait_until(lambda: (here / "munge.socket").exists())
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", "localhost")
        self._wait_until(lambda: self._run("sinfo", "-h", "-p", "main", "-o", "%T") == "idle")

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def _wait_until(self, is_so: object) -> None:
        give_up_s = time.monotonic() + WAIT_S
        assert callable(is_so)
        while not is_so():
            ended = [each.args for each in self._daemons if each.poll() is not None]
            assert not ended, f"{ended}: {self.logs}"
            assert time.monotonic() < give_up_s, self.logs
            time.sleep(0.05)

    @property
    def logs(self) -> str:
        """What the daemons have said."""
        paths = [*self._directory.glob("*.log"), *self._directory.glob("*.out")]
        return "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in paths)

    def stop(self) -> None:
        """End all daemons."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(WAIT_S)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as sockets:
        made = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


@contextlib.contextmanager
def running_slurm(directory: Path) -> Iterator[Slurm]:
    """Run Slurm; nothing is left of it."""
    slurm = Slurm(directory)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
