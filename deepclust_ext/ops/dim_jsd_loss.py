"""Deep InfoMax's local bound by dot products over all pairs of a batch, in chunks: the scores are never stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deepclust_ext.ops._common import (
    accumulator_dtype,
    check_floating,
    differentiable,
    first_derivative_only,
    wants_gradient,
)

__all__ = ["dim_jsd_loss"]


def dim_jsd_loss(codes: Tensor, maps: Tensor) -> Tensor:
    r"""Minus the Jensen-Shannon bound on the mutual information of images' codes and places of their feature maps.

    With the scores :math:`t_{ijl} = \langle c_i, m_{jl} \rangle` of code i at place l of image j's map, an image's own
    map against those of all others:

    .. math:: L = \frac1{BL} \sum_{il} \mathrm{softplus}(-t_{iil})
              + \frac1{B(B-1)L} \sum_{i \ne j, l} \mathrm{softplus}(t_{ijl})

    Positives and negatives are averaged apart. The forward pass takes the images of a few maps at a time and computes
    the gradients as it goes: beside these, which the backward pass scales into copies, it needs O(B (B + L)) memory and
    never holds the B x B x L scores. That saves memory where B is larger than u; elsewhere storing the scores costs no
    more. The time is that of three matrix products, which leave a fused kernel little to win, so this is plain torch:
    the same bits on every run, while another number of threads may round torch's products and sums differently.

    Parameters
    ----------
    codes : Tensor, shape (B, u), float16, bfloat16, float32 or float64
        One code per image, B >= 2. Any strides.
    maps : Tensor, shape (B, L, u)
        L >= 1 places of each image's map, embedded where the codes are. A different dtype is promoted.

    Returns
    -------
    Tensor, shape ()
        The loss, float32 (float64 for float64 inputs), at least 0 and 2 ln 2 where all scores are 0. Differentiable
        once, in `codes` and `maps`.

    Raises
    ------
    TypeError
        `codes` or `maps` is not a floating-point tensor.
    ValueError
        Shapes or devices do not fit together, or there is a single image, which has no negatives.

    References
    ----------
    Hjelm et al., "Learning deep representations by mutual information estimation and maximization", ICLR 2019,
    equations 4 and 8 with the encode-and-dot-product architecture; L_LMI of VCAMI is minus this.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import dim_jsd_loss
    >>> round(dim_jsd_loss(torch.zeros(3, 8), torch.randn(3, 5, 8)).item(), 4)
    1.3863
    """
    codes, maps = _check(codes, maps)
    if not wants_gradient("dim_jsd_loss", codes, maps):
        return _bound(codes, maps, False, False)[0]
    # Inside torch.func's transforms `requires_grad` does not tell.
    every = torch._C._are_functorch_transforms_active()
    loss: Tensor = _differentiable(codes, maps, every or codes.requires_grad, every or maps.requires_grad)[0]
    return loss


def _check(codes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    check_floating("dim_jsd_loss", "codes", codes)
    check_floating("dim_jsd_loss", "maps", maps)
    if codes.dim() != 2 or codes.shape[1] < 1:
        raise ValueError(f"dim_jsd_loss: 'codes' must have shape (B, u), got {tuple(codes.shape)}")
    if codes.shape[0] < 2:
        raise ValueError(
            f"dim_jsd_loss: 'codes' must be of at least 2 images, got {codes.shape[0]}: an image's negatives are others"
        )
    if maps.dim() != 3 or maps.shape[1] < 1 or maps.shape[::2] != codes.shape:
        raise ValueError(
            f"dim_jsd_loss: 'maps' must have shape ({codes.shape[0]}, L, {codes.shape[1]}) with L >= 1, "
            f"got {tuple(maps.shape)}"
        )
    if maps.device != codes.device:
        raise ValueError(
            f"dim_jsd_loss: 'maps' must be on codes's device {codes.device}, got {maps.device}; "
            f"move it with .to({str(codes.device)!r})"
        )
    return codes, maps


def _bound(codes: Tensor, maps: Tensor, need_codes: bool, need_maps: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients where they are needed: empty tensors elsewhere."""
    n, places, units = maps.shape
    dtype = accumulator_dtype(torch.promote_types(codes.dtype, maps.dtype))
    rows, n_positive, n_negative = codes.to(dtype), n * places, n * (n - 1) * places
    loss: Tensor | float = 0.0
    grad_codes, grad_maps = rows.new_empty(0), maps.new_empty(0)
    # As many maps at a time as keep their scores, (B, images * L), within 4 B (B + L).
    images = 4 * (n + places) // places
    with torch.autocast(codes.device.type, enabled=False):  # it would multiply in half precision
        for start in range(0, n, images):
            part = maps[start : start + images].to(dtype)
            count, flat = len(part), part.reshape(-1, units)
            scores = rows @ flat.T
            # Each image's code at its own places, (L, count), taken out of the negatives.
            block = scores.view(n, count, places)[start : start + count].diagonal()
            own = block.clone()
            block.fill_(-torch.inf)
            sums = _softplus(-own).sum() / n_positive + _softplus(scores).sum() / n_negative
            # In float64: there may be as many parts as images.
            loss = loss + sums.double()
            if not need_codes and not need_maps:
                continue
            slopes = scores.sigmoid().div_(n_negative)
            slopes.view(n, count, places)[start : start + count].diagonal().copy_((-own).sigmoid() / -n_positive)
            if start == 0:
                # Made of the scores, so that torch.vmap sees a batch in them wherever there is one.
                grad_codes = scores.new_zeros(n, units) if need_codes else grad_codes
                grad_maps = scores.new_empty(n, places, units) if need_maps else grad_maps
            if need_codes:
                grad_codes += slopes @ flat
            if need_maps:
                grad_maps[start : start + count] = (slopes.T @ rows).view(count, places, units)
    return torch.as_tensor(loss).to(dtype), grad_codes.to(codes.dtype), grad_maps.to(maps.dtype)


def _softplus(x: Tensor) -> Tensor:
    # torch is linear from 20 on, which float64 can tell from the logarithm.
    return functional.softplus(x, threshold=40.0)


class _DimJSD(torch.autograd.Function):
    """Keeps both gradients from the forward pass; the loss is the only differentiable output."""

    generate_vmap_rule = True

    @staticmethod
    def forward(codes: Tensor, maps: Tensor, need_codes: bool, need_maps: bool) -> tuple[Tensor, Tensor, Tensor]:
        return _bound(codes, maps, need_codes, need_maps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        # The inputs too: by them a second derivative comes to be asked for, and is refused.
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.needs = inputs[2:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: Any) -> tuple[Tensor | None, Tensor | None, None, None]:
        if grad_loss is None:
            return None, None, None, None
        run = _differentiable_scaled if torch.is_grad_enabled() else _scaled
        grad_codes, grad_maps = run(grad_loss, *ctx.saved_tensors)
        return grad_codes if ctx.needs[0] else None, grad_maps if ctx.needs[1] else None, None, None


def _scaled(
    grad_loss: Tensor, codes: Tensor, maps: Tensor, grad_codes: Tensor, grad_maps: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The saved gradients times that of the loss."""
    del codes, maps
    return (grad_loss * grad_codes).to(grad_codes.dtype), (grad_loss * grad_maps).to(grad_maps.dtype)


_differentiable = differentiable(_DimJSD)
_differentiable_scaled = differentiable(first_derivative_only("dim_jsd_loss", _scaled))
