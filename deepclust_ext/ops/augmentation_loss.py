"""Super-AND's loss between two views: the public function and its gradient, made of small products."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops._bank import check_bank
from deepclust_ext.ops._common import (
    accumulator_dtype,
    check_floating,
    differentiable,
    first_derivative_only,
    matched_rows,
    wants_gradient,
)
from deepclust_ext.ops.ordered_product import ordered_product

__all__ = ["GRAM_ROWS", "augmentation_loss", "bank_gram", "gram_of_blocks"]

# Rows of the bank that are in float32 at once.
GRAM_ROWS = 8192


def augmentation_loss(
    v: Tensor,
    v_aug: Tensor,
    bank: Tensor,
    *,
    temperature: float = 0.1,
    negative_weight: float = 1.0,
    gram: Tensor | None = None,
) -> Tensor:
    r"""Pull the two views of an image together by what they resemble in the bank, and push other views away.

    A view a is seen through its similarities to all rows, :math:`r_a = M v_a / \lVert M v_a \rVert`. Over the 2B views,
    with :math:`a'` the other view of the same image and w the weight of negatives:

    .. math::
        p(b|a) = \frac{e^{s_{ab}}}{e^{s_{aa'}} + w \sum_{c \ne a, a'} e^{s_{ac}}}, \qquad s_{ab} = r_a^\top r_b / \tau,
        \qquad
        L = -\frac{1}{2B} \sum_a \Bigl[ \log p(a'|a) + w \sum_{b \ne a, a'} \log (1 - p(b|a)) \Bigr]

    The second factor of each product is detached. No vector of N entries exists: :math:`r_a^\top r_b` is
    :math:`v_a^\top G v_b` over the square roots of :math:`v_a^\top G v_a` and :math:`v_b^\top G v_b`, exactly, with the
    d x d matrix :math:`G = M^\top M`. Sums are formed in float64; same bits for any number of threads.

    Parameters
    ----------
    v, v_aug : Tensor, shape (B, d), float16, bfloat16, float32 or float64
        Embeddings of the same images under two augmentations. A zero row resembles nothing.
    bank : Tensor, shape (N, d)
        The memory bank M, in any of these dtypes; it gets no gradient.
    temperature : float, default 0.1
        tau > 0.
    negative_weight : float, default 1.0
        w >= 1.
    gram : Tensor, shape (d, d), optional
        G, if it is at hand (`nn.MemoryBank(gram=True)` keeps it up to date): the bank is not read then.

    Returns
    -------
    Tensor, scalar
        float32 (float64 if an input is). 0 for B = 0 and for B = 1, where there are no negatives. A negative with
        p(b|a) = 1 counts as 1 - 2e-16. Differentiable once, in `v` and `v_aug`.

    Raises
    ------
    TypeError
        `v`, `v_aug`, `bank` or `gram` is not a floating-point tensor.
    ValueError
        Shapes or devices do not fit together, `temperature` is not above 0, or `negative_weight` is below 1.

    References
    ----------
    Han et al., "Mitigating Embedding and Class Assignment Mismatch in Unsupervised Image Classification" (Super-AND),
    ECCV 2020, equations 2, 13 and 14; Ye, Zhang, Yuen and Chang, "Unsupervised Embedding Learning via Invariant and
    Spreading Instance Feature", CVPR 2019, equation 7.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import augmentation_loss
    >>> views = torch.eye(3)
    >>> round(augmentation_loss(views, views, torch.eye(3)).item(), 4)  # views of an image agree, others differ
    0.0004
    """
    op = "augmentation_loss"
    check_floating(op, "v", v)
    check_floating(op, "v_aug", v_aug)
    bank = check_bank(op, bank, "v", v)
    if v_aug.shape != v.shape:
        raise ValueError(f"{op}: 'v_aug' must have v's shape {tuple(v.shape)}, got {tuple(v_aug.shape)}")
    v, v_aug = matched_rows(op, "v", v, "v_aug", v_aug)
    temperature = check.number(op, "temperature", temperature, above=0)
    negative_weight = check.number(op, "negative_weight", negative_weight, at_least=1)
    if gram is None:
        gram = bank_gram(bank)
    else:
        check_floating(op, "gram", gram)
        if gram.shape != (v.shape[1], v.shape[1]) or gram.device != v.device:
            raise ValueError(
                f"{op}: 'gram' must have shape {(v.shape[1], v.shape[1])} and be on {v.device}, "
                f"got {tuple(gram.shape)} on {gram.device}"
            )
    dtype = accumulator_dtype(torch.promote_types(v.dtype, bank.dtype))
    inputs = (torch.cat([v, v_aug]).to(dtype), gram.detach().double(), temperature, negative_weight)
    if wants_gradient(op, v, v_aug):
        loss: Tensor = _differentiable(*inputs)[0]
        return loss
    return _loss(*inputs, gradient=False)[0]


def bank_gram(bank: Tensor) -> Tensor:
    """M^T M (d, d) of a bank (N, d), float64, some thousand rows at a time; the same bits for any number of threads."""
    return gram_of_blocks(bank, bank.split(GRAM_ROWS))


def gram_of_blocks(bank: Tensor, blocks: Iterable[Tensor]) -> Tensor:
    """The same of rows like the bank's, of which GRAM_ROWS come at a time."""
    total = bank.new_zeros(bank.shape[1], bank.shape[1], dtype=torch.float64)
    for rows in blocks:
        some = rows.detach().to(accumulator_dtype(bank.dtype))
        total = total + ordered_product(some, some)
    return total


def _loss(
    views: Tensor, gram: Tensor, temperature: float, negative_weight: float, gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss [] and its gradient with respect to the views (2B, d), the partner of view a being a + B or a - B."""
    count = views.shape[0]
    if count == 0:
        return views.sum(), torch.zeros_like(views)
    z = views.double()
    mapped = ordered_product(z.mT, gram)  # G z, for G is symmetric
    squared = (z * mapped).sum(-1)
    # A view that resembles nothing, or does so by rounding alone, has r = 0.
    inverse = torch.where(squared > 0, squared, torch.inf).rsqrt()
    mapped = mapped * inverse.unsqueeze(-1)
    cosines = ordered_product(z.mT, mapped.mT) * inverse.unsqueeze(-1)
    a = torch.arange(count, device=views.device)
    own, pair = (a.unsqueeze(-1) == b for b in (a, a.roll(count // 2)))
    negative = ~(own | pair)

    logits = cosines / temperature
    weighted = torch.where(negative, logits + math.log(negative_weight), logits)
    weighted = weighted.masked_fill(own, -torch.inf)
    lse = weighted.logsumexp(-1, keepdim=True)
    p = torch.where(negative, logits - lse, -torch.inf).exp().clamp_max(1 - torch.finfo(z.dtype).eps)
    terms = torch.where(pair, logits - lse, negative_weight * torch.log1p(-p))
    loss = (-terms.sum(-1) / count).sum(-1)
    if not gradient:
        return loss.to(views.dtype), loss
    # With q the weighted softmax and u = p / (1 - p): dL_a / dl_ab = q (1 - w sum u) + w u - [b is a's partner].
    odds = p / (1 - p)
    q = (weighted - lse).exp()
    slope = q * (1 - negative_weight * odds.sum(-1, keepdim=True)) + negative_weight * odds - pair.to(z.dtype)
    slope = slope / (count * temperature)
    grad = ordered_product(slope.mT, mapped) - (slope * cosines).sum(-1, keepdim=True) * mapped
    return loss.to(views.dtype), (grad * inverse.unsqueeze(-1)).to(views.dtype)


class _AugmentationLoss(torch.autograd.Function):
    """Keeps the gradient from the forward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(views: Tensor, gram: Tensor, temperature: float, negative_weight: float) -> tuple[Tensor, Tensor]:
        return _loss(views, gram, temperature, negative_weight, gradient=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: Any) -> tuple[Tensor | None, None, None, None]:
        if grad_loss is None:
            return None, None, None, None
        views, grad = ctx.saved_tensors
        run = _differentiable_backward if torch.is_grad_enabled() else _weigh
        return run(views, grad, grad_loss), None, None, None


def _weigh(_views: Tensor, grad: Tensor, grad_loss: Tensor) -> Tensor:
    """The kept gradient, weighed; the views are here because its own derivative with respect to them refuses."""
    return grad_loss.reshape(1, 1) * grad


_differentiable = differentiable(_AugmentationLoss)
_differentiable_backward = differentiable(first_derivative_only("augmentation_loss", _weigh))
