"""The page on configuration has every option, with what it means and its default."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from parallelz.launch.configuration_classes import attribute_texts, classes_of
from parallelz.launch.configuration_sections import sections_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
BATCH = ("Slurm", "PBS", "SGE", "LSF", "HTCondor")  # they have the same options


def table_of(section: str) -> str:
    """Return what the page must say of a section: one line for each option."""
    struct = sections_of("ipclusterz")[section]
    texts = attribute_texts(struct)
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(struct):
        default = classes_of("ipclusterz")[section].class_traits()[field.name].default()
        name = section if section not in BATCH else "Slurm"
        lines.append(f"| `{name}.{field.name}` | `{default!r}` | {texts[field.name]} |")
    return "\n".join(lines)


@pytest.mark.parametrize("section", sections_of("ipclusterz"))
def test_a_section_is_described(section: str) -> None:
    assert table_of(section) in PAGE.read_text(), f"it should say:\n{table_of(section)}"


def test_all_batch_systems_are_named() -> None:
    assert all(f"`{section}`" in PAGE.read_text() for section in BATCH)
