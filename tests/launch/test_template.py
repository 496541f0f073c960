"""The fields of the scripts of jobs."""

from __future__ import annotations

import pytest

from parallelz.errors import ClusterError
from parallelz.launch.template import fill

FIELDS = {"n": 10, "queue": "long", "profile_dir": "/p"}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("-n ${n}", "-n 10"),
        ("-n {n}", "-n 10"),
        ("nodes=${n/4}", "nodes=3"),
        ("${n / 5} ${n*2} ${n+1} ${n-1}", "2 20 11 9"),
        ("cost $$5, $${HOME} and $HOME", "cost $5, ${HOME} and $HOME"),
        ("{queue} in ${profile_dir}", "long in /p"),
        ("awk '{print $1}' {nobody} {} {a b}", "awk '{print $1}' {nobody} {} {a b}"),
        ("", ""),
    ],
)
def test_fields_are_filled_in(template: str, filled: str) -> None:
    assert fill(template, FIELDS) == filled


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("${HOME}", r"\$\{HOME\}, which is no field.*write \$\$\{HOME\}"),
        ("${queu}", r"did you mean \$\{queue\}"),
        ("${n/0}", r"cannot compute \$\{n/0\}"),
        ("${queue*2}", r"cannot compute"),
        ("${n**2}", "which is no field"),
        ("${__import__('os')}", "which is no field"),
        ("${}", "which is no field"),
    ],
)
def test_what_is_no_field_is_told(template: str, said: str) -> None:
    with pytest.raises(ClusterError, match=said):
        fill(template, FIELDS)
