"""Replay `tests/scenarios/*.txt`: a command, `----`, what the core did.

After a wanted change, run `pytest --rewrite`, and read the diff before you commit it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers_core import (
    ME,
    NOBODY,
    arrive,
    dropped,
    engine_session,
    finish,
    lose,
    submit,
    submit_direct,
    submit_map,
    task,
)

from parallelz.core.events import Action, EndTask, Event, PlaceTask, RecallTasks, Tick, Warn
from parallelz.core.scheduler import Scheduler
from parallelz.ids import SessionId
from parallelz.protocol.messages import AbortTasks

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))
STEP = re.compile(
    r"^(?P<command>[a-z][^\n]*)\n----\n(?P<result>.*?)(?=\n\n|\n*\Z)", re.MULTILINE | re.DOTALL
)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")] if text else []


def parse(command: str) -> tuple[Event, SessionId]:
    words = command.split()
    options = dict(word.split("=") for word in words if "=" in word)
    match [word for word in words if "=" not in word]:
        case ["submit", number]:
            after = numbers(options["after"]) if "after" in options else None
            follow = numbers(options["follow"]) if "follow" in options else None
            engines = numbers(options["on"]) if "on" in options else None
            retries = int(options.get("retries", "0"))
            event = submit(
                int(number), after=after, follow=follow, engines=engines, retries=retries
            )
            return event, ME
        case ["map", first, count]:
            return submit_map(int(first), int(count)), ME
        case ["direct", first]:
            return submit_direct(int(first), numbers(options["on"])), ME
        case ["join", engine]:
            return arrive(int(engine)), engine_session(int(engine))
        case ["lose", engine]:
            return lose(int(engine)), engine_session(int(engine))
        case ["finish", number, "on", engine, *rest]:
            duration_s = float(options.get("took", "1"))
            event = finish(int(number), ok=rest != ["error"], duration_s=duration_s)
            return event, engine_session(int(engine))
        case ["return", which, "from", engine]:
            return dropped(numbers(which)), engine_session(int(engine))
        case ["abort", which]:
            return AbortTasks(1, [task(n) for n in numbers(which)]), ME
        case ["wait", _]:
            return Tick(), NOBODY
        case _:
            raise ValueError(f"unknown command: {command}")


def describe(action: Action) -> str | None:
    match action:
        case PlaceTask():
            return f"place {action.task_id[3:]} on {action.engine_id}"
        case EndTask():
            reason = f": {action.error.evalue}" if action.error else ""
            return f"{action.task_id[3:]} ended {action.status}{reason}"
        case RecallTasks():
            ids = ",".join(task_id[3:] for task_id in action.task_ids)
            return f"recall {ids} from {action.engine_id}"
        case Warn():
            return f"warn: {action.text}"
        case _:
            return None


class Stage:
    """A scheduler and the time of one scenario."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.now_s = 0.0

    def perform(self, command: str) -> str:
        if command.startswith("story "):
            story = self.scheduler.story(task(int(command.removeprefix("story "))))
            moves = [(f"{t.start.value} -> {t.finish.value}", t.cause) for t in story]
            return "\n".join(f"{move:<20}{cause}" for move, cause in moves)
        if command.startswith("wait "):
            self.now_s += float(command.split()[1])
        event, source = parse(command)
        actions = self.scheduler.handle(event, source, self.now_s)
        self.scheduler.validate()
        return "\n".join(line for a in actions if (line := describe(a))) or "nothing"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    stage = Stage()
    expected = path.read_text()
    actual = STEP.sub(
        lambda step: f"{step['command']}\n----\n{stage.perform(step['command'])}", expected
    )
    if pytestconfig.getoption("rewrite"):
        path.write_text(actual)
    assert actual == expected
