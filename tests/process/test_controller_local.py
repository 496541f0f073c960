"""A controller as a process of this host."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from helpers_controllers import ControllerSuite

pytestmark = [pytest.mark.process, pytest.mark.slow]


class TestLocalController(ControllerSuite):
    options: ClassVar[dict[str, Any]] = {"controller": "local"}
