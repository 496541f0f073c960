"""Plants one bug at a time and says which kinds of tests notice: ``make bugs``.

A rule that no test of ours would miss is no promise. Each bug is a small change of one line, in
a copy of the source; a line that is no longer there fails the run, so the list keeps up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTEST = ["pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=no-shrinking"]
KINDS = {
    "example": [
        *PYTEST,
        "tests/core/test_scheduler.py",
        "tests/core/test_fairness.py",
        "tests/core/test_recovery.py",
        "tests/engine/test_workqueue.py",
        "tests/protocol/test_envelope.py",
        "tests/client/test_inbox.py",
        "tests/controller/test_controller_lines.py",
    ],
    "scenario": [*PYTEST, "tests/core/test_scenarios.py"],
    "property": [*PYTEST, "tests/core/test_scheduler_properties.py"],
    "simulation": ["parallelz.testing.simulation", "--count", "200"],
}


class Bug(NamedTuple):
    """What goes wrong, and the change that makes it so."""

    rule: str
    module: str
    old: str
    new: str


BUGS = [
    Bug("after waits for all", "core/dependencies", "elif not self.left:", "else:"),
    Bug(
        "impossible also through chains",
        "core/board",
        "        self.ended.add_blame(session_id, task.number, blame)\n        if is_awaited:",
        "        if is_awaited and status != 'impossible':",
    ),
    Bug(
        "follow says where",
        "core/board",
        "task.engine_ids = tuple(e for e in wait.engines if e in allowed)",
        "task.engine_ids = tuple(allowed)",
    ),
    Bug("retries are counted", "core/scheduler", "        task.retries_left -= 1\n", ""),
    Bug(
        "never twice where it was refused",
        "core/scheduler",
        "task.refused = (*task.refused, engine.id)",
        "task.refused = (engine.id,)",
    ),
    Bug(
        "labels are all needed",
        "core/roster",
        "set(needs.labels) <= set(self.info.labels)",
        "bool(set(needs.labels) & set(self.info.labels)) >= bool(self.info.labels)",
    ),
    Bug(
        "higher priorities first",
        "core/fairness",
        "self._priorities[-1]",
        "self._priorities[0]",
    ),
    Bug(
        "clients take turns",
        "core/fairness",
        "self._used_s[session_id] = used_s + expected_s",
        "",
    ),
    Bug(
        "what an engine gives back keeps its order",
        "core/scheduler",
        "for task in reversed(returned):",
        "for task in returned:",
    ),
    Bug(
        "a late answer of a lost engine is ignored",
        "core/scheduler",
        "if engine is None or task is None or task.engine_id != engine.id:",
        "if engine is None or task is None:",
    ),
    Bug(
        "nothing is placed before all recalls are answered",
        "core/scheduler",
        "engine.recall_count = max(engine.recall_count - 1, 0)",
        "engine.recall_count = 0",
    ),
    Bug(
        "what had not started on a lost engine loses no retry",
        "core/scheduler",
        "        left = max(started_count - engine.ended_count, 0)",
        "        left = len(engine.placed)",
    ),
    Bug(
        "a cancelled task is killed only if it is what runs",
        "core/scheduler",
        "if engine.current is task or engine.kept_id == task.id:",
        "if engine.current is not None:",
    ),
    Bug(
        "an aborted task does not run again",
        "core/scheduler",
        "if task.stop in (Stop.ABORT, Stop.CANCEL):",
        "if task.stop is Stop.CANCEL:",
    ),
    Bug(
        "a drained engine gets nothing new",
        "core/roster",
        "if engine.recall_count or engine.is_draining:",
        "if engine.recall_count:",
    ),
    # What protects tasks when a controller takes the place of another.
    Bug(
        "an engine drops its queue for a new controller",
        "engine/workqueue",
        "                self._waiting.clear()\n",
        "                pass\n",
    ),
    Bug(
        "an engine takes nothing more of a controller before",
        "engine/workqueue",
        'if self._controller_id in ("", controller_id):',
        "if controller_id is not None:",
    ),
    Bug(
        "a task that comes again is where it had started",
        "core/recovery",
        "None if claims is None else claims.pop(task.id, None)",
        "None",
    ),
    Bug(
        "what a client has an answer for does not run again",
        "core/recovery",
        "if awaited is not None and task.number not in awaited:",
        "if awaited is None and task.number < 0:",
    ),
    Bug(
        "a result that is there before its task is kept",
        "controller/returning",
        "            for stray in strays.pop(task_id, ()):",
        "            for stray in [*strays.pop(task_id, ())][:0]:",
    ),
    Bug(
        "runs after a restart are not those before",
        "core/board",
        "self.first_run = first_run",
        "self.first_run = 0",
    ),
    Bug(
        "a result of an earlier run is ignored",
        "core/scheduler",
        "if event.run and event.run != task.placed_count:",
        "if event.run < 0:",
    ),
    Bug(
        "what is acknowledged is recorded",
        "controller/recording",
        "        if not self._is_holding_back:\n            self._holding.let_go()",
        "        if link is not None:\n            self._holding.let_go()",
    ),
    Bug(
        "nothing runs until all engines of before are heard",
        "core/recovery",
        "self._absent = {engine.session_id: engine for engine in engines}",
        "self._absent = {}",
    ),
    Bug(
        "what a dead engine had started does not run again",
        "core/recovery",
        "for task_id in event.started:",
        "for task_id in event.started[:0]:",
    ),
    Bug(
        "a new controller is told of functions first",
        "client/inbox",
        "return [*definitions, resume]",
        "return [resume]",
    ),
    Bug(
        "envelopes to a controller before are not taken in",
        "controller/attendance",
        "return zlib.crc32(controller_id.encode())",
        "return 0",
    ),
    Bug(
        "of two engines the later run of a task counts",
        "core/recovery",
        "known.run > claim.run:",
        "known.run < 0:",
    ),
]


def main() -> int:
    """Run every bug against every kind of test; return 1 if any goes unnoticed."""
    unnoticed = 0
    for bug in BUGS:
        module = ROOT / "src" / "parallelz" / f"{bug.module}.py"
        if bug.old not in module.read_text():
            sys.exit(f"{bug.rule!r}: {bug.module}.py has no {bug.old!r}")
    print(f"{'rule':<55}" + "".join(f"{kind:>12}" for kind in KINDS))
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "src"
        for bug in BUGS:
            shutil.copytree(ROOT / "src", source)
            path = source / "parallelz" / f"{bug.module}.py"
            text = path.read_text()
            path.write_text(text.replace(bug.old, bug.new))
            caught = [_fails(command, source) for command in KINDS.values()]
            unnoticed += not any(caught)
            marks = "".join(f"{'caught' if each else '-':>10}" for each in caught)
            print(f"{bug.rule:<55}{marks}", flush=True)
            shutil.rmtree(source)
    return min(unnoticed, 1)


def _fails(arguments: list[str], source: Path) -> bool:
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=600
    )
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
