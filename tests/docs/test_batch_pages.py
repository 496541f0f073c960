"""The pages of batch systems show what is asked for, as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parallelz.engine_options import EngineOptions
from parallelz.launch.batch_job import JobPlan, job_script
from parallelz.launch.launcher import Place
from parallelz.launch.launcher_options import to_options
from parallelz.launch.registry import engine_launcher

PAGES = Path(__file__).parents[2] / "docs"
PROFILE = Path("/home/ada/.ipython/profile_default")
ENGINES_COUNT = 16  # of each of the two jobs


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge", "lsf", "htcondor"])
def test_a_page_shows_the_head_of_the_script_that_its_example_makes(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    example, shown = re.findall(r"^```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[:2]
    found = re.search(r"^options = (\{.*?\})$", example, re.DOTALL | re.MULTILINE)
    assert found is not None
    launcher = engine_launcher(name)
    script = job_script(
        launcher.system,  # type: ignore[attr-defined]
        to_options(launcher.Options, eval(found[1]), name),  # type: ignore[attr-defined]
        EngineOptions(),
        JobPlan(1, ENGINES_COUNT),
        place=Place(PROFILE, "", None),
        set_id="1",
        log_dir=PROFILE / "log" / "engines-1",
    )
    head = [line for line in script.splitlines() if line in shown.splitlines()]
    assert head == shown.splitlines()
    assert f"engines={name!r}".replace("'", '"') in example


@pytest.mark.parametrize("name", ["slurm", "pbs", "sge", "lsf", "htcondor"])
def test_the_common_page_leads_to_it(name: str) -> None:
    assert f"]({name}.md)" in (PAGES / "batch.md").read_text()
