"""DHOG's objective as one fused op: the public function, its gradient, fake kernel and vmap rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.distributed import kind_of, ranks_of
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import (
    accumulator_dtype,
    batch_first,
    check_floating,
    differentiable,
    first_derivative_only,
    wants_gradient,
)
from deepclust_ext.ops._grouped_mi import dhog_of_all

__all__ = ["DHOGLoss", "dhog_loss"]


class DHOGLoss(NamedTuple):
    """What `dhog_loss` returns: the loss to differentiate, and its parts (detached) to log."""

    loss: Tensor
    """Scalar; minimise it."""
    pull: Tensor
    """(H,): mutual information between augmentations, a head each, in nats; its entropies weighed by lamb."""
    push: Tensor
    """(H, H), strictly lower triangle: mutual information between heads i and j < i, in nats."""


def dhog_loss(
    probs: Tensor,
    *,
    alpha: float = 0.05,
    pooling: str = "pooled",
    push_norm: str = "index",
    lamb: float = 1.0,
    group: ProcessGroup | None = None,
) -> DHOGLoss:
    r"""DHOG's loss: augmentations of an image pulled together, hierarchical heads pushed apart.

    .. math::

        L = -\frac{1}{H} \sum_{i=1}^{H} MI_{aug}(i) + \alpha \sum_{i=2}^{H} \frac{1}{i} \sum_{j<i} MI(z_i, sg(z_j))

    with sg the stop-gradient: a push pair moves its later head only. All joints are blocks of a few products, all
    their gradients are formed in the forward pass, and nothing of size n x C x C or pairs x n x C exists.
    The same bits for any number of threads; levels of DEEPCLUST_SIMD agree to rounding.

    Parameters
    ----------
    probs : Tensor, shape (A, H, n, C), float16, bfloat16, float32 or float64
        Rows are probabilities: A >= 2 augmentations of n images, H heads ordered simple to complex, C clusters.
    alpha : float, default 0.05
        Weight of the push; 0 leaves IIC's loss with DHOG's augmentations.
    pooling : {"pooled", "mean"}, default "pooled"
        "pooled": one joint over all ordered augmentation pairs a != b. "mean": the mean, over pairs a < b, of the
        mutual information of the pair's symmetrised joint.
    push_norm : {"index", "count"}, default "index"
        Divide head i's push (i from 1) by i, as the paper's formula does, or by its number of comparisons, i - 1.
    lamb : float, default 1.0
        Weight of the marginals' entropies in the pull. Push joints use 1 and are never symmetrised.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold images of one batch, as many each as they like: joints are added in rank order before they are
        normalised. Every rank gets the results of the whole batch, within rounding of one rank on all images and with
        the same bits on every rank, and its own rows of the gradient. So a parameter's gradient is the *sum* over
        ranks: where it is averaged instead, as by DistributedDataParallel, multiply the loss by the number of ranks.

    Returns
    -------
    DHOGLoss
        `loss` (), `pull` (H,) and `push` (H, H), float32 (float64 for float64 input).

    Raises
    ------
    TypeError
        `probs` is not a floating-point tensor, `alpha` or `lamb` not a number.
    ValueError
        `probs` is not 4-dimensional, has fewer than two augmentations, no head or no class; an unknown option; or
        arguments differ between the ranks of a group. What one rank refuses is an error on all.

    References
    ----------
    "DHOG: Deep Hierarchical Object Grouping", arXiv 2003.08821, equations 1 to 5.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import dhog_loss
    >>> probs = torch.randn(4, 8, 220, 10).softmax(-1).requires_grad_()
    >>> result = dhog_loss(probs)
    >>> result.loss.backward()
    >>> result.pull.shape, result.push.shape
    (torch.Size([8]), torch.Size([8, 8]))
    """
    if group is not None:

        def prepare() -> tuple[tuple[float, float], dict[str, object], tuple[()]]:
            weights = _check(probs, alpha, pooling, push_norm, lamb)
            facts: dict[str, object] = {"probs": kind_of(probs, 2), "alpha": weights[0], "pooling": pooling}
            return weights, {**facts, "push_norm": push_norm, "lamb": weights[1]}, ()

        ranks = ranks_of("dhog_loss", group)
        (alpha, lamb), _ = ranks.agree(prepare)
        pooled = pooling == "pooled"
        found = dhog_of_all(ranks, probs, alpha, pooled, push_norm == "index", lamb)
        if wants_gradient("dhog_loss", probs):
            found = _of_all(probs, found, pooled, None, None)
        return DHOGLoss(*found[:3])
    alpha, lamb = _check(probs, alpha, pooling, push_norm, lamb)
    run = _differentiable if wants_gradient("dhog_loss", probs) else _raw.dhog_loss
    loss, pull, push, _, _ = run(probs, alpha, pooling == "pooled", push_norm == "index", lamb)
    return DHOGLoss(loss, pull, push)


def _check(probs: Tensor, alpha: float, pooling: str, push_norm: str, lamb: float) -> tuple[float, float]:
    check_floating("dhog_loss", "probs", probs)
    if probs.dim() != 4:
        raise ValueError(f"dhog_loss: 'probs' must have shape (A, H, n, C), got {tuple(probs.shape)}")
    if probs.shape[0] < 2:
        raise ValueError(f"dhog_loss: 'probs' must hold at least two augmentations, got {probs.shape[0]}")
    if probs.shape[1] < 1 or probs.shape[3] < 1:
        raise ValueError(f"dhog_loss: 'probs' must have at least one head and class, got {tuple(probs.shape)}")
    check.choice("dhog_loss", "pooling", pooling, ("pooled", "mean"))
    check.choice("dhog_loss", "push_norm", push_norm, ("index", "count"))
    return check.number("dhog_loss", "alpha", alpha), check.number("dhog_loss", "lamb", lamb)


class _DHOGLoss(torch.autograd.Function):
    """Keeps the gradients of all joints from the forward pass; only the loss is differentiable."""

    generate_vmap_rule = True

    @staticmethod
    def forward(probs: Tensor, alpha: float, pooled: bool, push_by_index: bool, lamb: float) -> tuple[Tensor, ...]:
        return _raw.dhog_loss(probs, alpha, pooled, push_by_index, lamb)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, pull, push, pull_grad, push_grad = output
        ctx.save_for_backward(inputs[0], pull_grad, push_grad)
        ctx.pooled = inputs[2]
        ctx.mark_non_differentiable(pull, push, pull_grad, push_grad)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None, None, None]:
        if grad_loss is None:
            return None, None, None, None, None
        run = _differentiable_backward if torch.is_grad_enabled() else _raw.dhog_loss_backward
        probs, pull_grad, push_grad = ctx.saved_tensors
        return run(grad_loss, probs, pull_grad, push_grad, ctx.pooled), None, None, None, None


class _DHOGLossOfAll(_DHOGLoss):
    """The same of what all ranks have found, with the gradient of this rank's images."""

    @staticmethod
    def forward(probs: Tensor, found: tuple[Tensor, ...], pooled: bool, *_: None) -> tuple[Tensor, ...]:  # type: ignore[override]
        return found


_differentiable = differentiable(_DHOGLoss)
_of_all = differentiable(_DHOGLossOfAll)
_differentiable_backward = differentiable(first_derivative_only("dhog_loss", _raw.dhog_loss_backward))


@torch.library.register_fake("deepclust::dhog_loss")
def _(
    probs: Tensor, alpha: float, pooled: bool, push_by_index: bool, lamb: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    views, heads, _, classes = probs.shape
    pairs = 1 if pooled else views * (views - 1) // 2
    dtype = accumulator_dtype(probs.dtype)
    sizes: list[tuple[Any, ...]] = [(), (heads,), (heads, heads)]
    sizes += [(heads, pairs, classes, classes), (heads, heads, classes, classes)]
    loss, pull, push, pull_grad, push_grad = (probs.new_empty(size, dtype=dtype) for size in sizes)
    return loss, pull, push, pull_grad, push_grad


@torch.library.register_fake("deepclust::dhog_loss_backward")
def _(grad_loss: Tensor, probs: Tensor, pull_grad: Tensor, push_grad: Tensor, pooled: bool) -> Tensor:
    return probs.new_empty(probs.shape)


def _each(run: Any, info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """`run` once for every batch item: probs has no leading dimension to put the batch in."""
    size = info.batch_size
    batched = [batch_first(size, arg, dim) for arg, dim in zip(args, in_dims, strict=True)]
    if size == 0:  # one item of zeros tells the shapes
        batched = [b.new_zeros((1, *b.shape[1:])) if isinstance(b, Tensor) else b for b in batched]
    outputs = [run(*(b[i] if isinstance(b, Tensor) else b for b in batched)) for i in range(max(1, size))]
    return tuple(torch.stack(parts)[:size] for parts in zip(*outputs, strict=True))


@torch.library.register_vmap("deepclust::dhog_loss")
def _(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    return _each(_raw.dhog_loss, info, in_dims, args), (0, 0, 0, 0, 0)


@torch.library.register_vmap("deepclust::dhog_loss_backward")
def _(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    (grad,) = _each(lambda *item: (_raw.dhog_loss_backward(*item),), info, in_dims, args)
    return grad, 0
