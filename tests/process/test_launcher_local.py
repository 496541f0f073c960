"""Engines as processes of this host."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from helpers_launchers import GraceSuite, LauncherSuite

pytestmark = [pytest.mark.process, pytest.mark.slow]


class TestLocal(LauncherSuite, GraceSuite):
    options: ClassVar[dict[str, Any]] = {}
