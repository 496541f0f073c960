"""The page on configuration has every option, with what it means and its default."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from parallelz.launch.configuration_classes import attribute_texts, classes_of
from parallelz.launch.configuration_sections import sections_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BATCH = ("Slurm", "PBS", "SGE", "LSF", "HTCondor")  # they have Slurm's options, and more


def table_of(section: str) -> list[str]:
    """Return what the page must say of a section: one line for each option."""
    structs = sections_of("ipclusterz")
    texts = attribute_texts(structs[section])
    lines = []
    for field in msgspec.structs.fields(structs[section]):
        default = classes_of("ipclusterz")[section].class_traits()[field.name].default()
        like = "SlurmController" if section.removesuffix("Controller") in BATCH else section
        like = "Slurm" if section in BATCH else like
        is_shared = field.name in structs[like].__struct_fields__
        name = like if is_shared else section
        lines.append(f"| `{name}.{field.name}` | `{default!r}` | {texts[field.name]} |")
    return lines


@pytest.mark.parametrize("section", sections_of("ipclusterz"))
def test_a_section_is_described(section: str) -> None:
    missing = [line for line in table_of(section) if line not in PAGE.read_text()]
    assert not missing


def test_all_batch_systems_are_named() -> None:
    assert all(
        f"`{section}`" in PAGE.read_text()
        for section in [*BATCH, *(f"{name}Controller" for name in BATCH)]
    )
