"""Mutual information of two soft labellings: the public function, its gradient, fake kernel and vmap rule."""

from __future__ import annotations

from typing import Any

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
    matched_rows,
    wants_gradient,
)
from deepclust_ext.ops._grouped_mi import mi_of_all
from deepclust_ext.ops._probabilities import look_at_rows

__all__ = ["iic_loss", "mi_loss"]


def mi_loss(
    p: Tensor, q: Tensor, *, lamb: float = 1.0, symmetric: bool = True, group: ProcessGroup | None = None
) -> Tensor:
    r"""Minus the mutual information between two soft labellings of the same samples.

    With the joint :math:`J = p^\top q` (averaged with its transpose when symmetric), :math:`P = J / \sum J` and the
    marginals :math:`r_c = \sum_d P_{cd}`, :math:`s_d = \sum_c P_{cd}`:

    .. math:: L = -\sum_{cd} P_{cd} (\log P_{cd} - \lambda \log r_c - \lambda \log s_d)

    Nothing of size n x C x D exists: the forward pass keeps the C x D gradient of the joint and the backward pass is
    two thin products. 0 log 0 is 0, and an entry of the joint that is exactly 0 passes no gradient.
    The same bits for any number of threads; levels of DEEPCLUST_SIMD agree to rounding.

    Parameters
    ----------
    p : Tensor, shape (..., n, C), float16, bfloat16, float32 or float64
        Rows are probabilities over C clusters (a softmax's output). Any strides.
    q : Tensor, shape (..., n, D)
        The other labelling. Leading dimensions broadcast against those of `p`; a different dtype is promoted.
    lamb : float, default 1.0
        Weight of the marginals' entropies. Above 1, balanced clusters are rewarded more.
    symmetric : bool, default True
        Average the joint with its transpose first, as for two views of one image. Needs C == D.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold samples of one batch, as many each as they like: joints are added in rank order before they are
        normalised. Every rank gets the loss of the whole batch, within rounding of one rank on all samples and with the
        same bits on every rank, and its own rows of the gradient. So a parameter's gradient is the *sum* over ranks:
        where it is averaged instead, as by DistributedDataParallel, multiply the loss by the number of ranks.

    Returns
    -------
    Tensor, shape (...)
        The loss in nats, float32 (float64 for float64 inputs), in [-ln min(C, D), 0] at lamb=1 up to rounding.
        0 for an empty batch and for a joint that sums to 0. Differentiable once, in `p` and `q`.

    Raises
    ------
    TypeError
        `p` or `q` is not a floating-point tensor, `lamb` not a number, `symmetric` not a bool.
    ValueError
        Shapes or devices do not fit together, `symmetric` with C != D, or arguments differ between the ranks of a
        group; what one rank refuses is an error on all.

    Warns
    -----
    DeepclustWarning
        Once in a process, if rows of the first call with a shape are no probabilities, such as logits.

    References
    ----------
    Ji, Henriques and Vedaldi, "Invariant Information Clustering", ICCV 2019, equation 3; "DHOG: Deep Hierarchical
    Object Grouping", arXiv 2003.08821, equation 1.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import mi_loss
    >>> labels = torch.eye(4).repeat(8, 1)
    >>> round(mi_loss(labels, labels).item(), 4)  # four balanced clusters that agree: -ln 4
    -1.3863
    """
    if group is not None:

        def prepare() -> tuple[tuple[Tensor, Tensor], dict[str, object], tuple[()]]:
            check.flag("mi_loss", "symmetric", symmetric)
            own = _check(p, q, symmetric)
            facts = {"lamb": check.number("mi_loss", "lamb", lamb), "symmetric": symmetric}
            look_at_rows("mi_loss", "p", own[0], "q", own[1])
            return own, {"p": kind_of(own[0], -2), "q": kind_of(own[1], -2), **facts}, ()

        ranks = ranks_of("mi_loss", group)
        (p, q), _ = ranks.agree(prepare)
        found = mi_of_all(ranks, p, q, float(lamb), symmetric)
        if wants_gradient("mi_loss", p, q):
            found = _of_all(p, q, found, None)
        return found[0]
    check.flag("mi_loss", "symmetric", symmetric)
    p, q = _check(p, q, symmetric)
    lamb = check.number("mi_loss", "lamb", lamb)
    look_at_rows("mi_loss", "p", p, "q", q)
    if wants_gradient("mi_loss", p, q):
        loss: Tensor = _differentiable(p, q, lamb, symmetric)[0]
        return loss
    return _raw.mi_loss(p, q, lamb, symmetric)[0]


def iic_loss(p: Tensor, q: Tensor, *, group: ProcessGroup | None = None) -> Tensor:
    """`mi_loss` with IIC's choices: symmetric joint, lamb = 1.

    Parameters
    ----------
    p, q : Tensor, shape (..., n, C)
        Probabilities of the same samples under two augmentations.
    group : torch.distributed.ProcessGroup, optional
        As in `mi_loss`.

    Returns
    -------
    Tensor, shape (...)
        Minus the mutual information in nats, in [-ln C, 0].

    References
    ----------
    Ji, Henriques and Vedaldi, "Invariant Information Clustering", ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import iic_loss
    >>> iic_loss(torch.full((6, 2), 0.5), torch.full((6, 2), 0.5)).abs().item() < 1e-6  # says nothing
    True
    """
    return mi_loss(p, q, group=group)


def _check(p: Tensor, q: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    check_floating("mi_loss", "p", p)
    check_floating("mi_loss", "q", q)
    if p.dim() < 2:
        raise ValueError(f"mi_loss: 'p' must have shape (..., n, C), got {tuple(p.shape)}")
    if q.dim() < 2:
        raise ValueError(f"mi_loss: 'q' must have shape (..., n, D), got {tuple(q.shape)}")
    if p.shape[-2] != q.shape[-2]:
        raise ValueError(f"mi_loss: 'q' must have p's {p.shape[-2]} samples, got {q.shape[-2]}")
    if p.shape[-1] < 1 or q.shape[-1] < 1:
        raise ValueError(f"mi_loss: 'p' and 'q' must have at least one class, got {p.shape[-1]} and {q.shape[-1]}")
    if symmetric and p.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"mi_loss: 'q' must have p's {p.shape[-1]} classes when symmetric=True, got {q.shape[-1]}; "
            "pass symmetric=False"
        )
    return matched_rows("mi_loss", "p", p, "q", q)


class _MILoss(torch.autograd.Function):
    """Keeps dL/dJ from the forward pass; the loss is the only differentiable output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, q: Tensor, lamb: float, symmetric: bool) -> tuple[Tensor, Tensor]:
        return _raw.mi_loss(p, q, lamb, symmetric)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        p, q, _, _ = inputs
        ctx.save_for_backward(p, q, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad_loss is None:
            return None, None, None, None
        p, q, joint_grad = ctx.saved_tensors
        need_p, need_q = ctx.needs_input_grad[:2]
        run = _differentiable_backward if torch.is_grad_enabled() else _raw.mi_loss_backward
        grad_p, grad_q = run(grad_loss, p, q, joint_grad, need_p, need_q)
        return grad_p if need_p else None, grad_q if need_q else None, None, None


class _MILossOfAll(_MILoss):
    """The same of what all ranks have found, with the gradient of this rank's samples."""

    @staticmethod
    def forward(p: Tensor, q: Tensor, found: tuple[Tensor, Tensor], _: None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return found


_differentiable = differentiable(_MILoss)
_of_all = differentiable(_MILossOfAll)
_differentiable_backward = differentiable(first_derivative_only("mi_loss", _raw.mi_loss_backward))


@torch.library.register_fake("deepclust::mi_loss")
def _(p: Tensor, q: Tensor, lamb: float, symmetric: bool) -> tuple[Tensor, Tensor]:
    dtype = accumulator_dtype(p.dtype)
    loss = p.new_empty(p.shape[:-2], dtype=dtype)
    return loss, p.new_empty((*p.shape[:-2], p.shape[-1], q.shape[-1]), dtype=dtype)


@torch.library.register_fake("deepclust::mi_loss_backward")
def _(grad_loss: Tensor, p: Tensor, q: Tensor, joint_grad: Tensor, need_p: bool, need_q: bool) -> tuple[Tensor, Tensor]:
    return p.new_empty(p.shape if need_p else (0,)), q.new_empty(q.shape if need_q else (0,))


@torch.library.register_vmap("deepclust::mi_loss")
def _(
    info: Any, in_dims: tuple[Any, ...], p: Tensor, q: Tensor, lamb: float, symmetric: bool
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    p, q = (batch_first(info.batch_size, t, dim) for t, dim in zip((p, q), in_dims[:2], strict=True))
    return _raw.mi_loss(p, q, lamb, symmetric), (0, 0)


@torch.library.register_vmap("deepclust::mi_loss_backward")
def _(
    info: Any,
    in_dims: tuple[Any, ...],
    grad_loss: Tensor,
    p: Tensor,
    q: Tensor,
    joint_grad: Tensor,
    need_p: bool,
    need_q: bool,
) -> tuple[tuple[Tensor, Tensor], tuple[int | None, int | None]]:
    tensors = (grad_loss, p, q, joint_grad)
    tensors = tuple(batch_first(info.batch_size, t, d) for t, d in zip(tensors, in_dims[:4], strict=True))
    grads = _raw.mi_loss_backward(*tensors, need_p, need_q)
    return grads, (0 if need_p else None, 0 if need_q else None)
