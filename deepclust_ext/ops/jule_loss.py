"""JULE's weighted triplet loss: the public function, its gradient, fake kernel and vmap rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import (
    accumulator_dtype,
    batch_first,
    check_floating,
    differentiable,
    first_derivative_only,
    wants_gradient,
)

__all__ = ["jule_loss"]

# A GPU keeps the negatives of a pair in shared memory.
_MOST_NEGATIVES = 1024


def jule_loss(
    z: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    margin: float = 0.2,
    n_negatives: int = 20,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    r"""Weighted triplet loss: samples of one cluster are drawn together, and away from samples of other clusters.

    Every pair a < p of samples with the same label draws negatives n of other labels. With T triplets in all,

    .. math:: L = \frac{1}{T} \sum_{(a, p, n)}
        \max(0, \gamma \lVert z_a - z_p \rVert^2 - \lVert z_a - z_n \rVert^2 + m)

    A pair has min(`n_negatives`, labels in the batch - 1) negatives: distinct samples, drawn uniformly and without
    replacement from all samples of another label, for each pair on its own. They depend on the labels and a seed alone:
    a seed gives the same triplets on a CPU and a GPU, for any number of threads.

    No tensor of triplets exists. The forward pass keeps the gradient (B, d), and the backward pass scales it. The same
    bits for any number of threads; levels of DEEPCLUST_SIMD agree to rounding. A triplet at exactly 0 passes no
    gradient.

    Parameters
    ----------
    z : Tensor, shape (B, d), float16, bfloat16, float32 or float64
        Embeddings, L2-normalised in JULE. Any strides.
    labels : Tensor, shape (B,), int64
        The cluster of each sample. Any numbers: only whether two are equal counts.
    gamma : float, default 2.0
        Weight of the distance within a cluster, at least 0. The paper's is 2, its published code takes 1.
    margin : float, default 0.2
        How much farther a negative should be, at least 0.
    n_negatives : int, default 20
        Most negatives of a pair, 1 to 1024.
    generator : torch.Generator, int or None
        Where the seed comes from: a number drawn from the generator (torch's default generator of `z`'s device if
        None), or the int itself, from 0 to 2^63 - 1. With a CPU generator, or an int, a GPU draws what a CPU does.

    Returns
    -------
    Tensor, shape ()
        The loss, float32 (float64 for float64 input). 0 if there is no triplet: where all samples have one label, or
        no two have. Differentiable once, in `z`.

    Raises
    ------
    TypeError
        `z` is not a floating-point tensor, `labels` not an int64 tensor, or another argument's type is wrong.
    ValueError
        Shapes or devices do not fit together, or a number is out of range.

    Notes
    -----
    Under torch.compile with fullgraph=True, pass None or an int. Under torch.vmap the items of an int share their
    draws; with None or a generator, torch asks for `randomness="same"` or `"different"`. On a GPU, B x B counts of 32
    bits are kept.

    References
    ----------
    Yang, Parikh and Batra, "Joint Unsupervised Learning of Deep Representations and Image Clusters", CVPR 2016,
    equation 10.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import jule_loss
    >>> z = torch.tensor([[0.0], [1.0], [1.2]], requires_grad=True)
    >>> loss = jule_loss(z, torch.tensor([3, 3, 8]))  # one triplet: 2 * 1 - 1.44 + 0.2
    >>> loss.backward()
    >>> round(loss.item(), 4), [round(g, 4) for g in z.grad.flatten().tolist()]
    (0.76, [-1.6, 4.0, -2.4])
    """
    z, labels = _check(z, labels)
    gamma = check.number("jule_loss", "gamma", gamma, at_least=0)
    margin = check.number("jule_loss", "margin", margin, at_least=0)
    n_negatives = check.whole_number("jule_loss", "n_negatives", n_negatives, at_least=1, at_most=_MOST_NEGATIVES)
    seed = _seed(generator, z.device)
    run = _differentiable if wants_gradient("jule_loss", z) else _raw.jule_loss
    loss: Tensor = run(z, labels, seed, gamma, margin, n_negatives)[0]
    return loss


def _check(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    check_floating("jule_loss", "z", z)
    if z.dim() != 2 or z.shape[1] < 1:
        raise ValueError(f"jule_loss: 'z' must have shape (B, d) with d >= 1, got {tuple(z.shape)}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got, mend = (labels.dtype, ".long()") if isinstance(labels, Tensor) else (type(labels).__name__, "torch.tensor")
        raise TypeError(f"jule_loss: 'labels' must be an int64 tensor, got {got}; convert it with {mend}")
    if labels.shape != z.shape[:1]:
        raise ValueError(f"jule_loss: 'labels' must have shape ({z.shape[0]},), got {tuple(labels.shape)}")
    if labels.device != z.device:
        raise ValueError(
            f"jule_loss: 'labels' must be on z's device {z.device}, got {labels.device}; "
            f"move it with .to({str(z.device)!r})"
        )
    return z, labels


def _seed(generator: torch.Generator | int | None, device: torch.device) -> Tensor:
    """One int64 on the device, for which nothing waits."""
    if generator is None or isinstance(generator, torch.Generator):
        source = device if generator is None else generator.device
        return torch.randint(2**63 - 1, (), generator=generator, device=source).to(device, non_blocking=True)
    if isinstance(generator, bool) or not isinstance(generator, (int, torch.SymInt)):
        raise TypeError(f"jule_loss: 'generator' must be a torch.Generator, an int or None, got {generator!r}")
    seed = check.whole_number("jule_loss", "generator", generator, at_least=0, below=2**63)
    return torch.full((), seed, dtype=torch.int64, device=device)


class _JULELoss(torch.autograd.Function):
    """Keeps dL/dz from the forward pass; the loss is the only differentiable output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        z: Tensor, labels: Tensor, seed: Tensor, gamma: float, margin: float, n_negatives: int
    ) -> tuple[Tensor, Tensor]:
        return _raw.jule_loss(z, labels, seed, gamma, margin, n_negatives)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        # z for a second derivative to find, and be refused.
        ctx.save_for_backward(output[1], inputs[0])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: Any) -> tuple[Tensor | None, None, None, None, None, None]:
        if grad_loss is None:
            return None, None, None, None, None, None
        run = _differentiable_backward if torch.is_grad_enabled() else _scaled
        return run(grad_loss, *ctx.saved_tensors), None, None, None, None, None


def _scaled(grad_loss: Tensor, z_grad: Tensor, z: Tensor) -> Tensor:
    """Scale in float32, and round once."""
    return (grad_loss.view(1, 1) * z_grad).to(z.dtype)


_differentiable = differentiable(_JULELoss)
_differentiable_backward = differentiable(first_derivative_only("jule_loss", _scaled))


@torch.library.register_fake("deepclust::jule_loss")
def _(z: Tensor, labels: Tensor, seed: Tensor, gamma: float, margin: float, n_negatives: int) -> tuple[Tensor, Tensor]:
    dtype = accumulator_dtype(z.dtype)
    return z.new_empty((), dtype=dtype), z.new_empty(z.shape, dtype=dtype)


@torch.library.register_vmap("deepclust::jule_loss")
def _(
    info: Any, in_dims: tuple[Any, ...], z: Tensor, labels: Tensor, seed: Tensor, *numbers: Any
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Each item of the batch on its own: z has no leading dimension to put it in."""
    tensors = [batch_first(info.batch_size, t, dim) for t, dim in zip((z, labels, seed), in_dims, strict=False)]
    items = [_raw.jule_loss(*item, *numbers) for item in zip(*tensors, strict=True)]
    if items:
        losses, grads = (torch.stack(parts) for parts in zip(*items, strict=True))
        return (losses, grads), (0, 0)
    dtype = accumulator_dtype(z.dtype)
    return (z.new_zeros(0, dtype=dtype), tensors[0].to(dtype)), (0, 0)
