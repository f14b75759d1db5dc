"""Tests of a GPU, rehearsed without one: DEEPCLUST_REHEARSE_CUDA=1 runs them on the CPU, on smaller inputs.

That shows what is wrong with a test, and says nothing about a kernel.
"""

from __future__ import annotations

import os

REHEARSED = os.environ.get("DEEPCLUST_REHEARSE_CUDA") == "1"
GPU = "cpu" if REHEARSED else "cuda"
