"""Shared fixtures: explicit generators, so that no test depends on another's random numbers."""

from __future__ import annotations

import signal

import pytest
import torch
from support.rehearsal import REHEARSED


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed, fresh for every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def threads():
    """`threads(n)` sets torch's thread count; the old one comes back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def hangup():
    """SIGHUP as a terminal's process has it: under nohup it is ignored, and what is tested respects that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def pytest_collection_modifyitems(items):
    """Tests of a GPU are skipped where there is none, but for those that can be rehearsed (support/rehearsal.py)."""
    if torch.cuda.is_available():
        return
    for item in items:
        rehearsed = REHEARSED and {"gpu", "kernels"} & set(item.fixturenames)
        if item.get_closest_marker("cuda") and not rehearsed:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
