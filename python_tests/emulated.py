"""The public ops on emulated kernels: torch tensors in, numpy through the emulator, torch tensors out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from emu import load
from torch import Tensor

emu = load()

_RAW = {torch.bfloat16: torch.uint16}  # numpy has no bfloat16: its bits travel


def to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(_RAW.get(tensor.dtype, tensor.dtype)).numpy()


def to_torch(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if tensor.dtype == torch.uint16 else tensor


def mi_loss(p: Tensor, q: Tensor, lamb: float, symmetric: bool, upstream: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """([loss], [grad_p, grad_q]) of p [batch, n, C] and q [batch, n, D]."""
    x, y = to_numpy(p), to_numpy(q)
    loss, joint_grad = emu.mi_loss(x, y, lamb, symmetric)
    grads = emu.mi_loss_backward(to_numpy(upstream), x, y, joint_grad, True, True)
    return [to_torch(loss, p.dtype)], [to_torch(grad, p.dtype) for grad in grads]


def dhog_loss(
    probs: Tensor, alpha: float, pooled: bool, push_by_index: bool, lamb: float, upstream: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """([loss, pull, push], [gradient]) of probs [A, H, n, C]."""
    x = to_numpy(probs)
    *outputs, pull_grad, push_grad = emu.dhog_loss(x, alpha, pooled, push_by_index, lamb)
    grad = emu.dhog_loss_backward(to_numpy(upstream), x, pull_grad, push_grad, pooled)
    return [to_torch(output, probs.dtype) for output in outputs], [to_torch(grad, probs.dtype)]


def knn(x: Tensor, query: Tensor | None = None, *, k: int, metric: str = "euclidean") -> tuple[Tensor, Tensor]:
    """Values and indices (..., Q or N, k) of x (..., N, d) and query (..., Q, d)."""
    asked = x if query is None else query
    points, queries = (t.reshape(-1, *t.shape[-2:]) if t.numel() else t.new_empty(0, *t.shape[-2:]) for t in (x, asked))
    if asked.shape[:-1].numel() == 0:  # the op itself returns before any launch
        points, queries = points[:0], queries[:0]
    values, indices = emu.knn(to_numpy(points), None if query is None else to_numpy(queries), k, metric)
    shape = (*asked.shape[:-1], k)
    return to_torch(values, x.dtype).reshape(shape), torch.from_numpy(indices).reshape(shape)


SEARCHES = {"knn": knn}


def call(name: str, tensors: tuple[Tensor, ...], kwargs: dict[str, Any], upstream: Tensor) -> Any:
    """Outputs and gradients of the op `name`, as the public function takes its arguments."""
    if name in SEARCHES:
        return list(SEARCHES[name](*tensors, **kwargs)), []
    if name == "dhog_loss":
        pooled, by_index = kwargs.get("pooling", "pooled") == "pooled", kwargs.get("push_norm", "index") == "index"
        return dhog_loss(tensors[0], kwargs.get("alpha", 0.05), pooled, by_index, kwargs.get("lamb", 1.0), upstream)
    p, q = (t.reshape(upstream.numel(), *t.shape[-2:]) for t in tensors)
    outputs, grads = mi_loss(p, q, kwargs.get("lamb", 1.0), kwargs.get("symmetric", True), upstream.reshape(-1))
    grads = [grad.reshape(t.shape) for grad, t in zip(grads, tensors, strict=True)]
    return [outputs[0].reshape(upstream.shape)], grads
