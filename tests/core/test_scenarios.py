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
    submit_direct,
    submit_map,
    task,
)

from parallelz.core.events import (
    Action,
    AskValues,
    EndsFound,
    EndTask,
    EngineInTouch,
    Event,
    KillEngine,
    LookUpTasks,
    PastEnd,
    PlaceTask,
    RecallTasks,
    ReleaseEngine,
    StopTask,
    Tick,
    ValueProvided,
    Warn,
)
from parallelz.core.scheduler import Scheduler
from parallelz.core.story import why
from parallelz.ids import Digest, EngineId, SessionId, TaskId
from parallelz.protocol.messages import (
    AbortTasks,
    CancelTasks,
    Dependency,
    DrainEngines,
    SubmitTask,
    TaskOptions,
)

SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))
STEP = re.compile(
    r"^(?P<command>[a-z][^\n]*)\n----\n(?P<result>.*?)(?=\n\n|\n*\Z)", re.MULTILINE | re.DOTALL
)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")] if text else []


def parse(  # noqa: C901, PLR0912 - one arm for each command, and nothing else
    command: str,
) -> tuple[Event, SessionId]:
    words = command.split()
    options = dict(word.split("=") for word in words if "=" in word)
    source = SessionId(options.pop("by", ME))
    match [word for word in words if "=" not in word]:
        case ["submit", number]:
            return submit_by(source, int(number), options), source
        case ["map", first, count]:
            return submit_map(int(first), int(count)), source
        case ["direct", first]:
            return submit_direct(int(first), numbers(options["on"])), source
        case ["join", engine]:
            labels = options["labels"].split(",") if "labels" in options else []
            event = arrive(int(engine), labels, amounts(options.get("resources", "")))
            return event, engine_session(int(engine))
        case ["lose", engine]:
            event = lose(int(engine), started_count=int(options.get("started", "-1")))
            return event, engine_session(int(engine))
        case ["finish", which, "on", engine, *rest]:
            client, number = which.split("-") if "-" in which else (ME, which)
            event = finish(
                int(number),
                status=rest[0] if rest else "ok",
                duration_s=float(options.get("took", "1")),
                retry_after_s=float(options.get("retry_after", "0")),
                client=SessionId(client),
            )
            return event, engine_session(int(engine))
        case ["return", which, "from", engine]:
            return dropped(numbers(which)), engine_session(int(engine))
        case ["abort", which]:
            return AbortTasks(1, [task(n) for n in numbers(which)]), source
        case ["cancel", which]:
            return CancelTasks(1, [task(n) for n in numbers(which)], 2.0), source
        case ["away" | "back" as word, engine]:
            return EngineInTouch(engine_session(int(engine)), word == "back"), NOBODY
        case ["drain", engine]:
            return DrainEngines(1, [EngineId(int(engine))]), source
        case ["history", task_id, how]:
            ends = {TaskId(task_id): PastEnd(how == "ok", how, SessionId(""))}
            return EndsFound([TaskId(task_id)], {} if how == "unknown" else ends), NOBODY
        case ["value", number]:
            return ValueProvided(task(int(number)), is_held=True), source
        case ["wait", _]:
            return Tick(), NOBODY
        case _:
            raise ValueError(f"unknown command: {command}")


def amounts(text: str) -> dict[str, float]:
    pairs = [part.split(":") for part in text.split(",")] if text else []
    return {name: float(amount) for name, amount in pairs}


def submit_by(source: SessionId, number: int, options: dict[str, str]) -> SubmitTask:
    def named(word: str) -> list[TaskId]:
        parts = options[word].split(",") if word in options else []
        return [task(int(part)) if part.isdecimal() else TaskId(part) for part in parts]

    def dependency(word: str) -> Dependency | None:
        wanted = options.get("if", "success")
        return (
            Dependency(
                named(word), "any" not in options, wanted != "failure", wanted != "success"
            )
            if word in options
            else None
        )

    on = [EngineId(n) for n in numbers(options["on"])] if "on" in options else None
    return SubmitTask(
        TaskId(f"{source}-{number}"),
        Digest(options.get("f", "f").encode()),
        0.0,
        options=TaskOptions(
            dependency("after"),
            dependency("follow"),
            on,
            int(options.get("retries", "0")),
            float(options.get("timeout", "0")),
            options.get("label", ""),
            float(options.get("max_runtime", "0")),
            float(options.get("retry_delay", "0")),
            int(options.get("priority", "0")),
            options["labels"].split(",") if "labels" in options else [],
            amounts(options.get("resources", "")),
            named("inputs"),
        ),
    )


def short(task_id: TaskId) -> str:
    return task_id.removeprefix("me-")


def describe(action: Action) -> str | None:
    match action:
        case PlaceTask():
            return f"place {short(action.task_id)} on {action.engine_id}"
        case EndTask():
            reason = f": {action.error.evalue}" if action.error else ""
            return f"{short(action.task_id)} ended {action.status}{reason}"
        case RecallTasks():
            ids = ",".join(map(short, action.task_ids))
            return f"recall {ids} from {action.engine_id}"
        case StopTask():
            return f"interrupt {short(action.task_id)} on {action.engine_id}"
        case KillEngine():
            return f"kill {action.engine_id}: {action.reason}"
        case ReleaseEngine():
            return f"release {action.engine_id}"
        case LookUpTasks():
            return f"look up {','.join(map(short, action.task_ids))}"
        case AskValues():
            return f"ask {action.session_id} for {','.join(map(short, action.task_ids))}"
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
        if command.startswith("why "):
            return why(self.scheduler, task(int(command.removeprefix("why "))), self.now_s)
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
