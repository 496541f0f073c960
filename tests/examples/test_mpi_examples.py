"""The examples that need MPI, under a real one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers_examples import assert_is_picture, rows_of, run_example, texts

pytestmark = pytest.mark.service

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.fixture(autouse=True)
def _mpi() -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if shutil.which("mpiexec") is None:
        if os.environ.get("PARALLELZ_REQUIRE_SERVICES"):
            pytest.fail("there is no mpiexec: install openmpi-bin")
        pytest.skip("there is no mpiexec")


def test_all_ranks_have_the_sum_of_all(tmp_path: Path) -> None:
    said = run_example("psum", "--engines", 3, "--numbers", 1000, **AS_ROOT)
    rows = rows_of(said, "rank")
    assert texts(rows, 0) == ["0", "1", "2"]
    assert sorted(texts(rows, 1)) == ["333", "333", "334"]
    (total,) = set(texts(rows, 2))
    assert f"Added up here: {total}" in said


@pytest.mark.parametrize(("engine_count", "parts"), [(1, "1 x 1"), (4, "2 x 2")])
def test_wave_is_the_same_by_mpi(tmp_path: Path, engine_count: int, parts: str) -> None:
    options = ("--engines", engine_count, "--rows", 40, "--steps", 50, "--output", tmp_path)
    said = run_example("wave_mpi", *options, **AS_ROOT)
    assert f"engines       {parts}" in said
    difference = said.split("between the two solutions is ")[1].split()[0].rstrip(".")
    assert float(difference) <= 1e-12
    assert_is_picture(tmp_path / "wave_mpi.png")
