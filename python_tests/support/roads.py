"""The ways that the searches' filters multiply on this processor, each to the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deepclust_ext import build_info

SWITCHES = ("DEEPCLUST_NO_AMX", "DEEPCLUST_NO_INT8")


def have_amx() -> bool:
    """Whether the library is at a level that takes it and the processor has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read()
    except OSError:
        return False
    return build_info()["simd"] == "avx512" and "amx_int8" in flags


def names() -> list[str]:
    """Of the roads: as the library chooses, and those that a variable of the environment leads to."""
    return ["best", *SWITCHES[0 if have_amx() else 1 :]]


def take(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment for one of `names()`."""
    for switch in SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    if road != "best":
        monkeypatch.setenv(road, "1")


def each(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All of them, one after another."""
    for road in names():
        take(road, monkeypatch)
        yield road
