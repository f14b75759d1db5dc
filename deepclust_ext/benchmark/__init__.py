"""Kernels timed beside the best way to write them without us: `deepclust bench`."""

from __future__ import annotations

from deepclust_ext.benchmark.runner import OPS, main

__all__ = ["OPS", "main"]
