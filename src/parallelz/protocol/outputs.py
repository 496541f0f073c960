"""What a task showed, as part of several messages."""

from __future__ import annotations

import msgspec


def cut_mark(length: int) -> str:
    """Return what stands in a text in the place of so many characters that are left out."""
    return f"\n... {length} characters ...\n"


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A pickled dictionary that a task published."""

    data: bytes
    frames: list[bytes] = []


class Outputs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a task printed, displayed and published."""

    stdout: str = ""
    stderr: str = ""
    displays: bytes = b""  # msgpack: list of {"data": mimebundle, "metadata": ...}
    execute_result: bytes = b""  # msgpack: {"data": mimebundle, ...}; b"": there is none
    data: list[Published] = []  # in the order in which it was published
    left_out: tuple[int, int] = (0, 0)  # characters of stdout and of stderr
