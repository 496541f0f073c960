"""Plants one bug at a time in the core and says which kinds of tests notice: ``make bugs``.

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
KINDS = {
    "example": ["tests/core/test_scheduler.py", "tests/core/test_fairness.py"],
    "scenario": ["tests/core/test_scenarios.py"],
    "property": ["tests/core/test_scheduler_properties.py"],
}


class Bug(NamedTuple):
    """What goes wrong, and the change that makes it so."""

    rule: str
    module: str
    old: str
    new: str


BUGS = [
    Bug("after waits for all", "dependencies", "elif not self.left:", "else:"),
    Bug(
        "impossible also through chains",
        "board",
        "        self.ended.add_blame(session_id, task.number, blame)\n        if is_awaited:",
        "        if is_awaited and status != 'impossible':",
    ),
    Bug(
        "follow says where",
        "board",
        "task.engine_ids = tuple(e for e in wait.engines if e in allowed)",
        "task.engine_ids = tuple(allowed)",
    ),
    Bug("retries are counted", "scheduler", "        task.retries_left -= 1\n", ""),
    Bug(
        "never twice where it was refused",
        "scheduler",
        "task.refused = (*task.refused, engine.id)",
        "task.refused = (engine.id,)",
    ),
    Bug(
        "labels are all needed",
        "roster",
        "set(needs.labels) <= set(self.info.labels)",
        "bool(set(needs.labels) & set(self.info.labels)) >= bool(self.info.labels)",
    ),
    Bug("higher priorities first", "fairness", "self._priorities[-1]", "self._priorities[0]"),
    Bug("clients take turns", "fairness", "self._used_s[session_id] = used_s + expected_s", ""),
    Bug(
        "what an engine gives back keeps its order",
        "scheduler",
        "for task in reversed(returned):",
        "for task in returned:",
    ),
    Bug(
        "a late answer of a lost engine is ignored",
        "scheduler",
        "if engine is None or task is None or task.engine_id != engine.id:",
        "if engine is None or task is None:",
    ),
    Bug(
        "nothing is placed before all recalls are answered",
        "scheduler",
        "engine.recall_count = max(engine.recall_count - 1, 0)",
        "engine.recall_count = 0",
    ),
    Bug(
        "what had not started on a lost engine loses no retry",
        "scheduler",
        "        left = max(started_count - engine.ended_count, 0)",
        "        left = len(engine.placed)",
    ),
    Bug(
        "a cancelled task is killed only if it is what runs",
        "scheduler",
        "if engine.current is task or engine.kept_id == task.id:",
        "if engine.current is not None:",
    ),
    Bug(
        "an aborted task does not run again",
        "scheduler",
        "if task.stop in (Stop.ABORT, Stop.CANCEL):",
        "if task.stop is Stop.CANCEL:",
    ),
    Bug(
        "a drained engine gets nothing new",
        "roster",
        "if engine.recall_count or engine.is_draining:",
        "if engine.recall_count:",
    ),
]


def main() -> int:
    """Run every bug against every kind of test; return 1 if any goes unnoticed."""
    unnoticed = 0
    for bug in BUGS:
        module = ROOT / "src" / "parallelz" / "core" / f"{bug.module}.py"
        if bug.old not in module.read_text():
            sys.exit(f"{bug.rule!r}: core/{bug.module}.py has no {bug.old!r}")
    print(f"{'rule':<55}" + "".join(f"{kind:>10}" for kind in KINDS))
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "src"
        for bug in BUGS:
            shutil.copytree(ROOT / "src", source)
            path = source / "parallelz" / "core" / f"{bug.module}.py"
            text = path.read_text()
            path.write_text(text.replace(bug.old, bug.new))
            caught = [_fails(tests, source) for tests in KINDS.values()]
            unnoticed += not any(caught)
            marks = "".join(f"{'caught' if each else '-':>10}" for each in caught)
            print(f"{bug.rule:<55}{marks}", flush=True)
            shutil.rmtree(source)
    return min(unnoticed, 1)


def _fails(tests: list[str], source: Path) -> bool:
    options = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=no-shrinking"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=600
    )
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
