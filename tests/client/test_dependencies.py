from __future__ import annotations

import pytest

from parallelz import Dependency, InvalidDependency
from parallelz.client.dependencies import depends_on
from parallelz.protocol import messages


def test_all_needs_every_task_and_any_needs_one() -> None:
    both = Dependency(["a", "b"])
    either = Dependency(["a", "b"], all=False)
    assert not both.check({"a"})
    assert both.check({"a", "b"})
    assert either.check({"b"})
    assert Dependency().check(())


def test_failures_count_only_when_asked_for() -> None:
    assert not Dependency(["a"]).check((), {"a"})
    assert Dependency(["a"], success=False, failure=True).check((), {"a"})
    assert Dependency(["a"], success_only=False).check((), {"a"})


def test_unreachable_as_soon_as_that_is_certain() -> None:
    both = Dependency(["a", "b"])
    either = Dependency(["a", "b"], all=False)
    assert both.unreachable((), {"a"})
    assert not either.unreachable((), {"a"})
    assert either.unreachable((), {"a", "b"})


def test_it_must_count_something() -> None:
    with pytest.raises(ValueError, match="success or failure"):
        Dependency(["a"], success=False)


@pytest.mark.parametrize("nonsense", [5, [5], b"x", object()])
def test_nonsense_is_an_invalid_dependency(nonsense: object) -> None:
    with pytest.raises(InvalidDependency):
        depends_on(nonsense)


def test_what_users_give_becomes_a_message() -> None:
    assert depends_on(None) is None
    assert depends_on([]) is None
    assert depends_on("a") == messages.Dependency(["a"])
    assert depends_on([["b"], {"a"}]) == messages.Dependency(["a", "b"])
    mapping = Dependency(["a"], all=False, failure=True).as_dict()
    assert depends_on(mapping) == messages.Dependency(["a"], all=False, failure=True)
