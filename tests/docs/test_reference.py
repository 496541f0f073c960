"""The documentation can be built, and the reference has everything that users import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import parallelz

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
CONSTANTS = {"ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION", "version_info"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the documentation was built, with warnings as errors."""
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    out = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", doctrees]
    run = subprocess.run(
        [*map(str, command), "docs", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out


@pytest.mark.slow
def test_reference_describes_every_public_name(site: Path) -> None:
    pages = "".join(page.read_text() for page in site.glob("api/*.html"))
    described = set(re.findall(r'<dt class="[^"]*" id="([^"]+)"', pages))
    public = {f"parallelz.{name}" for name in parallelz.__all__ if name not in CONSTANTS}
    assert public - described == set()
    assert {
        "parallelz.Client.apply",
        "parallelz.Client.db_query",  # inherited
        "parallelz.DirectView.map_sync",
        "parallelz.AsyncMapResult.add_done_callback",
        "parallelz.Cluster.start_engines",
    } <= described


@pytest.mark.slow
def test_site_needs_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for tag in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http'):
            assert tag not in text, page
