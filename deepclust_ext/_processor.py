"""What the processor is called: results' bits and times are of one."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor_name() -> str:
    """Its model as Linux knows it, or as the platform does elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def processor() -> str:
    """Its model and the instructions that torch uses, which decide how sums are rounded."""
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
