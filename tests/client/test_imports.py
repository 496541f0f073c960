from __future__ import annotations

import builtins
import importlib
import sys
import threading
from pathlib import Path

import pytest

from parallelz.client.imports import recorded_imports


def test_statements_are_noted_as_they_can_be_repeated() -> None:
    with recorded_imports(quiet=True) as statements:
        import xml.dom
        import xml.sax as sax
        from string import ascii_letters, digits
        from string import hexdigits as renamed
    assert statements == [
        "import xml.dom",
        "import xml.sax",
        "from string import ascii_letters, digits",
        "from string import hexdigits",
    ]
    assert [xml.dom.__name__, sax.__name__] == ["xml.dom", "xml.sax"]
    assert ascii_letters + digits + renamed


def test_relative_imports_are_noted_by_their_full_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sibling.py").write_text("value = 1")
    (package / "user.py").write_text(
        "from parallelz.client.imports import recorded_imports\n"
        "with recorded_imports(quiet=True) as statements:\n"
        "    from . import sibling\n"
        "    from .sibling import value\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    user = importlib.import_module("some_package.user")
    assert user.statements == [
        "from some_package import sibling",
        "from some_package.sibling import value",
    ]
    for name in [name for name in sys.modules if name.startswith("some_package")]:
        del sys.modules[name]


def test_imports_of_other_threads_are_not_noted() -> None:
    def import_something() -> None:
        import colorsys  # noqa: F401

    with recorded_imports(quiet=True) as statements:
        thread = threading.Thread(target=import_something)
        thread.start()
        thread.join()
    assert statements == []


def test_importing_is_as_before_also_after_an_error() -> None:
    before = builtins.__import__
    with pytest.raises(ZeroDivisionError), recorded_imports(quiet=True):
        _ = 1 / 0
    assert builtins.__import__ is before
