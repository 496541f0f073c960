"""Labels, resources and sizes: what is understood, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgspec
import numpy
import pytest

from parallelz import settings
from parallelz.engine_options import (
    EngineOptions,
    add_arguments,
    from_arguments,
    size_text,
    to_labels,
    to_resources,
    to_size,
)
from parallelz.errors import ClusterError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1000", 1000),
        (1000, 1000),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("2GB", 2_000_000_000),
        ("2G", 2_000_000_000),
        ("1.5GiB", 3 * 2**29),
        ("10kB", 10_000),
    ],
)
def test_size_has_a_unit_or_is_in_bytes(text: str | int, count: int) -> None:
    assert to_size(text) == count


def test_labels_are_words_each_once() -> None:
    assert to_labels(" gpu, fast,gpu") == to_labels(["gpu", "fast"]) == ("gpu", "fast")
    assert to_labels("") == ()


def test_resources_are_amounts_by_name() -> None:
    assert to_resources("gpu=1, mem=1.5") == to_resources({"gpu": 1, "mem": 1.5})
    assert to_resources("") == {}


@pytest.mark.parametrize(
    ("read", "given"),
    [
        (to_size, "much"),
        (to_size, "2XB"),
        (to_size, "0"),
        (to_size, -5),
        (to_labels, "a,,b"),
        (to_labels, "two words"),
        (to_labels, ["a,b"]),
        (to_labels, [3]),
        (to_resources, "gpu"),
        (to_resources, "gpu=many"),
        (to_resources, "gpu=-1"),
        (to_resources, "gpu=nan"),
        (to_resources, "gpu=1,gpu=2"),
        (to_resources, {"": 1}),
        (to_resources, {"gpu": None}),
    ],
)
def test_nonsense_is_refused_in_one_line(
    read: Callable[[object], object], given: object
) -> None:
    with pytest.raises(ClusterError) as info:
        read(given)
    assert "\n" not in str(info.value)


def test_options_survive_the_command_line_and_the_cluster_file() -> None:
    options = EngineOptions().but(
        labels=["gpu"], resources={"mem": 0.1}, memory_limit="1GB", restart=True
    )
    assert options.arguments == [
        "--labels=gpu",
        "--resources=mem=0.1",
        "--memory-limit=1000000000",
        "--restart",
    ]
    assert msgspec.json.decode(msgspec.json.encode(options), type=EngineOptions) == options
    assert options.but() == options


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"labels": ["a", "b"], "resources": {"gpu": 1.0}, "memory_limit": 5, "restart": True},
        {
            "startup_file": "/a b/c.py",
            "startup_code": "x = 'a'\ny = \"b\"",
            "stop_grace_s": 30.0,
        },
    ],
    ids=["nothing", "what they have", "what they do"],
)
def test_who_is_told_the_options_understands_them(given: dict[str, Any]) -> None:
    options = EngineOptions().but(**given)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert from_arguments(parser.parse_args(options.arguments)) == options


@pytest.mark.parametrize(
    ("stop_grace_s", "engine_grace_s"), [(60.0, 57.0), (settings.STOP_GRACE_S, 2.0), (1.0, 0.4)]
)
def test_those_who_use_force_get_a_part_of_the_grace(
    stop_grace_s: float, engine_grace_s: float
) -> None:
    assert EngineOptions(stop_grace_s=stop_grace_s).engine_grace_s == engine_grace_s


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (5, "5 B"),
        (12_345, "12.3 kB"),
        (2_100_000_000, "2.1 GB"),
        (10**15, "1e+03 TB"),
    ],
)
def test_size_is_shown_with_three_digits(count: int, text: str) -> None:
    assert size_text(count) == text


def test_texts_of_numpy_are_texts() -> None:
    assert type(to_labels(numpy.array(["gpu"]))[0]) is str  # type: ignore[arg-type]
    assert [type(name) for name in to_resources({numpy.str_("gpu"): 1})] == [str]
