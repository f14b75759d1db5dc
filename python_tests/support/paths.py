"""The ways that the searches' filters multiply on this processor, each to the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deepclust_ext import build_info

SWITCHES = ("DEEPCLUST_NO_AMX", "DEEPCLUST_NO_INT8")


def names() -> list[str]:
    """Of the paths: as the library chooses, and those that a variable of the environment leads to."""
    return ["best", *SWITCHES[0 if build_info()["amx"] else 1 :]]


def eight_bits() -> bool:
    """Whether codes are of 8 bits: where one instruction multiplies four of them."""
    level = build_info()["simd"]
    if level != "avx2":
        return bool(level == "avx512")
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return "avx_vnni" in file.read()
    except OSError:
        return False


def take(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment for one of `names()`."""
    for switch in SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    if path != "best":
        monkeypatch.setenv(path, "1")


def each(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All of them, one after another."""
    for path in names():
        take(path, monkeypatch)
        yield path
