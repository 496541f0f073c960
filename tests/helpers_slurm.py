"""A real Slurm with one node, which is this host, as long as tests need it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from helpers_daemons import Daemons, free_ports, need

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
PACKAGES = "slurm-wlm, munge"
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


class Slurm(Daemons):
    """A Slurm of its own."""

    def __init__(self, directory: Path) -> None:
        configuration = directory / "slurm.conf"
        super().__init__(directory, {"SLURM_CONF": str(configuration)})
        for name in ("state", "spool"):
            (directory / name).mkdir()
        controller_port, node_port = free_ports(2)
        text = CONFIGURATION.format(
            directory=directory,
            controller_port=controller_port,
            node_port=node_port,
            cpus=CPU_COUNT,
        )
        configuration.write_text(text)
        key = directory / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))

    def start(self) -> None:
        """Start it, and wait until its node can be used."""
        here = self.directory
        files = [f"--{name}-file={here}/munge.{name}" for name in ("pid", "log", "seed")]
        self.start_daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={here}/munge.socket",
            f"--key-file={here}/munge.key",
            *files,
        )
        self.wait_until(lambda: (here / "munge.socket").exists())
        self.start_daemon("slurmctld", "-D")
        self.start_daemon("slurmd", "-D", "-N", "localhost")
        self.wait_until(lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T") == "idle")


@contextlib.contextmanager
def running_slurm(directory: Path) -> Iterator[Slurm]:
    """Run Slurm where it can run; nothing is left of it."""
    need(PROGRAMS, PACKAGES)
    slurm = Slurm(directory)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
