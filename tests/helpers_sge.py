"""A real Grid Engine with one host, which is this one, as long as tests need it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from helpers_daemons import Daemons, free_ports, need

LIBRARY = Path("/usr/lib/gridengine")  # where Debian puts all of its programs
SHARED = Path("/usr/share/gridengine")
DAEMONS = (str(LIBRARY / "sge_qmaster"), str(LIBRARY / "sge_execd"))
PROGRAMS = (*DAEMONS, "qsub", "qstat", "qdel", "qacct", "qconf")
SLOT_COUNT = 16  # what it believes that there is
BOOTSTRAP = """
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {common};{directory}/qmaster
binary_path {library}
qmaster_spool_dir {directory}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""


class SGE(Daemons):
    """A Grid Engine of its own, with a queue ``all.q`` and an environment ``smp``.

    The queue ``closed.q`` lets nothing run; ``spare`` is a second parallel environment.
    """

    def __init__(self, directory: Path) -> None:
        master_port, execution_port = free_ports(2)
        super().__init__(
            directory,
            {
                "SGE_ROOT": str(directory),
                "SGE_CELL": "default",
                "SGE_ARCH": "lx-amd64",
                "SGE_QMASTER_PORT": str(master_port),
                "SGE_EXECD_PORT": str(execution_port),
            },
        )
        common = directory / "default" / "common"
        for made in (common, directory / "qmaster" / "job_scripts", directory / "execd"):
            made.mkdir(parents=True)
        (directory / "util").symlink_to(SHARED / "util")
        for name in ("bin", "lib", "utilbin"):
            (directory / name).mkdir()
            (directory / name / "lx-amd64").symlink_to(LIBRARY)
        text = BOOTSTRAP.format(common=common, directory=directory, library=LIBRARY)
        (common / "bootstrap").write_text(text)
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
        self._make_database(common)

    def _make_database(self, common: Path) -> None:
        configuration = _but(
            (SHARED / "default-configuration").read_text(),
            execd_spool_dir=str(self.directory / "execd"),
            mailer="/bin/true",
            min_uid="0",
            min_gid="0",
            load_report_time="00:00:01",
            reporting_params="accounting=true reporting=false accounting_flush_time=00:00:00",
        )
        path = self._write("configuration", configuration)
        spool = f"{common};{self.directory}/qmaster"
        resources = SHARED / "util" / "resources"
        self.run(str(LIBRARY / "spoolinit"), "classic", "libspoolc", spool, "init")
        fill = str(LIBRARY / "spooldefaults")
        self.run(fill, "configuration", path)
        self.run(fill, "complexes", str(resources / "centry"))
        self.run(fill, "usersets", str(resources / "usersets"))
        self.run(fill, "managers", "root")

    def _write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def start(self) -> None:
        """Start it, and wait until jobs can run."""
        self.start_daemon(DAEMONS[0], SGE_ND="1")  # no daemon that detaches itself
        self.wait_until(lambda: "localhost" in self.run("qconf", "-sh"))
        self.run("qconf", "-as", "localhost")
        soon = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        scheduler = _but(self.run("qconf", "-ssconf"), **soon)
        self.run("qconf", "-Msconf", self._write("scheduler", scheduler))
        smp = (SHARED / "util" / "resources" / "pe" / "smp").read_text()
        for name in ("smp", "spare"):
            self.run("qconf", "-Ap", self._write(name, _but(smp, pe_name=name)))
        self.start_daemon(DAEMONS[1], SGE_ND="1")
        queue = _but(
            self.run("qconf", "-sq"),
            hostlist="localhost",
            pe_list="smp spare",
            slots=str(SLOT_COUNT),
            load_thresholds="NONE",  # other tests may keep this host busy
        )
        for name, state in (("all.q", "default"), ("closed.q", "disabled")):
            made = _but(queue, qname=name, initial_state=state)
            self.run("qconf", "-Aq", self._write(name, made))
        self.wait_until(lambda: " -NA- " not in self.run("qstat", "-f", "-q", "all.q"))


def _but(text: str, **values: str) -> str:
    """Return lines of a name and a value, with other values of some."""
    lines = (line for line in text.splitlines() if line.split(" ")[0] not in values)
    return "\n".join([*lines, *(f"{name} {value}" for name, value in values.items()), ""])


@contextlib.contextmanager
def running_sge(directory: Path) -> Iterator[SGE]:
    """Run Grid Engine where it can run; nothing is left of it."""
    need(PROGRAMS, "gridengine-master, gridengine-exec, gridengine-client")
    sge = SGE(directory)
    try:
        sge.start()
        yield sge
    finally:
        sge.stop()
