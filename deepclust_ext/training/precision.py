"""bfloat16 in a network's products, where the machine multiplies it faster: weights, losses and labels stay float32."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor

from deepclust_ext._warnings import DeepclustWarning


def reduced(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within the block a network multiplies in `precision`, by torch's autocast; "float32" changes nothing."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def in_float32(outputs: Any) -> Any:
    """What `Learner.forward` has returned, with every tensor of a reduced precision in float32."""
    if isinstance(outputs, tuple):
        return tuple(in_float32(each) for each in outputs)
    if isinstance(outputs, Tensor) and outputs.dtype in (torch.bfloat16, torch.float16):
        return outputs.float()
    return outputs


def warn_if_slow(method: str, precision: str, device: torch.device) -> None:
    """Say so where bfloat16 is no faster: on processors that have no instruction for it."""
    if precision == "bfloat16" and device.type == "cpu" and not _cpu_multiplies_bfloat16():
        warnings.warn(
            f"{method}: this processor has no bfloat16 instructions (AVX512_BF16 or AMX): precision='bfloat16' is "
            "slower here than 'float32'",
            DeepclustWarning,
            stacklevel=4,
        )


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; torch's own tests, True where a version lacks them."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is None or test() for test in tests)
