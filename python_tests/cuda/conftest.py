"""Where a test of the CUDA kernels runs: on a GPU and on the emulator, or on a GPU alone."""

from __future__ import annotations

import pytest
from support.kernels import Emulated, OnGPU
from support.rehearsal import GPU


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=pytest.mark.cuda)])
def kernels(request, monkeypatch):
    """The CUDA kernels, emulated and on a GPU."""
    return Emulated(monkeypatch) if request.param == "emulator" else OnGPU()


@pytest.fixture
def gpu():
    """The device of a test that needs a GPU: "cuda", or "cpu" where it is rehearsed."""
    return GPU
