"""`mi_loss` and `dhog_loss` over the ranks of a process group: joints are added up before they are normalised.

The kernels take probabilities and not joints, but a joint J is the product of the identity and J, exactly. So each rank
forms the joints of its own samples, all ranks add them in rank order, and the kernel gives the loss of the sum with its
gradient by the joint. The gradient of a rank's samples then needs that gradient and nothing of the other ranks, so
backward passes communicate nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import accumulator_dtype
from deepclust_ext.ops.ordered_product import ordered_product

__all__ = ["dhog_of_all", "mi_of_all"]


def mi_of_all(ranks: Ranks, p: Tensor, q: Tensor, lamb: float, symmetric: bool) -> tuple[Tensor, Tensor]:
    """What the raw op returns of the samples of all ranks, of which p (..., n, C) and q (..., n, D) are this one's."""
    return _of_joints(ranks.sum_ordered(_joints(p.detach(), q.detach())), lamb, symmetric)


def dhog_of_all(
    ranks: Ranks, probs: Tensor, alpha: float, pooled: bool, push_by_index: bool, lamb: float
) -> tuple[Tensor, ...]:
    """What the raw op returns of the samples of all ranks; probs (A, H, n, C) are this one's."""
    heads, classes = probs.shape[1], probs.shape[3]
    z = probs.detach().to(accumulator_dtype(probs.dtype))
    # One exchange for the joints of both kinds, as [joints, C, C].
    pulls = _pull_joints(z, pooled)
    joints = ranks.sum_ordered(torch.cat([pulls, *_push_joints(z)]))
    pulls, pushes = joints[: len(pulls)], joints[len(pulls) :]

    pull_loss, pull_grad = _of_joints(pulls, lamb, True)
    pairs = len(pulls) // heads
    pull = -pull_loss.view(heads, pairs).mean(1)
    pull_grad = (pull_grad / (heads * pairs)).view(heads, pairs, classes, classes)

    push = z.new_zeros(heads, heads)
    push_grad = z.new_zeros(heads, heads, classes, classes)
    loss = -pull.mean()
    if heads > 1:
        push_loss, grad = _of_joints(pushes, 1.0, False)
        later, earlier = torch.tril_indices(heads, heads, -1, device=z.device)  # row by row, as _push_joints has them
        divisor = (later + 1 if push_by_index else later).to(z.dtype)
        push[later, earlier] = -push_loss
        push_grad[later, earlier] = grad * (-alpha / divisor).view(-1, 1, 1)
        loss = loss - alpha * (push_loss / divisor).sum()
    return loss, pull, push, pull_grad, push_grad


def _joints(p: Tensor, q: Tensor) -> Tensor:
    """The products p^T q (..., C, D) of matrices with the same leading dimensions."""
    dtype = accumulator_dtype(p.dtype)
    shape = (*p.shape[:-2], p.shape[-1], q.shape[-1])
    p, q = (t.to(dtype).reshape(p.shape[:-2].numel(), *t.shape[-2:]) for t in (p, q))
    each = [ordered_product(a, b) for a, b in zip(p, q, strict=True)]
    return torch.stack(each).view(shape) if each else p.new_zeros(shape)


def _pull_joints(z: Tensor, pooled: bool) -> Tensor:
    """[H, C, C], the joint of each view with the sum of those after it, or [H pairs, C, C], one of every two views."""
    views = z.shape[0]
    if not pooled:
        pairs = [(a, b) for a in range(views) for b in range(a + 1, views)]
        both = [torch.stack([z[pair[side]] for pair in pairs], 1) for side in (0, 1)]  # [H, pairs, n, C]
        return _joints(*both).flatten(0, 1)
    after = [z[-1]]
    for view in range(views - 2, 0, -1):
        after.insert(0, after[0] + z[view])
    heads = z.shape[1]
    rows = (torch.stack(list(t), 1).reshape(heads, -1, z.shape[3]) for t in (z[:-1], after))
    return _joints(*rows)


def _push_joints(z: Tensor) -> list[Tensor]:
    """[i, C, C] for each head i above 0: its joints with the heads before it, pooled over views."""
    views, heads, n, classes = z.shape
    wide = z.transpose(1, 2).reshape(views * n, heads * classes)
    found = []
    for i in range(1, heads):
        blocks = ordered_product(wide[:, i * classes : (i + 1) * classes], wide[:, : i * classes])
        found.append(blocks.view(classes, i, classes).transpose(0, 1))
    return found


def _of_joints(joints: Tensor, lamb: float, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Loss (...) of joints (..., C, D) and its gradient by them."""
    one = torch.eye(joints.shape[-2], dtype=joints.dtype, device=joints.device)
    return _raw.mi_loss(one.expand(*joints.shape[:-2], *one.shape), joints, lamb, symmetric)
